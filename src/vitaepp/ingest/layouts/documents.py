"""JSON files that describe a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitaepp.errors import SourceError


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file.

    Raises:
        SourceError: the file is missing, not JSON, or not an object. The message quotes nothing
            from the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path.name}: is not valid JSON: line {error.lineno}, column {error.colno}; correct "
            "it, or download it again"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError):
        raise SourceError(f"{path.name}: cannot be read as JSON; download it again") from None
    if not isinstance(value, dict):
        raise SourceError(f"{path.name}: holds a {type(value).__name__}; an object is needed")
    return value
