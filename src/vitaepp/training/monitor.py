"""What looks at a training from epoch to epoch: its numbers stand in metrics.csv."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from vitaepp.methods import Method


class Monitor(ABC):
    """Looks at what is trained after each epoch, and leaves it as it is.

    Attributes:
        ended: whether it wants no further epoch.
    """

    ended = False

    def begin(self, method: Method) -> None:
        """Look at it before its first step; most have nothing to see then."""
        self.ended = False

    @abstractmethod
    def scores(
        self, method: Method, epoch: int, seconds: float, first: bool = True, last: bool = False
    ) -> dict[str, float]:
        """Its columns of metrics.csv for an epoch; NaN where there is no score.

        Args:
            method: what is trained.
            epoch: number of the epoch that has ended.
            seconds: how long it took.
            first: whether this is the one process that writes.
            last: whether training ends with it.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what a checkpoint kept."""
