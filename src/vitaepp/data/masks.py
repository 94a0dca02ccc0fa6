"""What the values of masks mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

#: The highest values of 8 and 16 bits. In a soft mask they mean one; beside a few small numbers
#: they mean "ignore".
FULL = (255, 65535)

#: What a store has in voxels that are to be ignored.
IGNORED = FULL[0]

#: The largest number that counts as a label beside an ignore label.
LARGEST_LABEL = 100


def ignore_label(values: Sequence[float | int]) -> int | None:
    """The value of a mask that says nothing of its voxels, as in nnU-Net and some challenges.

    Args:
        values: of one mask, rising; 0 may be among them.

    >>> ignore_label([0, 1, 4, 255]), ignore_label([0, 255]), ignore_label([0, 128, 255])
    (255, None, None)
    """
    labels = [value for value in values if value != 0]
    if len(labels) > 1 and labels[-1] in FULL and labels[-2] <= LARGEST_LABEL:
        return int(labels[-1])
    return None


def apart(masks: Iterable[Collection[int]]) -> dict[int, int]:
    """Labels that are the only one of some masks, and never together; with how many masks.

    They may be one tissue under two numbers.

    Args:
        masks: the labels of each.

    >>> apart([[1], [1], [4]]), apart([[1], [4], [1, 4]])
    ({1: 2, 4: 1}, {})
    """
    sets = [frozenset(labels) for labels in masks]
    alone = Counter(label for labels in sets if len(labels) == 1 for label in labels)
    several = {labels for labels in sets if len(labels) > 1}
    pairs = [p for p in combinations(sorted(alone), 2) if not any(s.issuperset(p) for s in several)]
    return {label: alone[label] for label in sorted({label for pair in pairs for label in pair})}
