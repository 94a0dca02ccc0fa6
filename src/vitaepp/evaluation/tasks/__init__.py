"""The tasks of an evaluation, one file each: classes, several labels, ordered classes, values and
survival."""

from __future__ import annotations

import pandas as pd

from vitaepp.errors import EvaluationError
from vitaepp.evaluation.measures import known_task
from vitaepp.evaluation.tasks.base import Target
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.evaluation.tasks.multilabel import Multilabel
from vitaepp.evaluation.tasks.ordinal import Ordinal
from vitaepp.evaluation.tasks.regression import Regression
from vitaepp.evaluation.tasks.survival import Survival

#: By the name of the task.
TARGETS: dict[str, type[Target]] = {
    target.task: target for target in (Classification, Multilabel, Ordinal, Regression, Survival)
}


def read_target(
    table: pd.DataFrame,
    label: str,
    task: str = "classification",
    *,
    positive: str | None = None,
    time: str | None = None,
    event: str | None = None,
) -> Target:
    """What is predicted of the subjects of a table.

    Args:
        table: one row a subject.
        label: its column; several, with commas between them, for `multilabel`.
        task: a name in `measures.TASKS`.
        positive: of two classes, the one that sensitivity refers to.
        time: column of the time to the event or to the last visit, for `survival`.
        event: column that says whether the event was seen.

    Raises:
        EvaluationError: the columns do not allow the task, or an option is of another one.
    """
    known_task(task)
    if positive is not None and task != "classification":
        raise EvaluationError("`positive` is a class; only task classification has it")
    if task == "survival":
        if time is None or event is None:
            raise EvaluationError("task survival needs the columns `time` and `event`")
        return Survival(table, time, event)
    if time is not None or event is not None:
        raise EvaluationError(f"`time` and `event` are of task survival, not of {task}")
    if task == "classification":
        return Classification(table, label, positive)
    return TARGETS[task](table, label)  # type: ignore[call-arg]
