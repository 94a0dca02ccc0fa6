"""The table of docs/plan.md that says what each choice is worth, made from the files in results/.

    python results/plan_table.py            # writes it into docs/plan.md

An experiment's JSON is found by its name in any folder here. A choice that no file measures yet has
no figure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "plan.md"
BEGIN, END = "<!-- made by results/plan_table.py -->\n", "<!-- end of what it made -->\n"

#: What plan chooses, and the experiment that measures it.
CHOICES = {
    "`optim.lr`": "learning-rate",
    "`optim.epochs` (updates)": "updates",
    "`optim.batch_size`": "batch",
    "`model.size`": "size",
    "`model.pool`": "pool",
    "`model.patch_size`": "patch",
    "`model.mask_ratio`": "masking-ratio",
    "`views.first.crop`, `views.second.crop`": "augmentation",
    "`views.keep`": "keep",
    "`views.normalize`": "normalize",
    "`loss.contrastive.weight`": "contrastive",
    "`loss.perceptual.weight`": "perceptual",
    "`loss.reconstruction.normalize_targets`": "targets",
    "the losses together": "ablation",
}


def table(folder: Path = HERE) -> str:
    """The table as Markdown."""
    lines = ["| choice | measured on | result | controls |", "| --- | --- | --- | --- |"]
    for choice, experiment in CHOICES.items():
        files = sorted(folder.rglob(f"{experiment}.json"))
        lines += [f"| {choice} | {' | '.join(_cells(file))} |" for file in files]
        if not files:
            lines.append(f"| {choice} | not measured yet | | |")
    return "\n".join(lines) + "\n"


def _cells(file: Path) -> Iterator[str]:
    """Data, variants and controls of one experiment, by its leading metric."""
    found = json.loads(file.read_text(encoding="utf-8"))
    metric = found["metrics"][0]
    yield f"{found['facts']['data']}; {metric.upper() if metric == 'auc' else metric}"
    for control in (False, True):
        rows = [row for row in found["rows"] if row["control"] == control]
        yield "; ".join(_row(row, found["metrics"]) for row in rows)


def _row(row: Mapping[str, Any], metrics: Sequence[str]) -> str:
    cells = row["cells"]
    if metrics[0] not in cells:
        return f"{row['name']} failed"
    few = [f"{cells[m]['mean']:.3f} with {m.partition('@')[2]} labels" for m in metrics if "@" in m]
    after = f" ({', '.join(few)})" if few else ""
    return f"{row['name']} {cells[metrics[0]]['mean']:.3f}{after}"


def with_table(text: str, made: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + made + END + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
