"""JSON files that describe a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vitaepp.errors import SourceError

#: What JSON calls what is no object.
_KINDS = {list: "an array", str: "a text", bool: "a boolean", int: "a number", float: "a number"}


def read_json(path: Path, name: str = "") -> dict[str, Any]:
    """Read an object from a JSON file.

    Args:
        path: of the file.
        name: what errors call it; by default its own name.

    Raises:
        SourceError: the file is missing, not JSON, or not an object. The message quotes nothing
            from the file.
    """
    name = name or path.name
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{name}: is not valid JSON: line {error.lineno}, column {error.colno}; correct it, or "
            "download it again"
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        why = {UnicodeDecodeError: "is not text in UTF-8", RecursionError: "is nested too deeply"}
        problem = why.get(type(error), f"cannot be read ({getattr(error, 'strerror', None)})")
        raise SourceError(f"{name}: {problem}; download it again") from None
    if not isinstance(value, dict):
        kind = _KINDS.get(type(value), "null")
        raise SourceError(f"{name}: holds {kind} instead of an object; download it again")
    return value
