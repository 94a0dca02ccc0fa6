"""An experiment's result as Markdown, CSV, LaTeX and plain text."""

from __future__ import annotations

from collections.abc import Sequence

from vitaepp.experiments.results import Result, Row, Versus
from vitaepp.presentation import tables
from vitaepp.presentation.names import metric_title


def to_markdown(result: Result) -> str:
    """The table, the differences from the controls, and how everything was made."""
    parts = [f"# {result.key}", f"{result.title}.", tables.markdown(_cells(result))]
    parts += _below([(row.name, v) for row in result.rows for v in row.versus.values()])
    if controls := [(row.name, v) for row in result.rows for v in row.controls.values()]:
        parts += ["## Against the controls", tables.markdown(_control_cells(result))]
        parts += _below(controls)
    if result.samples:
        names = list(next(iter(result.samples.values())))
        lines = [["PSNR/SSIM", *names]]
        lines += [[name, *values.values()] for name, values in result.samples.items()]
        parts += ["## Single subjects", tables.markdown(lines)]
    notes = [f"- {row.name}: {row.note}" for row in result.rows if row.note]
    if notes:
        parts.append("\n".join(notes))
    facts = [["", ""], *([name, value] for name, value in result.facts.items())]
    parts += ["## How it was made", tables.markdown(facts, numbers=False)]
    if result.settings:
        parts.append("Settings: " + ", ".join(f"`{s}`" for s in result.settings) + ".")
    return "\n\n".join(parts) + "\n"


def to_csv(result: Result) -> str:
    """One row a variant and control, in plain numbers."""
    return result.to_frame().to_csv(index=False)


def to_latex(result: Result) -> str:
    """The table for a paper that loads booktabs; controls stand below a rule."""
    lines = _cells(result)
    controls = sum(row.control for row in result.rows)
    rules = [len(result.rows) - controls] if 0 < controls < len(result.rows) else []
    made = "; ".join(f"{name}: {value}" for name, value in result.facts.items())
    return tables.latex(lines, comment=made, rules=rules)


def to_text(result: Result) -> str:
    """The table for a terminal."""
    notes = [f"{row.name}: {row.note}" for row in result.rows if row.note]
    lacking = _lacking([(row.name, v) for row in result.rows for v in row.versus.values()])
    return "\n".join([f"{result.title}\n", tables.aligned(_cells(result)), *notes, *lacking])


def _below(differences: Sequence[tuple[str, Versus]]) -> list[str]:
    """What a table says of differences, each with the name of its row; nothing of none."""
    if not differences:
        return []
    note = f"Δ is the difference from {', '.join(sorted({v.against for _, v in differences}))}"
    if any(v.low is not None for _, v in differences):
        note += ", with a bootstrap interval over subjects (95 %, trained models held fixed)"
    if tests := sorted({v.test for _, v in differences if v.p is not None}):
        note += f"; p: {', '.join(tests)}, not corrected for the number of rows"
    lacking = _lacking(differences)
    return [f"{note}.", *(["\n".join(f"- {line}" for line in lacking)] if lacking else [])]


def _lacking(differences: Sequence[tuple[str, Versus]]) -> list[str]:
    """A line for each reason that differences have no test or no interval, with their rows."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, versus in differences:
        if versus.reason:
            what = "without a test" if versus.p is None else "without an interval"
            what += " and an interval" * (versus.p is None and versus.low is None)
            rows.setdefault((what, versus.reason), []).append(f"{name} against {versus.against}")
    return [f"{what}: {', '.join(names)} ({why})" for (what, why), names in rows.items()]


def _cells(result: Result) -> list[list[str]]:
    compared = [m for m in result.metrics if any(m in row.versus for row in result.rows)]
    header = ["Method", *(metric_title(m) for m in result.metrics)]
    for metric in compared:
        header += [f"Δ {metric_title(metric)}", "p"]
    lines = [header]
    for row in result.rows:
        line = [row.name, *(_cell(row, m) for m in result.metrics)]
        for metric in compared:
            versus = row.versus.get(metric)
            line += ["", ""] if versus is None else [versus.text(), versus.p_text()]
        lines.append(line)
    return lines


def _cell(row: Row, metric: str) -> str:
    if metric not in row.cells:
        return "—"
    cell = row.cells[metric]
    if metric == "diverged":
        share = cell.mean or 0.0
        return {0.0: "no", 1.0: "yes"}.get(share, f"{share:.0%} of seeds")
    return cell.text(metric)


def _control_cells(result: Result) -> list[list[str]]:
    rows = [row for row in result.rows if row.controls]
    names = {name: None for row in rows for name in row.controls}
    lines = [["Method", *(part for name in names for part in (f"Δ from {name}", "p"))]]
    for row in rows:
        line = [row.name]
        for name in names:
            versus = row.controls.get(name)
            line += ["", ""] if versus is None else [versus.text(), versus.p_text()]
        lines.append(line)
    return lines
