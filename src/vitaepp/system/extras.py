"""Packages that only some tasks need, and how to install them: the extras in pyproject.toml.

docs/install.md says what each is for, and what it costs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vitaepp.errors import MissingPackageError, one_line


def require(module: str, extra: str, purpose: str) -> Any:
    """Import a module of a package that only an extra installs.

    Args:
        module: what is imported, as `matplotlib.figure`.
        extra: its extra, as `report`.
        purpose: what needs it, the first words of the error.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "which is not installed" if missing else f"which cannot be imported: {error}"
        raise MissingPackageError(
            f"{purpose} {package}, {one_line(Exception(why))}; {install(extra)}"
        ) from error


def install(extra: str) -> str:
    """The command that installs an extra.

    >>> install("report")
    "pip install 'vitaepp[report]'"
    """
    return f"pip install 'vitaepp[{extra}]'"
