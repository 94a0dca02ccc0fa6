"""The flow of subjects: from what a source had to what was tested in each fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from vitaepp.data.storeinfo import Account
from vitaepp.presentation.charts import Figure
from vitaepp.presentation.flow import Box, Stage, flow_chart
from vitaepp.reporting.contents import Evaluation, RunContents
from vitaepp.system.progress import counted

#: Reasons that are told one by one; the others are added up.
MOST_REASONS = 6

#: Classes whose subjects are counted in a box.
MOST_CLASSES = 4


def flow(
    run: RunContents, evaluation: Evaluation | None, account: Account | None = None
) -> Figure | None:
    """What became of the subjects of a run; None where nothing is known of them.

    Args:
        run: that was trained.
        evaluation: of one label; None ends the diagram at the store.
        account: of the run's store, where the run itself does not have it.
    """
    account = Account.parse(run.store.get("account")) or account
    stored = run.store.get("subjects")
    stages = list(_until_stored(run, account, stored)) if isinstance(stored, int) else []
    last: list[Box] = []
    if evaluation is not None and isinstance(evaluation.metrics.get("n"), int):
        metrics = evaluation.metrics
        lost = _without_label(metrics)
        embedded = metrics["n"] + sum(lost.values())
        if stages and embedded != stored:
            stages = []  # of another store: what became of the run's is another question
        if not stages:
            stages.append(Stage(Box("Embedded", [counted(embedded, "subject")])))
        title = f"Evaluated: label {metrics['label']}"
        members = _of_classes(metrics.get("members"), evaluation.task)
        lines = [f"{counted(metrics['n'], 'subject')}{members}"]
        if metrics.get("persons_by") == "participant":
            lines.append(f"of {counted(metrics['persons'], 'person')}")
        aside = Box("Not evaluated", [f"{n:,}: {why}" for why, n in lost.items()]) if lost else None
        stages.append(Stage(Box(title, lines), aside))
        last = list(_folds(evaluation))
    if not stages:
        return None
    whose = "the store and its evaluation" if last else "the store"
    drawing = flow_chart(stages, last, says=f"Flow of subjects into {whose}: {_in_words(stages)}")
    note = ""
    if not account and stages[0].box.title != "Embedded":
        note = "the store, of an earlier version, does not say what prepare left out"
    boxes = [box for stage in stages for box in (stage.lost, stage.box) if box] + last
    table = [("box", "text"), *((box.title, "; ".join(box.lines)) for box in boxes)]
    return Figure("Flow of subjects", note, drawing, (), table)


def _until_stored(run: RunContents, account: Account | None, stored: int) -> Iterator[Stage]:
    lines = [counted(stored, "subject")]
    trained = run.summary.get("trained_on")
    if isinstance(trained, int):
        lines.append(f"{'all' if trained == stored else f'{trained:,}'} used to train the encoder")
    if account is None:
        yield Stage(Box("In the store", lines))
        return
    failed = sum(account.failed.values())
    if earlier := stored - (account.found - failed):
        lines.append(f"{earlier:,} of them from an earlier call of prepare")
    yield Stage(Box("Found in the source", [counted(account.found, "subject")]))
    lost = None
    if failed:
        lost = Box(f"{counted(failed, 'subject')} not prepared", _reasons(account.failed))
    if account.left_out:
        files = counted(sum(account.left_out.values()), "image")
        unused = [f"{files} of the source not used:", *_reasons(account.left_out)]
        lost = Box(lost.title, [*lost.lines, *unused]) if lost else Box(unused[0], unused[1:])
    yield Stage(Box("In the store", lines), lost)


def _reasons(counts: Mapping[str, int]) -> list[str]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{count:,}: {reason}" for reason, count in ordered[:MOST_REASONS]]
    if rest := sum(count for _, count in ordered[MOST_REASONS:]):
        lines.append(f"{rest:,}: other reasons")
    return lines


def _without_label(metrics: Mapping[str, Any]) -> dict[str, int]:
    names = {"unlabelled": "no label", "other splits": "neither in train nor in test"}
    counts = metrics.get("left_out") or {}
    return {
        names.get(str(why), str(why)): count
        for why, count in counts.items()
        if isinstance(count, int) and count
    }


def _of_classes(members: Any, task: str) -> str:
    """How many there are of each, in words.

    >>> _of_classes({"0": 3, "1": 2}, "classification"), _of_classes({"edema": 3}, "multilabel")
    (': 3 of class 0, 2 of class 1', ': 3 with edema')
    """
    if not isinstance(members, Mapping) or not 0 < len(members) <= MOST_CLASSES:
        return ""
    which = "with" if task == "multilabel" else "of class"
    return ": " + ", ".join(f"{count:,} {which} {name}" for name, count in members.items())


def _folds(evaluation: Evaluation) -> Iterator[Box]:
    sizes = evaluation.metrics.get("sizes") or []
    predictions = evaluation.predictions
    counts = pd.DataFrame()
    if predictions is not None and {"fold", "label"} <= set(predictions):
        counts = pd.crosstab(predictions["fold"], predictions["label"].astype(str))
    classes = [str(c) for c in evaluation.metrics.get("classes") or []]
    for k, size in enumerate(sizes):
        lines = [f"{size['train']:,} to train", f"{size['test']:,} to test"]
        of_one = evaluation.task != "multilabel"  # of several labels the text is a combination
        if of_one and k in counts.index and len(classes) <= MOST_CLASSES:
            lines[-1] += ":"
            lines += [f"{counts.loc[k].get(name, 0):,} of class {name}" for name in classes]
        yield Box(f"Fold {k + 1}" if len(sizes) > 1 else "Given splits", lines)


def _in_words(stages: list[Stage]) -> str:
    return "; ".join(f"{stage.box.title}, {stage.box.lines[0]}" for stage in stages)
