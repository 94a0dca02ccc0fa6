"""Values: ridge regression, or a linear support vector regression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.arrays import Flags, Floats, Indices
from vitaepp.data.cells import MISSING, NOT_FINITE
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.labels import MOST_NUMERIC_CLASSES, codes_among, label_column
from vitaepp.evaluation.regression import (
    Kind,
    error_intervals,
    fit_regression,
    regression_scores,
    weighted,
)
from vitaepp.evaluation.tasks.base import Constant, Fitted, Target, Tested, Training
from vitaepp.system.progress import counted
from vitaepp.system.text import listed

#: Most groups of equal size, by the value, over which folds are balanced.
BINS = 5

#: Where so many have one value, as the volume 0 of those without a lesion, medians say little.
PILED = 1 / 3

#: A number below 0 that stands for a missing value even where it is there once.
_CODE = re.compile(r"-(1|9+|8+|7+)\.0")

#: A number that stands for a missing value where it is there often and far from all others.
_REPEATED = re.compile(r"-?(9+|8+|7+)\.0|-1\.0|-?0\.0")

#: Times that such a number is there at least.
OFTEN = 3

#: Times that the last number of a scale is there at least, which a rare code lies behind.
ENDING = 5

#: Robust deviations from the median beyond which a value is asked about.
FAR = 8.0

#: Likewise of logarithms, above the median of positive values.
FAR_LOG = 4.0

#: Different whole numbers of a score at most, a code among them.
MOST_OF_SCORE = 15


class Regression(Target):
    """A value of one column, in the unit of the column."""

    task = "regression"
    stratum = "range of values"

    def __init__(self, table: pd.DataFrame, label: str) -> None:
        values = numbers_of(label_column(table, label), label)
        given = values.notna().to_numpy()
        if (different := values.nunique()) < 3:
            raise EvaluationError(
                f"label {label!r} has {counted(different, 'different value')}; regression takes "
                "three or more: use task classification"
            )
        self.name, self.rows = label, np.flatnonzero(given)
        self.missing = int((~given).sum())
        self.values = values.to_numpy(np.float64)[given]
        rank = pd.Series(self.values).rank(method="first").to_numpy() - 1
        bins = max(1, min(BINS, len(rank) // 10))
        self.strata = (rank * bins // len(rank)).astype(np.intp)

    def doubts(self) -> list[str]:
        """Values that lie far from all others, as codes and other units do."""
        return far_values(self.values, f"label {self.name!r}")

    def doubts_outside(self, other: Regression) -> list[str]:
        """Those of the other cohort, and whether its values may have another unit."""
        return [*other.doubts(), *other_unit(self.values, other.values, f"label {self.name!r}")]

    def require_train_and_test(self, train: Indices, test: Indices) -> None:
        """Some subjects in both parts."""
        require_some(self.name, train, test)

    def require_members(self, folds: int, persons: Persons) -> None:
        """Two persons a fold."""
        require_persons(self.name, folds, persons)

    def scored(self, train: Indices, test: Indices) -> bool:
        """Whether a part varies, and leaves enough to fit on."""
        return len(train) > 4 and len(np.unique(self.values[test])) > 2

    def facts(self, used: Indices) -> dict[str, Any]:
        """The range of the values."""
        values = self.values[used]
        low, middle, high = np.quantile(values, [0, 0.5, 1]).tolist()
        return {"values": {"least": low, "median": middle, "most": high}}

    def fit(self, protocol: str, part: Training) -> Fitted:
        """A ridge regression, or with protocol `svm` a linear SVR."""
        if protocol == "knn":
            raise EvaluationError("protocol knn is of classes; use linear or svm for values")
        kind: Kind = "svr" if protocol == "svm" else "ridge"
        return fit_regression(part.features, self.values[part.rows], kind=kind, **part.how)

    def usual(self, train: Indices) -> Constant:
        """The mean of the training part."""
        return Constant(float(self.values[train].mean()))

    def clinical(self, tested: Tested) -> dict[str, Any]:
        """Intervals: of errors by the jackknife over persons, of correlations by a bootstrap."""
        of_errors = error_intervals(
            self.values[tested.rows], tested.decision, tested.fold, tested.persons
        )
        return {
            **{name: None if i is None else asdict(i) for name, i in of_errors.items()},
            **self.intervals(tested, [n for n in self.measures.names if n not in of_errors]),
        }

    def of_other(self, table: pd.DataFrame) -> Regression:
        """The same column of another cohort."""
        return Regression(table, self.name)

    def truth(self) -> pd.DataFrame:
        """The value of each labelled subject."""
        return pd.DataFrame({"label": self.values})

    @staticmethod
    def rescored(truth: pd.DataFrame, decision: Floats, classes: Sequence[Any]) -> dict[str, float]:
        """MAE, RMSE, R², Pearson and Spearman."""
        return regression_scores(truth["label"].to_numpy(np.float64), decision)

    @staticmethod
    def weighted(
        metric: str, truth: pd.DataFrame, decision: Floats, classes: Sequence[Any], weights: Floats
    ) -> Floats:
        """MAE, RMSE, R², Pearson and Spearman."""
        return weighted(metric, truth["label"].to_numpy(np.float64), decision, weights)


def far_values(values: Floats, title: str) -> list[str]:
    """What to ask about values that may not be meant as they are, a line each.

    These are codes for a missing value: numbers below 0 where few are there, and are repeated or
    look like codes, numbers apart from a score, and codes repeated away from all others, or as no
    other value with decimals is. And they are values far from the rest.
    """
    below, apart = _codes_below_0(values), _codes_of_score(values)
    rest = values[~np.isin(values, [*below, *apart])]
    far = _far(rest)
    lines = []
    if (rest < 0).any():
        apart = [*below, *apart]
    elif below:
        what = "is the only value" if len(below) == 1 else "are the only values"
        count = int(np.isin(values, below).sum())
        lines.append(
            f"{title}: {listed(f'{v:g}' for v in below)} {what} below 0, in {count} of "
            f"{len(values)} subjects; a code for missing?"
        )
    if far.any():
        lines.append(
            f"{title}: {counted(int(far.sum()), 'value')} of {len(values)} lie far from the "
            f"others, such as {rest[far][0]:g} where the median{_apart(rest)} is "
            f"{_middle(rest)[0]:g}; a code for missing, or another unit?"
        )
    elif not apart:
        apart = [*_codes_below(rest), *(-code for code in _codes_below(-rest)[::-1])]
    if apart:
        lines.append(
            f"{title}: {listed(f'{v:g}' for v in apart)}, in "
            f"{int(np.isin(values, apart).sum())} of {len(values)} subjects, "
            f"{'is' if len(apart) == 1 else 'are'} apart from all other values; "
            f"{'a code' if len(apart) == 1 else 'codes'} for missing?"
        )
    elif between := _codes_between(rest[~far]):
        lines.append(
            f"{title}: {listed(f'{v:g}' for v in between)}, in "
            f"{int(np.isin(values, between).sum())} of {len(values)} subjects, "
            f"{'is' if len(between) == 1 else 'are'} there more often than any other value; "
            f"{'a code' if len(between) == 1 else 'codes'} for missing?"
        )
    return lines


def _far(values: Floats) -> Flags:
    """Which values lie more than `FAR` robust deviations from the median.

    Of positive values, as volumes and durations, many lie far above because they are skewed. They
    have to lie far on the logarithmic scale as well, by the deviation of the larger half.
    """
    middle, deviation = _middle(values)
    far = np.abs(values - middle) > FAR * deviation if deviation > 0 else values != values
    if _apart(values):  # what most of them are is no code
        far &= values != np.median(values)
    if far.any() and values.min() >= 0 and middle > 0:
        usual = _usual(values)
        above = np.median(np.log(usual[usual >= middle] / middle)) / 0.6745
        far &= (values < middle) | (values > middle * np.exp(min(FAR_LOG * above, 700.0)))
    return np.asarray(far)


def _codes_below_0(values: Floats) -> list[float]:
    """Numbers below 0 where few are there, and are repeated or look like codes.

    Of whole numbers these are those that `codes_among` says: others are of a scale or of changes,
    beside which a code looks like one.
    """
    different, counts = np.unique(values, return_counts=True)
    below, counts = different[different < 0], counts[different < 0]
    if 2 * counts.sum() >= len(values):
        return []
    codes = below if (different % 1).any() else below[np.isin(below, codes_among(different))]
    looks_so = all(_CODE.fullmatch(str(code)) for code in codes.tolist())
    repeated = len(codes) == len(below) <= 2 and counts.max(initial=0) > 1
    return codes.tolist() if repeated or looks_so else []


def _codes_of_score(values: Floats) -> list[float]:
    """Codes at the upper end of a score, of whole numbers.

    They are there several times beside few others. Rare ones have two digits, and are further from
    the others than these span; or the others end before them.
    """
    different, counts = np.unique(values, return_counts=True)
    if (different % 1).any():
        return []
    codes = [code for code in codes_among(different) if code >= 0]
    if not codes or 2 * np.isin(values, codes).sum() >= len(values):
        return []
    common = counts[np.isin(different, codes)].min() >= OFTEN
    if common and len(different) <= MOST_OF_SCORE:
        return codes
    others = values[values < codes[0]]
    beyond = codes[0] > 9 and codes[0] - others.max() > np.ptp(others)
    ends = codes[0] <= 9 and _end_before(codes[0], others)
    return codes if beyond or ends else []


def _end_before(code: float, others: Floats) -> bool:
    """Whether whole numbers end before a code, as a scale does, and get not rare towards it."""
    different, counts = np.unique(others, return_counts=True)
    last = counts[-1 if code > different[-1] else 0]
    common = last >= max(ENDING, counts.mean() / 4)
    return bool(common and np.abs(different - code).min() > 2 * np.diff(different).max())


def _codes_between(values: Floats) -> list[float]:
    """Codes among values with decimals, of which no other but 0 is there a third as often."""
    different, counts = np.unique(values, return_counts=True)
    looks_so = np.array([v != 0 and bool(_REPEATED.fullmatch(str(v))) for v in different.tolist()])
    others = counts[~looks_so & (different != 0)]
    codes = looks_so & (counts >= OFTEN * others.max(initial=1))
    return different[codes].tolist() if 2 * (different % 1 != 0).sum() > len(different) else []


def _codes_below(values: Floats) -> list[float]:
    """Codes that are repeated below all other values, with a gap that is wider than the middle half
    of these, and twice as wide as any gap between their lower half; or that a score ends before.

    0 is one only where at most a third have it, and the others are no few doses or grades.
    """
    different, counts = np.unique(values, return_counts=True)
    repeated = 0
    for value, count in zip(different.tolist(), counts.tolist(), strict=True):
        piled = count > PILED * len(values) or len(different) <= MOST_NUMERIC_CLASSES
        if count < OFTEN or not _REPEATED.fullmatch(str(value)) or (value == 0 and piled):
            break
        repeated += 1
    for number in range(repeated, 0, -1):
        rest = different[number:]
        others = values[values >= rest[0]] if len(rest) > 2 else values[:0]
        if 2 * len(others) <= len(values):
            continue
        low, high = np.quantile(others, [0.25, 0.75])
        usual_gap = np.diff(rest[: len(rest) // 2 + 1]).max()
        gap = rest[0] - different[number - 1]
        ends = not (values % 1).any() and _end_before(different[number - 1], others)
        if gap > max(high - low, 2 * usual_gap) or ends:
            return different[:number].tolist()
    return []


def _usual(values: Floats) -> Floats:
    """The values without the one that more than half of them are, as the volume 0 of those who
    have no lesion."""
    others = values[values != np.median(values)]
    return others if len(others) < len(values) / 2 and len(np.unique(others)) > 2 else values


def _middle(values: Floats) -> tuple[float, float]:
    """Median and robust deviation of the usual values."""
    usual = _usual(values)
    middle = np.median(usual)
    return float(middle), float(1.4826 * np.median(np.abs(usual - middle)))


def _apart(values: Floats) -> str:
    """Which value the median leaves out, in words; empty for none."""
    return "" if len(_usual(values)) == len(values) else f" apart from {np.median(values):g}"


def other_unit(inside: Floats, outside: Floats, title: str) -> list[str]:
    """A line where the values of another cohort are so unlike that they may have another unit."""
    own, deviation = _middle(inside)
    usual = outside[outside != np.median(inside)] if _apart(inside) else outside
    other = float(np.median(usual)) if len(usual) else own
    piled = max(np.unique(v, return_counts=True)[1].max() / len(v) for v in (inside, outside))
    if not _apart(inside) and piled > PILED:
        return []
    factor = other / own if own * other > 0 else 1.0
    beyond = deviation > 0 and abs(other - own) > FAR * deviation
    if not beyond and 1 / FAR < factor < FAR:
        return []
    return [
        f"{title}: the median{_apart(inside)} is {other:g} outside and {own:g} inside; in another "
        "unit?"
    ]


def numbers_of(column: pd.Series, label: str) -> pd.Series:
    """A column as numbers, missing where it is empty or not finite.

    Raises:
        EvaluationError: naming a value that is no number.
    """
    texts = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    values = pd.to_numeric(texts, errors="coerce").where(lambda v: np.isfinite(v))
    words = ~texts.str.lower().isin(["", *NOT_FINITE]) & values.isna()
    if count := int(words.sum()):
        raise EvaluationError(
            f"label {label!r}: {counted(count, 'value')} of {len(column)} "
            f"{'is no number' if count == 1 else 'are no numbers'}, such as "
            f"{texts[words].iloc[0]!r}; {_advice(texts[words], int((texts != '').sum()))}"
        )
    return values


def _advice(words: pd.Series[str], given: int) -> str:
    """What to do about the values that are no numbers, among so many that are given."""
    marked = words[words.str.fullmatch(r"[+-]?\d+,\d+")]
    if 2 * len(marked) > len(words):
        what, first = "a decimal point", marked.iloc[0]
        if marked.str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}").all():
            thousands, decimals = (first.replace(",", mark) for mark in ("", "."))
            what = f"{thousands} if it is thousands, {decimals} if it has decimals"
        return f"write {what}: commas are decimal only where semicolons part the columns"
    if 2 * len(words) > given:
        return "use task classification"
    return f"where they mean missing, leave the cells empty or write {MISSING[1]}"


def require_some(name: str, train: Indices, test: Indices) -> None:
    """Refuse parts that are too small to fit on or to score.

    Raises:
        EvaluationError: naming the part.
    """
    for split, rows, at_least in (("train", train, 5), ("test", test, 3)):
        if len(rows) < at_least:
            raise EvaluationError(
                f"{counted(len(rows), 'subject')} labelled {name!r} in split {split!r}, which "
                f"needs at least {at_least}; use protocol svm, which draws its own folds"
            )


def require_persons(name: str, folds: int, persons: Persons) -> None:
    """Refuse labels of fewer than three persons for each fold.

    Raises:
        EvaluationError: saying how many there are.
    """
    count = len(np.unique(persons))
    if count < 3 * folds:
        raise EvaluationError(
            f"label {name!r}: {counted(count, 'person')} with a value are too few for {folds} "
            f"folds, which need {3 * folds}; label more, or ask for fewer `folds`"
        )
