"""The dossier of runs: what a paper needs, in a folder.

OUT/
  README.md          what is here, the tables, and how to check them
  methods.md, .tex   how everything was done, from recipes and results
  checklists/        TRIPOD+AI and CLAIM: what runs answer, and what is left to say
  tables/            results, comparisons and subjects per fold as .md, .tex and .csv
  figures/           flow of subjects (.svg, .pdf); ROC, map and training (.pdf)
  recipes/           every setting of each run
  data/              predictions with numbers in place of subjects' names, and index.json
  verify.py          recomputes every number of the tables and of README.md's from data/
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from vitaepp.data.store import Store
from vitaepp.data.storeinfo import Account
from vitaepp.errors import RunError
from vitaepp.evaluation.summary import all_doubts, count_tested, subjects_text
from vitaepp.presentation.charts import Figure, side_by_side
from vitaepp.presentation.tables import escape_latex, markdown
from vitaepp.reporting.contents import RunContents
from vitaepp.reporting.dossier.checklists import CHECKLISTS, checklist
from vitaepp.reporting.dossier.methods import facts_of, paragraphs
from vitaepp.reporting.dossier.questions import Question, questions_of, write_table
from vitaepp.reporting.flow import flow
from vitaepp.reporting.reading import read_run
from vitaepp.reporting.sections import header, training
from vitaepp.reporting.sections.evaluation import evaluation as drawn
from vitaepp.system.extras import require
from vitaepp.system.files import atomic_path, check_writable, file_stem, write_json, write_text
from vitaepp.system.paths import unique_names
from vitaepp.system.progress import counted, warn
from vitaepp.system.urls import Location

#: What tells that a folder is a dossier.
_SIGN = Path("data") / "index.json"


def dossier(
    runs: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    store: Location | None = None,
) -> Path:
    """Write what a paper about runs needs: methods, tables, figures, checklists and their check.

    Evaluations of the same label over the same folds stand in one table, whichever run they are
    of, and are compared with the first. Every number of the tables can be computed again from the
    predictions beside them by `verify.py`, which needs scikit-learn and pandas alone. Subjects have
    numbers instead of names, and no file holds a path of this machine.

    Args:
        runs: a run folder, or several, the reference first.
        out: the folder, new or empty. It appears whole or not at all.
        store: that the runs were trained on. It is needed only where a run does not know what
            `prepare` left out, because it was made by an earlier version.

    Returns:
        The folder.

    Raises:
        RunError: a folder is not a run, no run has an evaluation, `store` is not the runs' store,
            or `out` holds something else.
    """
    require("matplotlib", "report", "a dossier needs")
    paths = [Path(run) for run in ([runs] if isinstance(runs, str | os.PathLike) else runs)]
    if not paths:
        raise RunError("no run to write about; give one or more run folders")
    target = Path(out)
    _refuse_others(target)
    contents = [read_run(path, name) for path, name in zip(paths, unique_names(paths), strict=True)]
    for run in contents:
        for line in run.broken:
            warn(f"{run.name}: {line}")
    questions = questions_of(contents)
    if not questions:
        raise RunError(
            f"{', '.join(run.name for run in contents)}: no evaluation with its predictions; a "
            f"dossier needs at least one: vitaepp evaluate {paths[0]}/embeddings.parquet --label "
            f"COLUMN --out {paths[0]}/evaluation"
        )
    accounts = _accounts(contents, store)
    with atomic_path(target) as folder:
        folder.mkdir()
        _write(folder, contents, questions, accounts)
    return target


def _refuse_others(out: Path) -> None:
    if not out.exists():
        check_writable(out)
        return
    if not out.is_dir():
        raise RunError(f"{out}: is a file; give a folder")
    if any(out.iterdir()):
        content = (
            "a dossier, in which somebody may have written" if (out / _SIGN).is_file() else "files"
        )
        raise RunError(f"{out}: holds {content}; choose another folder, or remove this one first")


def _accounts(runs: Sequence[RunContents], store: Location | None) -> dict[str, Account | None]:
    """What prepare left out, by run; from the store where a run does not know it."""
    accounts = {run.name: Account.parse(run.store.get("account")) for run in runs}
    if store is None:
        return accounts
    opened = Store(store)
    account = opened.account
    if account is None:
        warn(
            f"{opened.name}: does not know what prepare left out; run prepare again on the same "
            "source, which makes nothing anew that is there"
        )
    for run in runs:
        if run.store.get("subjects") != len(opened):
            trained = run.store.get("subjects")
            raise RunError(
                f"{opened.name}: has {counted(len(opened), 'subject')}, but {run.name} was trained "
                f"on a store with {trained}; give the store of the runs"
            )
        accounts[run.name] = accounts[run.name] or account
    return accounts


def _write(
    folder: Path,
    runs: Sequence[RunContents],
    questions: Sequence[Question],
    accounts: dict[str, Account | None],
) -> None:
    numbers = _numbers(questions)
    for question in questions:
        _write_tables(folder / "tables", question)
        for entry in question.entries:
            table = entry.tested()
            columns = [c for row in question.index()["rows"] for c in row["columns"]]
            true = [c for c in entry.evaluation.rows() if c != "subject"]
            kept = [c for c in (*true, "draw", *dict.fromkeys(columns)) if c in table]
            rows = table[kept].assign(subject=table["subject"].map(numbers))
            (folder / "data").mkdir(exist_ok=True)
            rows.to_parquet(folder / "data" / entry.predictions, index=False)
    write_json(folder / _SIGN, {"questions": [question.index() for question in questions]})
    shutil.copyfile(Path(__file__).with_name("verify.py"), folder / "verify.py")
    figures = list(_figures(runs, questions, accounts))
    for stem, figure in figures:
        drawing = side_by_side([figure]) if figure.legend else figure.drawing
        (folder / "figures").mkdir(exist_ok=True)
        drawing.save(folder / "figures" / f"{stem}.pdf")
        if stem.startswith("flow"):
            drawing.save(folder / "figures" / f"{stem}.svg")
    for run in runs:
        text = yaml.safe_dump(_without_paths(run.recipe), sort_keys=False, allow_unicode=True)
        write_text(folder / "recipes" / f"{file_stem(run.name)}.yaml", text)
    facts = facts_of(runs, questions, accounts)
    written = paragraphs(facts)
    write_text(
        folder / "methods.md",
        "# Methods\n\n" + "".join(f"## {title}\n\n{text}\n\n" for title, text in written),
    )
    write_text(
        folder / "methods.tex",
        "".join(
            f"\\paragraph{{{escape_latex(title)}}}\n{escape_latex(text)}\n\n"
            for title, text in written
        ),
    )
    for stem in CHECKLISTS:
        write_text(folder / "checklists" / f"{stem}.md", checklist(stem, facts))
    write_text(folder / "README.md", _readme(runs, questions, [stem for stem, _ in figures]))


def _numbers(questions: Sequence[Question]) -> dict[str, str]:
    """A number for each subject; their order stays, which resampling goes by."""
    subjects = sorted(
        {s for q in questions for e in q.entries for s in e.evaluation.rows()["subject"]}
    )
    width = len(str(len(subjects)))
    return {subject: f"s{i:0{width}d}" for i, subject in enumerate(subjects, start=1)}


def _write_tables(folder: Path, question: Question) -> None:
    n, metrics = question.number, question.metrics
    spread = "mean ± sample standard deviation over folds" if len(metrics["folds"]) > 1 else ""
    if (draws := len(question.draws)) > 1:
        spread += f", which were drawn {draws} times"
    elif metrics.get("repeats"):
        spread += ", of the first draw"
    positive = f"positive class: {metrics['positive']}" if metrics.get("positive") else ""
    about = [
        question.title,
        subjects_text(metrics["n"], count_tested(metrics)),
        spread,
        positive,
    ]
    note = "; ".join(filter(None, about)) + "."
    write_table(folder, f"results-{n}", *question.results(), note)
    first = " of the first draw" if draws > 1 else ""
    tested = f"{question.title}; subjects that each fold{first} trains on and tests."
    write_table(folder, f"subjects-{n}", *question.subjects(), tested)
    comparison = question.comparison
    if comparison is not None:
        write_text(folder / f"comparison-{n}.md", comparison.to_markdown())
        write_text(folder / f"comparison-{n}.tex", comparison.to_latex())
        write_text(folder / f"comparison-{n}.csv", comparison.to_csv())


def _figures(
    runs: Sequence[RunContents],
    questions: Sequence[Question],
    accounts: dict[str, Account | None],
) -> Iterator[tuple[str, Figure]]:
    """Every figure, with the name of its file."""
    for question in questions:
        for i, entry in enumerate(question.entries, start=1):
            number = f"{question.number}-{i}" if len(question.entries) > 1 else f"{question.number}"
            account = accounts[entry.run.name]
            made = {"flow": flow(entry.run, entry.shown, account), **drawn(entry.shown, "")}
            if (outcome := made["outcome"]) and outcome["figures"]:
                made["survival"] = outcome["figures"][0]
            for kind in ("flow", "roc", "map", "survival"):
                figure = made.get(kind)
                if isinstance(figure, Figure):
                    yield f"{kind}-{number}", figure
    for run in runs:
        for i, figure in enumerate(training.losses(run), start=1):
            yield f"training-{file_stem(run.name)}-{i}", figure


def _without_paths(value: Any) -> Any:
    """A recipe's values, of files and folders the names alone."""
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value


def _readme(
    runs: Sequence[RunContents], questions: Sequence[Question], figures: Sequence[str]
) -> str:
    timed = any(e.evaluation.task == "survival" for q in questions for e in q.entries)
    survival = ", and scikit-survival," if timed else ""
    lines = [f"# {header.title(runs)}", ""]
    lines += [f"- {run.name}: {header.sentence(run)}" for run in runs]
    for question in questions:
        lines += ["", f"## {question.title}", "", markdown(question.results()[0])]
        if question.comparison is not None:
            lines += ["", *(f"- {sentence}" for sentence in question.comparison.sentences)]
        if doubts := all_doubts(entry.evaluation.metrics for entry in question.entries):
            lines += ["", "To be checked before these numbers are used:", ""]
            lines += [f"> {doubt}" for doubt in doubts]
    lines += [
        "",
        "## What is here",
        "",
        "| | |",
        "| --- | --- |",
        "| `methods.md`, `.tex` | how everything was done |",
        "| `checklists/` | TRIPOD+AI and CLAIM: what the runs answer, and what is left to you |",
        "| `tables/` | results, comparisons, subjects per fold; `.tex` needs booktabs |",
        f"| `figures/` | {', '.join(figures)} |",
        "| `recipes/` | every setting of each run |",
        "| `data/` | predictions of every tested subject; numbers stand for subjects' names |",
        "| `verify.py` | computes every number of the tables, and of those above, again |",
        "",
        f"`python verify.py` needs pandas and scikit-learn{survival} alone. It ends with 0 if",
        "every number of these is right, and else names the ones that differ. It does not look at",
        "the text of methods and checklists, at figures and at the notes below tables.",
        "",
    ]
    return "\n".join(lines)
