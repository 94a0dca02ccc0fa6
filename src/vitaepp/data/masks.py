"""What the values of masks mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations

#: The highest values of 8 and 16 bits. In a soft mask they mean one; beside a few small numbers
#: they mean "ignore".
FULL = (255, 65535)

#: What a store has in voxels that are to be ignored.
IGNORED = FULL[0]

#: The largest number that counts as a label beside an ignore label.
LARGEST_LABEL = 100


def ignored_values(values: Sequence[float | int], names: Mapping[int, str]) -> set[int]:
    """The values of a mask that say nothing of their voxels: neither a label nor background.

    It is what the source names `ignore`, as nnU-Net does, and 255 or 65535 beside small values, as
    in some challenges, if the source has no name for it.

    Args:
        values: of one mask, rising; 0 may be among them.
        names: what the source calls them, if it does.

    >>> ignored_values([0, 1, 255], {}), ignored_values([255], {}), ignored_values([128, 255], {})
    ({255}, set(), set())
    >>> ignored_values([0, 1, 2], {2: "ignore"}), ignored_values([0, 1, 255], {255: "lesion"})
    ({2}, set())
    """
    labels = [value for value in values if value != 0]
    ignored = {int(v) for v in labels if v == int(v) and is_ignore(names.get(int(v), ""))}
    beside = len(labels) > 1 and labels[-1] in FULL and labels[-2] <= LARGEST_LABEL
    if beside and int(labels[-1]) not in names:
        ignored.add(int(labels[-1]))
    return ignored


def naming_ignored(names: Iterable[tuple[int, str]]) -> list[tuple[int, bool]]:
    """The names of values that `ignored_values` goes by: value, and whether it is to be ignored."""
    return [(v, is_ignore(name)) for v, name in names if is_ignore(name) or v in FULL]


def is_ignore(name: str) -> bool:
    """Whether a value of this name is to be ignored."""
    return name.casefold() == "ignore"


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
