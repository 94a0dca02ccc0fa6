"""The parts of pages that are made of the code, and of measured files: no figure is typed twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitaepp.recipe.recipe import Setting

ROOT = Path(__file__).parents[2]


def commands() -> str:
    """Every command with its arguments and options, as Typer writes them."""
    words = [sys.executable, "-m", "typer", "vitaepp.cli.app", "utils", "docs", "--name", "vitaepp"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return text[text.index("\n## ") :]


def settings() -> str:
    """Every setting of a recipe, with its default, in the order of `vitaepp settings`."""
    from vitaepp.recipe.recipe import describe_settings

    groups = groupby(describe_settings(), lambda s: s.name.partition(".")[0])
    return "\n".join(f"## {group}\n\n{_described(members)}" for group, members in groups)


def finetune_settings() -> str:
    """The settings of fine-tuning alone."""
    from vitaepp.recipe.recipe import describe_settings

    return _described(s for s in describe_settings() if s.name.startswith("finetune."))


def _described(members: Iterable[Setting]) -> str:
    return "\n".join(
        f'<a id="{s.name}"></a>`{s.name} = {s.typed}`\n:   {_escaped(s.description)}\n'
        for s in members
    )


def _escaped(text: str) -> str:
    return re.sub(r"([*_<>])", r"\\\1", text)


def functions() -> str:
    """The public functions, those of commands in the order of the commands."""
    from vitaepp.cli.app import VERBS

    names = [name for name in _public() if name.islower() and not name.startswith("_")]
    return _reference(sorted(names, key=lambda n: VERBS.index(n) if n in VERBS else len(VERBS)))


def objects() -> str:
    """The public classes."""
    return _reference([name for name in _public() if name[0].isupper() and "Error" not in name])


def _public() -> list[str]:
    import vitaepp

    return vitaepp.__all__


def _reference(names: list[str]) -> str:
    return "\n\n".join(f"::: vitaepp.{name}" for name in names)


def glossary() -> str:
    """The words of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    words = text.partition("## Words\n")[2].partition("\n## ")[0]
    return words[words.index("| word ") :]


def times() -> str:
    """What trainings took, from the `summary.json` of every run in results/."""
    head = ["data", "images", "size", "parameters", "updates", "threads", "time"]
    rows = []
    for file in sorted((ROOT / "results").glob("*/summary.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        store = run["store"]
        rows.append(
            [
                f"[{file.parent.name}](../results/README.md)",
                f"{run['trained_on']:,}",
                "×".join(map(str, (len(store["modalities"]), *store["size"]))),
                f"{sum(run['parameters'].values()) / 1e6:.1f} M",
                f"{run['steps']:,}",
                run["device"]
                if "NVIDIA" in run["device"]
                else f"{run.get('threads', '')} on {run['device']}",
                _duration(run["seconds"]),
            ]
        )
    return _table(head, rows)


def demo_time() -> str:
    """What the demo's training took in results/demo, and where."""
    run = json.loads((ROOT / "results" / "demo" / "summary.json").read_text(encoding="utf-8"))
    return f"{_duration(run['seconds'])} on {run['device']}"


def steps() -> str:
    """Seconds of one step beside MONAI's, from the benchmarks' files."""
    rows = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        step: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")).get("step", {})
        for case in step.get("rows", []):
            took = {name: f"{seconds:.2f} s" for name, seconds in case["seconds"].items()}
            machine = f"{step['machine']['device']}, {step['machine']['cores']} cores"
            rows.append(
                [case["case"], machine]  # not every machine multiplies bf16
                + [took.get(k, "—") for k in ("ours bf16", "ours 32", "peer bf16", "peer 32")]
            )
    return _table(
        ["step", "machine", "ours, bf16", "ours, single", "MONAI, bf16", "MONAI, single"], rows
    )


def _duration(seconds: float) -> str:
    from vitaepp.presentation.numbers import duration

    return duration(seconds)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part
    for part in (
        *(commands, settings, finetune_settings, functions, objects, glossary),
        *(times, demo_time, steps),
    )
}
