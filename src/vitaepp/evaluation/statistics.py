"""Tests of the difference between two methods that were measured on the same subjects.

Differences are always first minus second. What each number is conditional on stands in its
docstring, and together in docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.arrays import Flags, Numbers
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.bootstrap import RESAMPLES, Interval, percentiles, resampled_counts

_Number = int | float


@dataclass(frozen=True)
class TTest:
    """A two-sided t-test of a mean difference against zero.

    Attributes:
        mean: of the differences.
        t: the statistic; infinite where the differences are all the same and not zero.
        df: degrees of freedom.
        p: how often chance alone makes a statistic at least as large.
    """

    mean: float
    t: float
    df: float
    p: float

    def to_json(self) -> dict[str, float | None]:
        """The fields; an infinite `t` is None, because JSON has no infinity."""
        t = self.t if math.isfinite(self.t) else None
        return {"mean": self.mean, "t": t, "df": self.df, "p": self.p}


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a measure between two methods, over the same subjects.

    Attributes:
        n: subjects.
        mean: of the differences, in the measure's unit.
        t: the paired t-test of that mean, its p included.
        wilcoxon_p: Wilcoxon's signed-rank test, which assumes a symmetric difference but no normal
            one; 1 where no subject differs.
        interval: percentile bootstrap of the mean, over subjects.
    """

    n: int
    mean: float
    t: TTest
    wilcoxon_p: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON throughout."""
        return {
            "n": self.n,
            "mean": self.mean,
            "t_test": self.t.to_json(),
            "wilcoxon_p": self.wilcoxon_p,
            "interval": asdict(self.interval),
        }


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test: subjects that only one of two classifiers gets right, and p."""

    first_only: int
    second_only: int
    p: float


def corrected_resampled_t_test(
    differences: Numbers, *, train: _Number, test: _Number, repetitions: int = 1
) -> TTest:
    """The t-test for differences from folds whose training sets overlap.

        t = mean / sqrt((R / J + test / train) · var),   J - 1 degrees of freedom

    Training sets of cross-validation share most of their subjects, so that the J differences are
    correlated, and an ordinary t-test finds differences that are not there. The term `test / train`
    stands for that correlation. Where all differences are zero, t is 0 and p is 1; where they are
    all the same and not zero, t is infinite and p is 0.

    R repetitions that draw new folds test the same subjects again. They steady the mean and the
    variance, but they are no new cohort, so that only the folds of one count: R / J, where
    Bouckaert and Frank have 1 / J. With theirs, ten repetitions call equal methods different in 10
    to 16 % of cohorts at the 5 % level; with R / J in 3 to 7 %, and they still find more than one
    does (`benchmarks/repeated_folds.py`).

    Args:
        differences: `(J,)`, one of each fold of each repetition.
        train: subjects a fold trains on, the mean over folds.
        test: subjects a fold is tested on, the mean over folds.
        repetitions: R, of the cross-validation, each with new folds of the same subjects.

    Raises:
        EvaluationError: fewer than two differences, or one that is not finite.

    Source:
        Nadeau and Bengio 2003, "Inference for the generalization error", section 3; Bouckaert and
        Frank 2004 for repeated cross-validation, but for R.

    Example:
        >>> test = corrected_resampled_t_test(np.array([0.1, 0.0, 0.2, 0.1]), train=75, test=25)
        >>> f"{test.mean:.2f} {test.t:.3f} {test.p:.3f}"
        '0.10 1.604 0.207'
    """
    _require(differences)
    factor = repetitions / len(differences) + test / train
    return _t_test(differences, factor * _variance(differences), len(differences) - 1)


def crossed_t_test(differences: Numbers, *, train: _Number, test: _Number) -> TTest:
    """The corrected resampled t-test where several seeds go through the very same folds.

        t = mean / sqrt(F + S)
        F = (1 / K + test / train) · var over folds of the mean over seeds
        S = 1 / R · var over seeds of the mean over folds

    K folds under R seeds are not K · R repetitions: a fold's subjects are as hard under every seed,
    and an encoder is as good in every fold. Pooled, either would be counted several times. Here
    folds and seeds are crossed random effects, and the degrees of freedom follow Satterthwaite.
    What neither explains counts in both F and S, so that the test errs on the side of caution. With
    one seed it is `corrected_resampled_t_test`.

    Args:
        differences: `(seed, fold)`.
        train: subjects a fold trains on, the mean over folds.
        test: subjects a fold is tested on, the mean over folds.

    Raises:
        EvaluationError: fewer than two folds, or a difference that is not finite.

    Source:
        Nadeau and Bengio 2003; Satterthwaite 1946, "An approximate distribution of estimates of
        variance components".

    Example:
        >>> two = np.array([[0.1, 0.0, 0.2, 0.1], [0.3, 0.1, 0.2, 0.2]])
        >>> test = crossed_t_test(two, train=75, test=25)
        >>> f"{test.mean:.2f} {test.t:.3f} {test.df:.2f} {test.p:.3f}"
        '0.15 2.038 3.23 0.128'
    """
    by_fold = differences.mean(axis=0)
    single = corrected_resampled_t_test(by_fold, train=train, test=test)
    if len(differences) == 1:
        return single
    by_seed = differences.mean(axis=1)
    k, r = len(by_fold), len(by_seed)
    fold_part = (1 / k + test / train) * _variance(by_fold)
    seed_part = _variance(by_seed) / r
    total = fold_part + seed_part
    if total == 0:
        return _t_test(by_fold, 0.0, k + r - 2)
    df = 1 / ((fold_part / total) ** 2 / (k - 1) + (seed_part / total) ** 2 / (r - 1))
    return _t_test(by_fold, total, df)


def paired_difference(
    first: Numbers, second: Numbers, *, resamples: int = RESAMPLES
) -> PairedDifference:
    """Compare a measure of each subject, such as PSNR, between two methods.

    Args:
        first: `(subject,)`.
        second: `(subject,)`, the same subjects in the same order.
        resamples: of the bootstrap.

    Raises:
        EvaluationError: of unequal length, fewer than two subjects, or a value that is not finite.

    Source:
        Wilcoxon 1945; Efron and Tibshirani 1993, chapter 13, for the percentile interval.

    Example:
        >>> result = paired_difference(np.array([3.0, 4, 5, 6]), np.array([2.0, 3.5, 4, 6.5]))
        >>> result.mean, round(result.t.p, 3), result.wilcoxon_p
        (0.5, 0.252, 0.375)
    """
    from scipy.stats import wilcoxon

    if len(first) != len(second):
        raise EvaluationError(
            f"{len(first)} values against {len(second)}: a paired comparison needs the same "
            "subjects, in the same order"
        )
    differences = first - second
    _require(differences)
    n = len(differences)
    means = np.concatenate(
        [
            counts @ differences / n
            for counts in resampled_counts(np.zeros(n, np.intp), resamples, 0)
        ]
    )
    # Identical values leave nothing to rank.
    rank_p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    t = _t_test(differences, _variance(differences) / n, n - 1)
    return PairedDifference(n, t.mean, t, rank_p, percentiles(means))


def mcnemar(first_correct: Flags, second_correct: Flags) -> McNemar:
    """Are two classifiers equally often right on one test set?

    Of the subjects that only one of them gets right, each is equally likely to be the first's, if
    they are equally good: two-sided and exact, from the binomial distribution. The trained
    classifiers are taken as they are.

    Args:
        first_correct: `(subject,)`.
        second_correct: `(subject,)`, the same subjects in the same order.

    Source:
        McNemar 1947; Dietterich 1998 for classifiers.

    Example:
        >>> right = np.array([True] * 9 + [False])
        >>> mcnemar(right, ~right)
        McNemar(first_only=9, second_only=1, p=0.021484375)
    """
    from scipy.stats import binomtest

    first_only = int((first_correct & ~second_correct).sum())
    second_only = int((second_correct & ~first_correct).sum())
    disagreed = first_only + second_only
    p = float(binomtest(first_only, disagreed).pvalue) if disagreed else 1.0
    return McNemar(first_only, second_only, p)


def sign_flip_test(differences: npt.NDArray[np.signedinteger[Any]]) -> float:
    """Two-sided p of whole-numbered differences of subjects, if either sign were equally likely.

    Exact: the distribution of the sum over all 2ⁿ choices of signs. Where every difference is -1,
    0 or 1 this is McNemar's test; larger ones come from several seeds on one test set, a subject's
    difference being how many more of the first's seeds get it right than of the second's.

    Args:
        differences: `(subject,)`.

    Source:
        Fisher 1935, "The design of experiments", section 21; Pitman 1937.

    Example:
        >>> round(sign_flip_test(np.array([2, 2, 1, 1, 1])), 6)
        0.0625
    """
    from scipy.stats import binom

    # A subject of size m adds 0 or m to `gains`; the signed sum is twice that less the total.
    sizes, members = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    gains = np.ones(1)
    for size, n in zip(sizes.tolist(), members.tolist(), strict=True):
        spaced = np.zeros(size * n + 1)
        spaced[::size] = binom.pmf(np.arange(n + 1), n, 0.5)
        gains = np.convolve(gains, spaced)
    sums = 2 * np.arange(len(gains)) - (len(gains) - 1)
    return min(1.0, float(gains[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """P-values of several comparisons, corrected so that one false finding among all stays rare.

    The k-th smallest of m is multiplied by m - k + 1, and none may be smaller than one before it.

    Source:
        Holm 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _variance(values: Numbers) -> float:
    """Sample variance; exactly zero where all values are the same, which rounding would hide."""
    return 0.0 if np.ptp(values) <= 1e-12 else float(values.var(ddof=1))


def _t_test(differences: Numbers, variance_of_mean: float, freedom: _Number) -> TTest:
    from scipy.stats import t as student

    mean, df = float(differences.mean()), float(freedom)
    if variance_of_mean > 0:
        t = mean / math.sqrt(variance_of_mean)
        return TTest(mean, t, df, float(2 * student.sf(abs(t), df)))
    if abs(mean) <= 1e-12:
        return TTest(mean, 0.0, df, 1.0)
    return TTest(mean, math.copysign(math.inf, mean), df, 0.0)


def _require(differences: Numbers) -> None:
    if len(differences) < 2:
        raise EvaluationError(f"{len(differences)} differences; a test needs at least two")
    if not np.isfinite(differences).all():
        raise EvaluationError("a difference is not finite; the test needs all of them")
