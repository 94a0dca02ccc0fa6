"""Docstrings as the reference shows them: `Example:` holds a session, as `Examples:` does."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Lets an `Example:` section be shown as code; griffe knows only the plural."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of one function, class or module."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
