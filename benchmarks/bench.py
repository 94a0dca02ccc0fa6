"""Every benchmark in turn, as a table: what `make bench` runs.

    python benchmarks/bench.py [--rounds N] [--only NAME ...] [--name MACHINE]

Writes `benchmarks/results/<machine>.json`, and the table into README.md here between the marks of
this machine, which are added at the end where it has none.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import machine

HERE = Path(__file__).parent
README = HERE / "README.md"

#: Scripts, with their rounds, for those that have any. Steps are short, and a shared machine's pace
#: changes within seconds.
SCRIPTS = {"step": 25, "views": 5, "embed": 5, "prepare": 5, "training": None}


def main() -> None:
    """Run the scripts, write the figures and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="others than each script's own")
    parser.add_argument("--only", nargs="*", choices=SCRIPTS, help="these; others as they were")
    parser.add_argument("--name", help="of the file of results; the processor's by default")
    asked = parser.parse_args()
    about = machine("monai", "torchio")
    name = asked.name or re.sub(r"\W+", "-", f"{about['device']}-{about['cores']}").lower()
    target = HERE / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(target.read_text("utf-8")) if target.is_file() else {}
    for script in asked.only or SCRIPTS:
        print(f"{script} …", file=sys.stderr, flush=True)
        rounds = SCRIPTS[script]
        found[script] = run(script, rounds and (asked.rounds or rounds))
        target.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", "utf-8")
    text = table(found, about, target)
    print(text)
    put(text, f"benchmark {name}")


def run(script: str, rounds: int | None) -> dict[str, Any]:
    """What one script measured, in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out.json"
        command = [sys.executable, "-W", "ignore", str(HERE / f"{script}.py"), "--out", str(out)]
        command += [] if rounds is None else ["--rounds", str(rounds)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return found


def table(found: dict[str, Any], about: dict[str, Any], file: Path) -> str:
    """The figures as Markdown, peer by peer."""
    lines = ["| what | peer | ratio (range over rounds) | target |", "| --- | --- | --- | --- |"]
    for row in found.get("step", {}).get("rows", []):
        for pair, note in (
            ("ours bf16 / peer 32", "MONAI, as documented"),
            ("ours bf16 / peer bf16", "MONAI, our precision"),
            ("ours 32 / peer 32", "MONAI, as documented; both in single precision"),
        ):
            if pair in row["ratios"]:
                lines.append(line(row["case"], note, row["ratios"][pair], f"≤ {row['target']}"))
    for row in found.get("views", {}).get("rows", []):
        ratio = row["ratios"]["ours / TorchIO"]
        lines.append(line(row["case"], "TorchIO, two workers", ratio, f"≤ {row['target']}"))
    for row in found.get("embed", {}).get("rows", []):
        for pair, note in (
            ("ours auto / MONAI", "MONAI, plain loop"),
            ("ours auto / MONAI like ours", "MONAI, our precision"),
        ):
            lines.append(line(row["case"], note, row["ratios"][pair], f"≥ {row['target']}"))
    if "prepare" in found:
        ratio = found["prepare"]["ratio"]
        spread = {"median": ratio["median"], "low": ratio["min"], "high": ratio["max"]}
        lines.append(
            line("`prepare`", "SimpleITK reading and resampling", spread, f"≤ {ratio['target']}")
        )
    if "training" in found:
        waiting = found["training"]["waiting"]
        told = f"{waiting['auto']:.1%} from memory, {waiting['none']:.1%} from disk"
        lines.append(f"| waiting for data | the step itself | {told} | < {waiting['target']:.0%} |")
        lines += growth(found["training"])
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    where = f"{about['device']}, {about['cores']} cores; Python {about['python']}, {versions}"
    return "\n".join([*lines, "", f"`make bench` on {where}; the figures are in `{inside(file)}`."])


def growth(training: dict[str, Any]) -> list[str]:
    """Rows that have no peer: how cost grows, and memory at the paper's scale."""
    sides = training["by_side"]
    per_work = " / ".join(f"{row['seconds_per_tflop']:.1f}" for row in sides.values())
    few, many = training["by_subjects_from_disk"].values()
    count = " and ".join(training["by_subjects_from_disk"])
    paper = training["paper"]
    return [
        f"| seconds a TFLOP at {'³ / '.join(sides)}³ | itself | {per_work} | no growth |",
        f"| {count} subjects read from disk | itself | {1e3 * few['step']:.0f} and "
        f"{1e3 * many['step']:.0f} ms a step, {few['memory_mib']:.0f} and "
        f"{many['memory_mib']:.0f} MiB | the same |",
        f"| memory of a step of ViT-B, 4 × 96³, batch 4 | counted, not run | "
        f"{paper['memory_gb']:.1f} GB | ≤ {paper['target_gb']} GB on a GPU |",
    ]


def line(what: str, peer: str, ratio: dict[str, float], target: str) -> str:
    """A row of the table."""
    told = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return f"| {what} | {peer} | {told} | {target} |"


def inside(file: Path) -> str:
    """A file's name in the repository."""
    return file.relative_to(HERE.parent).as_posix()


def put(text: str, mark: str) -> None:
    """Replace what stands between two marks of README.md, or add it at the end."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, known, rest = README.read_text("utf-8").partition(begin)
    if not known:
        before, rest = f"{before}\n", f"{end}\n"
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


if __name__ == "__main__":
    main()
