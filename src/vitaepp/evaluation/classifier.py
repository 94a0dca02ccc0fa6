"""The linear classifiers that measure an embedding, and how their strength C is chosen.

A classifier here is one scikit-learn pipeline: for raw intensities PCA, then standardisation, then
a linear SVM or a logistic regression. Everything in it is fitted on training rows only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vitaepp.evaluation.scores import fold_scores

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Protocol = Literal["svm", "linear"]

#: Share of the training part that is held out to choose C, and for nothing else.
HELD_OUT = 0.2

#: Values of C that are tried. Those of the SVM are divided by the number of features, the squared
#: length of a standardised subject: below 1 every subject is a support vector, and a smaller C
#: would leave the direction as it is and let the threshold drift; at 300 a small cohort is
#: separated perfectly, and a larger C changes little.
GRID: dict[Protocol, tuple[float, ...]] = {
    "svm": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    "linear": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
}

#: Most principal components that raw intensities are reduced to.
COMPONENTS = 64

#: Subjects and features above which PCA computes its leading components only.
LARGE = 500


@dataclass(frozen=True)
class Fitted:
    """A classifier fitted on the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        C: the inverse strength of its regularisation that was chosen.
    """

    model: Pipeline
    C: float

    def decision(self, features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Decision scores, `(subject,)` for two classes and `(subject, class)` for more."""
        scores = self.model.decision_function(features.astype(np.float64, copy=False))
        return np.asarray(scores, np.float64)


def fit(
    protocol: Protocol,
    features: npt.NDArray[np.floating[Any]],
    codes: npt.NDArray[np.intp],
    *,
    seed: int,
    pca: bool = False,
) -> Fitted:
    """Choose C on a held-out part of the training rows, then refit on all of them.

    The held-out criterion is what the protocol reports first: AUC for `svm`, accuracy for
    `linear`. Equal AUC is decided by the mean of sensitivity and specificity, and of values that
    are equally good in all the smallest wins, the strongest regularisation.

    Args:
        protocol: `svm` or `linear`.
        features: `(subject, feature)`, training rows only.
        codes: `(subject,)`, their classes, 0 … K-1, each at least twice.
        seed: draws the held-out part.
        pca: reduce the features by PCA first, as for raw intensities.
    """
    inner, held = hold_out(codes, seed=seed)
    candidates = _fit_grid(protocol, features[inner], codes[inner], GRID[protocol], pca)
    value = [_criterion(protocol, codes[held], c.decision(features[held])) for c in candidates]
    # The first of equals is the smallest C.
    best = max(range(len(value)), key=lambda i: value[i])
    return _fit_grid(protocol, features, codes, (GRID[protocol][best],), pca)[0]


def hold_out(
    codes: npt.NDArray[np.intp], *, seed: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split rows into 80 % and 20 % of each class, with every class in both parts.

    A class of few members gives at least one to the held-out part; scikit-learn's stratified split
    may give none, and the AUC there would be undefined.

    Returns:
        Rows to fit on and rows held out, both sorted.
    """
    random = np.random.default_rng(seed)
    held = []
    for c in np.unique(codes):
        members = random.permutation(np.flatnonzero(codes == c))
        held.append(members[: max(1, round(HELD_OUT * len(members)))])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(codes)), out), out


def outer_folds(codes: npt.NDArray[np.intp], *, folds: int, seed: int) -> npt.NDArray[np.intp]:
    """The outer fold in which each subject is tested, stratified by class.

    Args:
        codes: `(subject,)`, in the order of sorted subject keys, so that a subject's fold does not
            depend on the order of a file.
        folds: number of folds; no class may have fewer members.
        seed: shuffles the subjects.
    """
    from sklearn.model_selection import StratifiedKFold

    fold_of = np.empty(len(codes), np.intp)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(splitter.split(np.zeros(len(codes)), codes)):
        fold_of[test] = fold
    return fold_of


def _criterion(
    protocol: Protocol, codes: npt.NDArray[np.intp], decision: npt.NDArray[np.float64]
) -> tuple[float, ...]:
    scores = fold_scores(codes, decision)
    # Rounded, so that the last digits of a sum do not decide between equals.
    if protocol == "linear":
        return (round(scores["accuracy"], 9),)
    balanced = (scores["sensitivity"] + scores["specificity"]) / 2
    return round(scores["auc"], 9), round(balanced, 9)


def _fit_grid(
    protocol: Protocol,
    features: npt.NDArray[np.floating[Any]],
    codes: npt.NDArray[np.intp],
    grid: tuple[float, ...],
    pca: bool,
) -> list[Fitted]:
    """One classifier for each C; what comes before it is the same and fitted once."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, d = features.shape
    steps: list[Any] = [StandardScaler()]
    if pca:
        # Both solvers are exact to machine precision; of a large table Lanczos' method finds the
        # few leading components twenty times faster than a full decomposition.
        solver = "arpack" if min(n, d) > LARGE else "full"
        components = max(1, min(COMPONENTS, n // 2, d))
        steps.insert(0, PCA(components, svd_solver=solver, random_state=0))
    front = make_pipeline(*steps)
    reduced = front.fit_transform(features.astype(np.float64, copy=False))
    fitted = []
    for strength in grid:
        C = strength / reduced.shape[1] if protocol == "svm" else strength
        classifier = _classifier(protocol, C, n_classes=len(np.unique(codes)))
        with warnings.catch_warnings():
            # The weakest regularisation may not converge on separable data; its direction has.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(reduced, codes)
        fitted.append(Fitted(Pipeline([*front.steps, ("classifier", classifier)]), C))
    return fitted


def _classifier(protocol: Protocol, C: float, n_classes: int) -> Any:
    if protocol == "linear":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=C, max_iter=500)
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import SVC

    # libsvm solves the dual exactly and without chance, and leaves the intercept unpenalised, where
    # liblinear iterates in random order and may stop early. Balanced weights keep zero a meaningful
    # threshold: unweighted, strong regularisation puts every subject on the majority's side.
    svm = SVC(kernel="linear", C=C, class_weight="balanced", cache_size=500)
    return svm if n_classes == 2 else OneVsRestClassifier(svm)
