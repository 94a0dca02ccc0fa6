"""Account: how many subjects a source had, and what of it a store does not have, with reasons.

It holds counts and reasons alone, no names of subjects or files, so that a run and a page can keep
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Account:
    """What the latest call of `prepare` found in its source.

    Attributes:
        found: subjects of the source.
        failed: subjects that could not be prepared, by reason.
        left_out: images of the source that belong to no subject or were not chosen, by reason.
    """

    found: int
    failed: Mapping[str, int]
    left_out: Mapping[str, int]

    @classmethod
    def parse(cls, values: Any) -> Account | None:
        """What `asdict` gave, from JSON; None for anything else."""
        try:
            return cls(int(values["found"]), _counts(values["failed"]), _counts(values["left_out"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _counts(values: Any) -> dict[str, int]:
    return {str(reason): int(count) for reason, count in values.items()}
