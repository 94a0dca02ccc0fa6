"""Print the release notes of a version: its section of CHANGELOG.md.

python packaging/notes.py 0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(version: str, changelog: str) -> str:
    """The section below `## VERSION`, up to the next one."""
    section = re.search(
        rf"^## {re.escape(version)}(?![\w.])[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.M | re.S
    )
    if section is None or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md: has no section {version}; write it before the release")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python packaging/notes.py VERSION")
    print(notes(sys.argv[1].removeprefix("v"), CHANGELOG.read_text(encoding="utf-8")), end="")
