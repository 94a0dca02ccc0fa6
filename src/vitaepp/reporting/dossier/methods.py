"""The methods, as sentences: every number is a recipe's, a training's or an evaluation's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitaepp.data.storeinfo import Account
from vitaepp.reporting.contents import RunContents
from vitaepp.reporting.dossier.question_sentences import OF_QUESTION
from vitaepp.reporting.dossier.questions import Question
from vitaepp.reporting.dossier.run_sentences import OF_RUN
from vitaepp.system.progress import counted
from vitaepp.system.text import be

#: Sentences by what they are about; an empty one is not known.
Facts = Mapping[str, str]


#: Paragraphs, each of some facts in this order.
_PARAGRAPHS = {
    "Subjects": ("cohort", "excluded", "persons"),
    "Images": ("images", "intensities", "missing", "privacy"),
    "Pre-training": (
        "model",
        "initial",
        "losses",
        "views",
        "optimisation",
        "selection",
        "features",
    ),
    "Evaluation": ("partition", "folds", "disjoint", "classifier", "controls", "threshold"),
    "Statistics": ("metrics", "tests", "uncertainty"),
    "Software and hardware": ("software", "hardware", "seed"),
}


def facts_of(
    runs: Sequence[RunContents],
    questions: Sequence[Question],
    accounts: Mapping[str, Account | None],
) -> Facts:
    """What runs and questions tell, as sentences.

    What all runs share is said once; what differs, by run.

    Args:
        runs: the runs.
        questions: what was asked of them.
        accounts: what `prepare` left out, by run.
    """
    facts = {name: _by_run(runs, of) for name, of in OF_RUN.items()}
    facts["excluded"] = " ".join(
        dict.fromkeys(_excluded(accounts.get(run.name)) for run in runs)
    ).strip()
    for name, about in OF_QUESTION.items():
        facts[name] = _by_question(questions, about)
    return facts


def paragraphs(facts: Facts) -> list[tuple[str, str]]:
    """The methods section: titles with their text."""
    texts = (
        (title, " ".join(filter(None, (facts.get(name) for name in names))))
        for title, names in _PARAGRAPHS.items()
    )
    return [(title, text) for title, text in texts if text]


def _by_run(runs: Sequence[RunContents], of: Any) -> str:
    texts = {run.name: " ".join(of(run)) for run in runs}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return " ".join(f"{run}: {text}" for run, text in texts.items() if text)


def _by_question(questions: Sequence[Question], of: Any) -> str:
    texts: dict[str, list[str]] = {}
    for question in questions:
        texts.setdefault(" ".join(of(question)), []).append(question.title)
    if len(texts) == 1:
        return next(iter(texts))
    texts.pop("", None)
    return " ".join(f"For {' and '.join(titles)}: {text}" for text, titles in texts.items())


def _excluded(account: Account | None) -> str:
    if account is None:
        return ""
    failed, images = sum(account.failed.values()), sum(account.left_out.values())
    why = "; ".join(f"{count:,}: {reason}" for reason, count in account.failed.items())
    text = f"The source had {counted(account.found, 'subject')}, of which {failed:,} could not be "
    text += f"prepared{f' ({why})' if why else ''}."
    if images:
        why = "; ".join(f"{count:,}: {reason}" for reason, count in account.left_out.items())
        text += f" {counted(images, 'image')} of the source {be(images)} not used ({why})."
    return text
