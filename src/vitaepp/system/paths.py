"""What kind of folder lies at a path, and what to say where another kind is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from vitaepp.errors import RunError

#: For each kind of folder: its files, the first bytes of the first one, and the call that makes it.
_KINDS = {
    "store": (("store.json",), b"{", "prepare(SOURCE, {})"),
    "run": (("recipe.yaml",), b"method:", "pretrain(STORE, {})"),
    "model": (("model.json", "classifier.skops"), b"{", "fit(EMBEDDINGS, label=COLUMN, out={})"),
    "evaluation": (("metrics.json",), b"{", "evaluate(EMBEDDINGS, label=COLUMN, out={})"),
    "reconstruction": (("metrics.csv",), b"subject,psnr,ssim", "reconstruct(RUN, STORE, {})"),
    "encoder": (("config.json", "model.safetensors"), b"", "pretrain(STORE, RUN)"),
}

#: How many levels are searched for the folder that was meant, and how many of them are named.
_LEVELS, _NAMED = 2, 3

AnyPath = str | os.PathLike[str]


def kind_of(path: AnyPath) -> str | None:
    """The kind of a folder that this package made: `store`, `run`, `evaluation`, …; None of others.

    It is None of a URL, too: no network is used to word a message.
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


def refuse_as_results(path: AnyPath, name: str) -> None:
    """Refuse a folder for results that already is a store, a run, an encoder or a model.

    Args:
        path: where results are to be written.
        name: of a folder in it that would do.

    Raises:
        RunError: saying what it is.
    """
    if (kind := kind_of(path)) in ("store", "run", "encoder", "model"):
        raise RunError(f"{path}: is {_a(kind)}; give a folder of its own, as {path}/{name}")


def instead_of(kind: str, path: AnyPath) -> str:
    """Say what is at a path, where a store, a run or an evaluation was needed, and what to do.

    The caller puts the path before the text. Where a folder of the right kind lies above or below
    the path, the text names it; else it says how to make one.

    >>> instead_of("run", "nowhere")
    "no such run; check the path, or make one with `pretrain(STORE, 'nowhere')`"
    """
    folder = Path(path)
    names, _, call = _KINDS[kind]
    present = kind_of(folder)
    remedy = f"check the path, or make one with `{call.format(_typed(path))}`"
    make_one = f"make one with `{call.format(kind.upper())}`"
    if not folder.exists():
        problem = f"no such {kind}"
    elif not folder.is_dir():
        problem, remedy = f"is a file, and not {_a(kind)}, which is a folder", make_one
    elif present is not None:
        problem, remedy = f"is {_a(present)}, and not {_a(kind)}", make_one
        if (present, kind) == ("store", "run"):
            remedy = f"train on it with `pretrain({_typed(path)}, RUN)`"
    elif not any(folder.iterdir()):
        problem = f"is an empty folder, and not {_a(kind)}"
    else:
        problem = f"is a folder, but not {_a(kind)} (no {' and '.join(names)} in it)"
        remedy = f"check the path, or {make_one}"
        if kind == "store":
            remedy = (
                f"if it holds scans, make a store of them with `prepare({_typed(path)}, STORE)`"
            )
    near = list(islice(_near(folder, kind), _NAMED + 1))
    if near:
        more = ", …" if len(near) > _NAMED else ""
        remedy = f"did you mean {' or '.join(map(str, near[:_NAMED]))}{more}?"
    return f"{problem}; {remedy}"


def swapped(verb: str, arguments: Mapping[str, AnyPath]) -> str | None:
    """A line about arguments in the wrong order, with the right call; None if they are right.

    Args:
        verb: the function.
        arguments: its paths in order, by the kind that each should be: `store`, `run`, and others.
    """
    for name, path in arguments.items():
        kind = kind_of(path)
        if kind is None or kind == name or kind not in arguments:
            continue
        if kind_of(arguments[kind]) != kind:
            right = {**arguments, name: arguments[kind], kind: path}
            order = ", ".join(_typed(right[n]) for n in arguments)
            return f"{path}: is {_a(kind)}, not the {name}; did you mean `{verb}({order})`?"
    return None


def unique_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each folder: its own, with as many parents as it takes to tell them apart.

    >>> unique_names([Path("a/run"), Path("b/run"), Path("c")])
    ['a/run', 'b/run', 'c']
    """
    parts = [path.resolve().parts if not path.name else path.parts for path in paths]
    names = [p[-1] for p in parts]
    depth = 1
    while len(set(names)) < len(names) and depth < max(len(p) for p in parts):
        depth += 1
        names = [
            "/".join(p[-depth:]) if names.count(n) > 1 else n
            for p, n in zip(parts, names, strict=True)
        ]
    return names


def _near(path: Path, kind: str) -> Iterator[Path]:
    """Folders of a kind above a path, the nearest first; if there are none, those below it."""
    above = [p for p in path.parents[:_LEVELS] if p.name and kind_of(p) == kind]
    yield from above
    if not above:
        for level in range(1, _LEVELS + 1):
            files = sorted(path.glob("*/" * level + _KINDS[kind][0][0]))
            yield from (file.parent for file in files if kind_of(file.parent) == kind)


def _typed(path: AnyPath) -> str:
    return repr(os.fspath(path))


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
