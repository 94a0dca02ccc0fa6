"""Choices: settings that were proposed, each with its reason."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from vitaepp.system.text import as_typed

WIDTH = 100


@dataclass(frozen=True)
class Choice:
    """A setting that was chosen for the user.

    Attributes:
        name: dotted path into the recipe.
        value: what was chosen, as YAML has it: lists, no tuples.
        reason: why, in a line.
    """

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.name}={as_typed(self.value)}"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def as_yaml(choices: Sequence[Choice], heading: Sequence[str] = ()) -> str:
    """A recipe of the chosen settings, the reason above each.

    Args:
        choices: settings, those of one section together.
        heading: lines of comment at the top.
    """
    lines = [f"# {line}".rstrip() for line in heading]
    before: list[str] = []
    for choice in choices:
        *sections, name = choice.name.split(".")
        shared = 0
        while shared < min(len(sections), len(before)) and sections[shared] == before[shared]:
            shared += 1
        lines += [f"{'  ' * i}{s}:" for i, s in enumerate(sections) if i >= shared]
        indent = "  " * len(sections)
        lines += textwrap.wrap(
            choice.reason, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(f"{indent}{name}: {_flow(choice.value)}")
        before = sections
    return "\n".join(lines) + "\n"
