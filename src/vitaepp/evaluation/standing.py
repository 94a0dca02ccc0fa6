"""Standing: whether an encoder beats its controls, by the tests of `difference_between`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vitaepp.errors import EvaluationError
from vitaepp.evaluation.difference import Difference, difference_between
from vitaepp.evaluation.measures import leading_metric, measures_of
from vitaepp.evaluation.result import METHOD, Evaluation
from vitaepp.evaluation.summary import SIGNIFICANT, summary_rows
from vitaepp.presentation.names import CONTROLS_IN_SENTENCES, metric_name
from vitaepp.presentation.numbers import digits_of, p_value


@dataclass(frozen=True)
class Rival:
    """A control beside the encoder.

    Attributes:
        key: `untrained`, `raw` …
        value: its mean of the metric.
        difference: the encoder minus it; None where no test is possible.
        sign: -1 where a lower value is better, else 1.
    """

    key: str
    value: float
    difference: Difference | None
    sign: int = 1

    @property
    def p(self) -> float | None:
        """Of the difference, two-sided; None where no test is possible."""
        return None if self.difference is None else self.difference.p

    def is_significant(self, sign: int) -> bool:
        """Whether a test tells that the encoder is better (sign 1) or worse (-1)."""
        difference, p = self.difference, self.p
        return (
            difference is not None
            and p is not None
            and p < SIGNIFICANT
            and difference.mean * sign * self.sign > 0
        )


@dataclass(frozen=True)
class Standing:
    """An encoder among its controls.

    Attributes:
        label: what is predicted.
        metric: what is compared.
        value: the encoder's mean of it.
        rivals: its controls, the best one first.
        draws: of the folds, over which values are means and tests are made.
    """

    label: str
    metric: str
    value: float
    rivals: tuple[Rival, ...]
    draws: int = 1

    @property
    def beats_all(self) -> bool:
        """Whether a test tells that it is better than each control.

        It must pass both tests, so that nothing is to be corrected for their number.
        """
        return all(rival.is_significant(1) for rival in self.rivals)

    @property
    def beaten_by(self) -> list[Rival]:
        """Controls that a test tells to be better."""
        return [rival for rival in self.rivals if rival.is_significant(-1)]

    def __str__(self) -> str:
        """One sentence with the figures and the tests."""
        beaten = self.beaten_by
        if self.beats_all:
            start = "The encoder beats its controls"
        elif beaten:
            name, _ = CONTROLS_IN_SENTENCES[beaten[0].key]
            verb = "beats" if beaten[0].key == "untrained" else "beat"
            start = f"{name[0].upper()}{name[1:]} {verb} the encoder"
        else:
            start = "It is not shown that the encoder beats its controls"
        digits, against = digits_of(self.metric, self.value), []
        for rival in self.rivals:
            test = "no test" if rival.p is None else p_value(rival.p, "p")
            name, _ = CONTROLS_IN_SENTENCES[rival.key]
            against.append(f"{rival.value:.{digits}f} of {name} ({test})")
        tests = {r.difference.test for r in self.rivals if r.difference and r.difference.test}
        how = f", by {' and '.join(sorted(tests))}" if tests else ""
        over = f" over {self.draws} draws of the folds" if self.draws > 1 else ""
        return (
            f"{start}: the {metric_name(self.metric)} of {self.label} is "
            f"{self.value:.{digits}f}{over} against {' and '.join(against)}{how}."
        )


def standing(evaluation: Evaluation) -> Standing | None:
    """Where the encoder of an evaluation stands among its controls; None without controls."""
    metric = leading_metric(evaluation.metrics)
    own, *controls = summary_rows(evaluation.metrics)
    value = own.mean[metric]
    rows = [(row, mean) for row in controls if (mean := row.mean[metric]) is not None]
    if not rows or value is None:
        return None
    sign = -1 if metric in measures_of(evaluation.metrics).lower_is_better else 1
    if (repeats := evaluation.metrics.get("repeats")) is not None:
        return _over_draws(str(evaluation.metrics["label"]), repeats, sign)
    if len(own.folds) > 1:
        # The test over folds needs no predictions; without them no interval is computed.
        evaluation = Evaluation(evaluation.metrics)
    rivals = []
    for row, mean in sorted(rows, key=lambda pair: -sign * pair[1]):
        if len(row.folds) != len(own.folds):  # of an older version: there is nothing to pair
            rivals.append(Rival(row.key, mean, None, sign))
            continue
        difference = None
        with suppress(EvaluationError, KeyError):  # an older version's may lack what a test needs
            difference = difference_between(
                [evaluation], [evaluation], metric=metric, variant_key=METHOD, reference_key=row.key
            )
        rivals.append(Rival(row.key, mean, difference, sign))
    return Standing(str(evaluation.metrics["label"]), metric, value, tuple(rivals))


def _over_draws(label: str, repeats: Mapping[str, Any], sign: int) -> Standing | None:
    """The standing over several draws of the folds; None without controls."""
    metric, rivals = repeats["metric"], []
    for key, control in repeats["controls"].items():
        if (mean := control["mean"][metric]) is not None:
            lead = control["difference"]
            tested = None if lead["mean"] is None else Difference.of(lead)
            rivals.append(Rival(key, mean, tested, sign))
    rivals.sort(key=lambda rival: -sign * rival.value)
    value = repeats["mean"][metric]
    if not rivals or value is None:
        return None
    return Standing(label, metric, value, tuple(rivals), repeats["number"])
