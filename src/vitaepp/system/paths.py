"""What lies at a path: where a command is given one thing for another, it says which was meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

#: By which file a folder of each kind is known, how its first bytes may read, and what makes it.
_KINDS = {
    "store": (("store.json",), b"{", "vitaepp prepare SOURCE {}"),
    "run": (("recipe.yaml",), b"method:", "vitaepp pretrain STORE {}"),
    "evaluation": (
        ("metrics.json",),
        b"{",
        "vitaepp evaluate EMBEDDINGS --label LABEL --out {}",
    ),
    "reconstruction": (
        ("metrics.csv", "reconstruction.json"),
        b"",
        "vitaepp reconstruct RUN STORE {}",
    ),
    "encoder": (("config.json", "model.safetensors"), b"", "vitaepp pretrain STORE RUN"),
}

#: How deep folders are searched for what was meant, and how many of it are named.
_DEPTH, _NAMED = 2, 3

Place = str | os.PathLike[str]


def kind_of(path: Place) -> str | None:
    """What a folder of this package's is: `store`, `run`, `evaluation`, …; None for all else.

    A URL is none either: nothing is asked of a network to word a message.
    """
    folder = Path(path)
    for kind, (names, head, _) in _KINDS.items():
        if all((folder / name).is_file() for name in names):
            try:
                with open(folder / names[0], "rb") as opened:
                    if opened.read(len(head)) == head:
                        return kind
            except OSError:
                continue
    return None


def instead_of(kind: str, path: Place) -> str:
    """What is at a path where a store, a run, an evaluation was needed, and what to do.

    The caller puts the path before it. The thing itself is named where it lies above or below;
    else the text says how to make one.

    >>> instead_of("run", "nowhere")
    'no such run; check the path, or make one with vitaepp pretrain STORE nowhere'
    """
    place = Path(path)
    names, _, make = _KINDS[kind]
    found = kind_of(place)
    how = f"check the path, or make one with {make.format(path)}"
    elsewhere = f"make one with {make.format(kind.upper())}"
    if not place.exists():
        what = f"no such {kind}"
    elif not place.is_dir():
        what, how = f"is a file, and not {_a(kind)}, which is a folder", elsewhere
    elif found is not None:
        what, how = f"is {_a(found)}, and not {_a(kind)}", elsewhere
        if (found, kind) == ("store", "run"):
            how = f"train on it with vitaepp pretrain {path} RUN"
    elif not any(place.iterdir()):
        what = f"is an empty folder, and not {_a(kind)}"
    else:
        what = f"is a folder, but not {_a(kind)} (no {' and '.join(names)} in it)"
        how = f"check the path, or {elsewhere}"
        if kind == "store":
            how = f"if it holds scans, make a store of them with vitaepp prepare {path} STORE"
    meant = list(islice(_near(place, kind), _NAMED + 1))
    if meant:
        more = ", …" if len(meant) > _NAMED else ""
        how = f"did you mean {' or '.join(map(str, meant[:_NAMED]))}{more}?"
    return f"{what}; {how}"


def swapped(verb: str, places: Mapping[str, Place]) -> str | None:
    """A line for arguments in the wrong order, with the command in the right one; None if not.

    Args:
        verb: the command.
        places: its arguments in order, by what they are: `store`, `run`, and others.
    """
    for name, path in places.items():
        kind = kind_of(path)
        if kind is None or kind == name or kind not in places:
            continue
        if kind_of(places[kind]) != kind:
            right = {**places, name: places[kind], kind: path}
            order = " ".join(os.fspath(right[n]) for n in places)
            return f"{path}: is {_a(kind)}, not the {name}; did you mean vitaepp {verb} {order}?"
    return None


def _near(place: Path, kind: str) -> Iterator[Path]:
    """Folders of a kind above a path, the nearest first, then below it."""
    above = [p for p in place.parents[:_DEPTH] if p.name and kind_of(p) == kind]
    yield from above
    if not above:
        for depth in range(1, _DEPTH + 1):
            marks = sorted(place.glob("*/" * depth + _KINDS[kind][0][0]))
            yield from (mark.parent for mark in marks if kind_of(mark.parent) == kind)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
