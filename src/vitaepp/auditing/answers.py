"""What an audit measured, and the rules by which that becomes traffic lights and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.auditing import shortcuts
from vitaepp.auditing.facts import Fact, Facts, cut
from vitaepp.auditing.images import Pair
from vitaepp.auditing.items import Item, Verdict, joined
from vitaepp.auditing.permutation import SHUFFLES
from vitaepp.auditing.shortcuts import NO_CONTROL, Association, Cohort
from vitaepp.auditing.subgroups import Decisions, Errors, errors_by
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.scores import auc
from vitaepp.evaluation.statistics import holm
from vitaepp.presentation.numbers import interval, p_value
from vitaepp.system.progress import counted, track

#: Something is told if chance alone does so more rarely, corrected for all tests of the audit …
SIGNIFICANT = 0.05

#: … and if it is told at least so well, from 0 (chance) to 1: an AUC of 0.55, a Spearman of 0.1.
LEAST = 0.1

#: What seems to be told so well, an AUC of 0.65 or a Spearman of 0.3, is not called harmless where
#: there are only too few subjects to exclude chance.
LARGE = 0.3

#: Facts that tell the label this much of what the embedding tells beyond chance may be all of it.
HALF = 0.5

#: What no audit asks, said beside what this one did not.
MARKS = "Marks in the pictures themselves are not looked for."

#: An AUC that is so much lower in a subgroup matters.
GAP = 0.1

_METRICS = {"auc": "AUC", "spearman": "Spearman"}


@dataclass(frozen=True)
class Answers:
    """What was measured about one fact.

    Attributes:
        fact: it.
        embedding: how well the embedding tells it.
        label: how well it tells the label; None where it is no property of a scan.
        errors: how errors are spread over its subgroups; None where they are too small.
    """

    fact: Fact
    embedding: Association
    label: Association | None
    errors: Errors | None


@dataclass(frozen=True)
class Together:
    """What was measured about all facts together.

    Attributes:
        label: how well they tell the label.
        both: the AUC of the embedding and the facts.
        left: the AUC of the embedding with the facts regressed out.
        left_interval: of it.
    """

    label: Association
    both: float
    left: float
    left_interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Measured:
    """All that an audit measured, but for duplicates.

    Attributes:
        cohort: what it is of.
        evaluation: of the embedding alone.
        decisions: of the same.
        answers: of each fact.
        together: about all of those that are properties of scans; None without any.
        unranked: names of facts whose numbers differ too little to be ranked.
    """

    cohort: Cohort
    evaluation: Evaluation
    decisions: Decisions
    answers: list[Answers]
    together: Together | None
    unranked: list[str]

    @property
    def effect(self) -> float:
        """How well the embedding tells the label, from 0 (chance) to 1."""
        return max(0.0, 2 * float(self.evaluation["mean"]["auc"]) - 1)


def measure(cohort: Cohort, facts: Sequence[Fact]) -> Measured:
    """Ask the embedding and the facts everything."""
    evaluation = cohort.evaluate(cohort.features)
    decisions = _decisions(cohort, evaluation)
    answers, unranked = [], []
    for fact in track(facts, "audit", len(facts), unit="facts"):
        association = shortcuts.fact_from_embedding(cohort, fact)
        if association is None:
            unranked.append(fact.name)
            continue
        is_control = fact.name not in NO_CONTROL
        groups = pd.Series(cut(fact).to_numpy(object), index=cohort.table["subject"])
        answers.append(
            Answers(
                fact,
                association,
                shortcuts.label_from_facts(cohort, [fact]) if is_control else None,
                errors_by(decisions, groups, seed=cohort.seed) if is_control else None,
            )
        )
    control = [a.fact for a in answers if a.label is not None]
    together = None
    if control:
        without = shortcuts.label_without_facts(cohort, control)
        ends = _decisions(cohort, without).interval()
        together = Together(
            shortcuts.label_from_facts(cohort, control),
            float(shortcuts.label_from_both(cohort, control)["mean"]["auc"]),
            float(without["mean"]["auc"]),
            (ends.low, ends.high),
        )
    return Measured(cohort, evaluation, decisions, answers, together, unranked)


def items(measured: Measured, facts: Facts, pairs: Sequence[Pair]) -> Iterator[Item]:
    """The answers, each with its light and its sentence."""
    corrected = _corrected(measured)
    yield _participants(measured)
    if measured.together is not None:
        yield from _together(measured, measured.together, corrected)
    for answers in measured.answers:
        yield _fact(measured, answers, corrected)
    for answers in measured.answers:
        if answers.label is not None:
            number = _one_number(measured.cohort, answers.fact)
            yield _label(measured, answers.fact.name, answers.label, corrected, number)
    yield duplicates(measured, pairs)
    for answers in measured.answers:
        if answers.errors is not None:
            yield _errors(answers.fact.name, answers.errors, corrected)
    yield _silent(facts, measured)


def _corrected(measured: Measured) -> Callable[[float], float]:
    """The correction of Holm for all tests of the audit, for a p of theirs."""
    tests = [a.embedding.p for a in measured.answers]
    tests += [a.label.p for a in measured.answers if a.label is not None]
    tests += [a.errors.p for a in measured.answers if a.errors is not None]
    tests += [measured.together.label.p] if measured.together is not None else []
    by_p = dict(zip(tests, holm(tests), strict=True))  # equal ones are corrected alike
    return by_p.__getitem__


def _decisions(cohort: Cohort, evaluation: Evaluation) -> Decisions:
    return Decisions.of(evaluation, pd.Series(cohort.persons, index=cohort.table["subject"]))


def _is_associated(association: Association, p: float) -> bool:
    return p < SIGNIFICANT and association.effect >= LEAST


def _no_association(p: float) -> str:
    """What is said of what is not told: too small to matter, or not beyond chance here."""
    return "hardly tells" if p < SIGNIFICANT else "is not shown to tell"


def undecided(association: Association, p: float) -> str:
    """What is added where an association may be large, and is not shown; else nothing."""
    if p < SIGNIFICANT or association.effect < LARGE:
        return ""
    return " It may: there are too few subjects to exclude chance."


def _numbers(association: Association, p: float) -> dict[str, Any]:
    more = {
        "metric": _METRICS[association.metric],
        "p": association.p,
        "p_holm": p,
        "n": association.n,
    }
    return more | ({"of": association.column} if association.column else {})


def _shown(association: Association, p: float) -> str:
    of = f" of {association.column}" if association.column else ""
    return f"{_METRICS[association.metric]} {association.score:.2f}{of}, {p_value(p, 'p')}"


def _participants(measured: Measured) -> Item:
    cohort = measured.cohort
    n, persons = len(cohort.table), len(np.unique(cohort.persons))
    known = PARTICIPANT in cohort.table
    how = measured.evaluation["protocol"]
    tests = f"{SHUFFLES:,} permutations of participants a test, seed {cohort.seed}"
    return Item(
        "participants",
        float(persons),
        "green" if known else "yellow",
        f"{counted(n, 'subject')} of {counted(persons, 'participant')}, who are kept together."
        if known
        else f"No column {PARTICIPANT} says whose the {counted(n, 'subject')} are: each counts as "
        "a person of its own, and results are too good where it is not.",
        {
            "metric": "participants",
            "n": n,
            "label": cohort.label,
            "encoder": cohort.encoder,
            "how": f"protocol {how}, {counted(len(measured.evaluation['folds']), 'fold')}; {tests}",
        },
    )


def _together(
    measured: Measured, together: Together, corrected: Callable[[float], float]
) -> Iterator[Item]:
    names = [a.fact.name for a in measured.answers if a.label is not None]
    alone = float(measured.evaluation["mean"]["auc"])
    item = _label(measured, "all of this metadata", together.label, corrected)
    more = item.more | {"embedding": alone, "both": together.both, "facts": names}
    sentence = f"{item.sentence} The embedding alone has {alone:.2f}, both together "
    yield Item(item.what, item.score, item.verdict, f"{sentence}{together.both:.2f}.", more)
    left = max(0.0, 2 * together.left - 1)
    share = min(1.0, left / measured.effect) if measured.effect > 0 else 0.0
    verdict: Verdict = "green"
    if item.verdict != "green":
        verdict = "green" if share >= 1 - HALF / 2 else "yellow" if share >= HALF else "red"
    yield Item(
        "label from the embedding without metadata",
        together.left,
        verdict,
        f"With {joined(names)} regressed out, the embedding has an AUC of {together.left:.2f} "
        f"instead of {alone:.2f}: {share:.0%} of what it tells beyond chance remains.",
        {
            "metric": "AUC",
            "interval": list(together.left_interval),
            "n": together.label.n,
            "remains": share,
        },
    )


def _label(
    measured: Measured,
    name: str,
    association: Association,
    corrected: Callable[[float], float],
    one_number: tuple[str, float] | None = None,
) -> Item:
    p = corrected(association.p)
    assert association.evaluation is not None
    ends = _decisions(measured.cohort, association.evaluation).interval()
    share = association.effect / measured.effect if measured.effect > 0 else np.inf
    may = undecided(association, p)
    verdict: Verdict = "yellow" if may else "green"
    name_of_label = measured.cohort.label
    sentence = (
        f"{_capital(name)} alone {_no_association(p)} {name_of_label} ({_shown(association, p)})."
        f"{may}"
    )
    if _is_associated(association, p):
        verdict = "red" if share >= HALF else "yellow"
        much = (
            "as much as the embedding" if share >= 1 else f"{share:.0%} of what the embedding does"
        )
        sentence = (
            f"{_capital(name)} alone tells {name_of_label} ({_shown(association, p)}): beyond "
            f"chance, {much}."
        )
        if association.score > 0.99:
            sentence += " Is it the label under another name?"
    more = _numbers(association, p) | {"interval": [ends.low, ends.high]}
    if one_number is not None:
        more["one_number"] = {"name": one_number[0], "auc": one_number[1]}
        sentence += f" As one number, {one_number[0]}, it has an AUC of {one_number[1]:.2f}."
    return Item(f"label from {name}", association.score, verdict, sentence, more)


def _fact(measured: Measured, answers: Answers, corrected: Callable[[float], float]) -> Item:
    name, association = answers.fact.name, answers.embedding
    p = corrected(association.p)
    may = undecided(association, p)
    verdict: Verdict = "yellow" if may else "green"
    sentence = f"The embedding {_no_association(p)} {name} ({_shown(association, p)}).{may}"
    if _is_associated(association, p):
        verdict = "yellow"
        sentence = f"The embedding tells {name} ({_shown(association, p)})"
        if answers.label is None:
            sentence += (
                ": the parts look different, so that results of one need not hold for the other."
            )
        elif _is_associated(answers.label, corrected(answers.label.p)):
            verdict = "red"
            sentence += f", and {name} tells {measured.cohort.label}: a possible shortcut."
        else:
            sentence += (
                f", but {name} {_no_association(corrected(answers.label.p))} "
                f"{measured.cohort.label} here: no shortcut is seen in this cohort, but a "
                "risk where it does."
            )
    return Item(
        f"{name} from the embedding", association.score, verdict, sentence, _numbers(association, p)
    )


def duplicates(measured: Measured, pairs: Sequence[Pair]) -> Item:
    """The answer to whether images are there twice."""
    cohort, sides = measured.cohort, sides_of(measured.cohort)
    across = [p for p in pairs if crosses(sides, p)]
    own = [p for p in pairs if cohort.persons[p.first] == cohort.persons[p.second]]
    labels = cohort.table[cohort.label].astype(object)
    known = [p for p in pairs if labels.notna()[p.first] and labels.notna()[p.second]]
    differ = sum(labels[p.first] != labels[p.second] for p in known)
    more: dict[str, Any] = {
        "metric": "pairs across a split",
        "n": len(cohort.table),
        "pairs": len(pairs),
        "of_one_participant": len(own),
        "of_different_labels": differ,
        "by": {
            evidence: sum(p.evidence == evidence for p in pairs)
            for evidence in ("hash", "embedding", "both")
        },
    }
    if not pairs:
        return Item("near-duplicates", 0.0, "green", "No image is there twice.", more)
    verdict: Verdict = "red" if across else "yellow" if len(own) < len(pairs) else "green"
    sentence = f"{counted(len(pairs), 'pair')} of subjects look the same (duplicates.csv)"
    if PARTICIPANT in cohort.table:
        sentence += f", {len(own)} of one participant"
    else:
        sentence += ", and no column says whose they are"
    if across:
        twins = {cohort.table["subject"][row] for p in across for row in (p.first, p.second)}
        rest = ~np.isin(measured.decisions.subjects, list(twins))
        left = float(measured.decisions.auc(rest[None].astype(float))[0])
        whole = float(measured.decisions.auc(np.ones((1, len(rest))))[0])
        sentence += f"; {len(across)} lie on both sides of a split"
        if np.isfinite(left):
            more |= {"auc": whole, "auc_without": left}
            sentence += f". Without them the AUC is {left:.3f} instead of {whole:.3f}"
    else:
        sentence += "; none lie on both sides of a split"
    if differ:
        sentence += f"; {differ} with different labels"
    return Item("near-duplicates", float(len(across)), verdict, f"{sentence}.", more)


def sides_of(cohort: Cohort) -> npt.NDArray[np.object_]:
    """Where each subject is tested: its fold, or the given train or test; empty if nowhere."""
    sides = np.full(len(cohort.table), "", object)
    parts = cohort.parts()
    for k, (train, test) in enumerate(parts):
        sides[test] = f"fold {k}" if len(parts) > 1 else "test"
        if len(parts) == 1:
            sides[train] = "train"
    return sides


def crosses(sides: npt.NDArray[np.object_], pair: Pair) -> bool:
    """Whether one of a pair is trained on where the other is tested."""
    first, second = sides[pair.first], sides[pair.second]
    return bool(first and second and first != second)


def _errors(name: str, errors: Errors, corrected: Callable[[float], float]) -> Item:
    p, worst = corrected(errors.p), errors.worst
    assert worst.auc is not None
    assert worst.interval is not None
    ends = interval(worst.interval.low, worst.interval.high, 2)
    verdict: Verdict = "green"
    sentence = (
        f"Subgroups of {name} are not shown to differ (lowest AUC: {worst.name}, {worst.auc:.2f} "
        f"{ends}; {p_value(p, 'p')})."
    )
    if p < SIGNIFICANT:
        verdict = "red" if errors.gap >= GAP else "yellow"
        sentence = (
            f"Errors gather in {name} {worst.name} (AUC {worst.auc:.2f} {ends}, {worst.n} "
            f"subjects): {errors.gap:.2f} lower than elsewhere, {p_value(p, 'p')}."
        )
    small = [group.name for group in errors.groups if group.auc is None]
    if small:
        sentence += f" Too small to be asked: {joined(small)}."
    groups = [
        {
            "group": g.name,
            "n": g.n,
            "participants": g.participants,
            "auc": g.auc,
            "interval": None if g.interval is None else [g.interval.low, g.interval.high],
        }
        for g in errors.groups
    ]
    n = sum(g.n for g in errors.groups)
    more = {"metric": "lower AUC", "p": errors.p, "p_holm": p, "n": n, "groups": groups}
    return Item(f"errors by {name}", errors.gap, verdict, sentence, more)


def _silent(facts: Facts, measured: Measured) -> Item:
    tests = sum((a.label is not None) + (a.errors is not None) + 1 for a in measured.answers)
    tests += measured.together is not None
    no_errors = [a.fact.name for a in measured.answers if a.label is not None and a.errors is None]
    silent = list(facts.silent) + [f"errors by {name} (subgroups too small)" for name in no_errors]
    silent += [f"{name} (nearly all have the same value)" for name in measured.unranked]
    more = {"metric": "questions", "tests": tests, "not_asked": silent, "unused": facts.unused}
    more["constant"] = facts.constant
    sentence = "" if measured.together else "No metadata varies that could tell the label alone. "
    if facts.constant:
        sentence += f"The same for all, and so no shortcut: {joined(facts.constant)}. "
    if not silent:
        sentence += f"All else could be asked. {MARKS}"
        return Item("not asked", 0.0, "green", sentence, more)
    sentence += f"Not asked: {', '.join(silent)}. What is not known is not excluded. {MARKS}"
    return Item("not asked", float(len(silent)), "yellow", sentence, more)


def _one_number(cohort: Cohort, fact: Fact) -> tuple[str, float] | None:
    """The one number of several columns, and its AUC of two classes, either way round."""
    rows, classes = cohort.classes()
    if fact.size is None or classes.shape[1] != 2:
        return None
    size = fact.size.to_numpy(np.float64)[rows]
    known = np.isfinite(size)
    positive = classes[known, 1] > 0
    if not 0 < positive.sum() < len(positive):
        return None
    value = auc(positive, size[known])
    return str(fact.size.name), max(value, 1 - value)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
