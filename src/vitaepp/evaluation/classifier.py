"""The linear classifiers that measure an embedding, and how their strength C is chosen.

A classifier here is one scikit-learn pipeline: standardisation, or PCA for raw intensities, then a
linear SVM or a logistic regression. Everything in it is fitted on training rows only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vitaepp.data.arrays import Floats, Indices, Numbers
from vitaepp.data.participants import Persons
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.choice import Loss, choose
from vitaepp.evaluation.front import front
from vitaepp.evaluation.scores import fold_scores

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

#: What `evaluate` fits: besides the linear models, nearest neighbours.
PROTOCOLS = ("svm", "linear", "knn")

#: Values of C that are tried. Those of the SVM are divided by the number of features, the squared
#: length of a standardised subject: below 1 every subject is a support vector, and a smaller C
#: would leave the direction as it is and let the threshold drift; at 300 a small cohort is
#: separated perfectly, and a larger C changes little.
GRID: dict[str, tuple[float, ...]] = {
    "svm": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    "linear": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
}


#: Most subjects whose products with each other are kept while C is chosen: 128 MB of them.
MOST_GRAM = 4000


@dataclass(frozen=True)
class Fitted:
    """A classifier fitted on the whole training part.

    Attributes:
        model: the scikit-learn pipeline.
        C: the inverse strength of its regularisation that was chosen.
        loss: on held-out training rows, with this C.
    """

    model: Pipeline
    C: float
    loss: Loss = ()

    @property
    def strength(self) -> float:
        """C."""
        return self.C

    def decision(self, features: Numbers) -> Floats:
        """Decision scores, `(subject,)` for two classes and `(subject, class)` for more."""
        scores = self.model.decision_function(features.astype(np.float64, copy=False))
        return np.asarray(scores, np.float64)


def fit(
    protocol: str,
    features: Numbers,
    codes: Indices,
    *,
    seed: int,
    pca: bool = False,
    persons: Persons | None = None,
) -> Fitted:
    """Choose C on held-out parts of the training rows, then refit on all of them.

    The criterion, averaged over the parts, is AUC for `svm`. Equal AUC is decided by the mean of
    sensitivity and specificity. For `linear` it is the log-loss, which changes smoothly with C
    where accuracy jumps. Of equally good values the smallest wins, the strongest regularisation.

    Args:
        protocol: `svm` or `linear`.
        features: `(subject, feature)`, training rows only.
        codes: `(subject,)`, their classes, 0 … K-1, each at least twice.
        seed: draws the held-out parts.
        pca: reduce the features by PCA first, as for raw intensities.
        persons: `(subject,)`, the person of each; unset, every subject is another person.
    """

    def losses(inner: Indices, held: Indices) -> list[Loss]:
        x = features[inner].astype(np.float64, copy=False)
        steps = front(x, pca=pca)
        seen = steps.fit_transform(x)
        left = steps.transform(features[held].astype(np.float64, copy=False))
        width, gram = seen.shape[1], protocol == "svm" and len(inner) <= MOST_GRAM
        if gram:  # every C takes the same products, which libsvm would compute for each anew
            seen, left = seen @ seen.T, left @ seen.T
        each = []
        for strength in GRID[protocol]:
            C = _scaled(protocol, strength, width)
            classifier = _classifier(protocol, C, seen, codes[inner], gram=gram)
            each.append(_loss(protocol, codes[held], classifier, left))
        return each

    strength, loss = choose(GRID[protocol], losses, codes, seed=seed, persons=persons)
    return replace(_fit_one(protocol, features, codes, strength, pca), loss=loss)


def fit_with(protocol: str, features: Numbers, codes: Indices, C: float) -> Fitted:
    """Fit with a given C, as `fit` does with the one that it chose.

    Args:
        protocol: `svm` or `linear`.
        features: `(subject, feature)`.
        codes: `(subject,)`, their classes.
        C: the inverse strength of the regularisation.
    """
    strength = C * features.shape[1] if protocol == "svm" else C
    return _fit_one(protocol, features, codes, strength, pca=False)


def outer_folds(
    codes: Indices, *, folds: int, seed: int, persons: Persons | None = None, every: bool = True
) -> Indices:
    """The outer fold in which each subject is tested, stratified by class.

    Args:
        codes: `(subject,)`, in the order of sorted subject keys, so that a subject's fold does not
            depend on the order of a file.
        folds: number of folds; no class may have fewer members.
        seed: shuffles the subjects.
        persons: `(subject,)`, the person of each; one person's are in one fold. Unset, every
            subject is another person.
        every: whether each fold must have every class.

    Raises:
        EvaluationError: persons cannot be shared out so that each fold has every class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    fold_of = np.empty(len(codes), np.intp)
    grouped = persons is not None and len(np.unique(persons)) < len(codes)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter = kind(folds, shuffle=True, random_state=seed)
    groups = persons if grouped else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes smaller than the folds are many
        for fold, (_, test) in enumerate(splitter.split(np.zeros(len(codes)), codes, groups)):
            fold_of[test] = fold
    if every and any(set(codes[fold_of == k]) != set(codes) for k in range(folds)):
        raise EvaluationError(
            f"the participants' images cannot be split into {folds} folds that have every class "
            "each; join classes, label more participants, or choose another `seed` or fewer `folds`"
        )
    return fold_of


def _loss(protocol: str, codes: Indices, classifier: Any, reduced: Floats) -> Loss:
    """How bad a classifier is on held-out rows; the first value decides."""
    if protocol == "linear":
        from sklearn.metrics import log_loss

        return (float(log_loss(codes, classifier.predict_proba(reduced))),)
    scores = fold_scores(codes, classifier.decision_function(reduced))
    return -scores["auc"], -(scores["sensitivity"] + scores["specificity"]) / 2


def _fit_one(
    protocol: str, features: Numbers, codes: Indices, strength: float, pca: bool
) -> Fitted:
    """The pipeline with one value of the grid."""
    from sklearn.pipeline import Pipeline

    x = features.astype(np.float64, copy=False)
    steps = front(x, pca=pca)
    reduced = steps.fit_transform(x)
    C = _scaled(protocol, strength, reduced.shape[1])
    classifier = _classifier(protocol, C, reduced, codes)
    return Fitted(Pipeline([*steps.steps, ("classifier", classifier)]), C)


def _scaled(protocol: str, strength: float, width: int) -> float:
    """C of a value of the grid."""
    return strength / width if protocol == "svm" else strength


def _classifier(protocol: str, C: float, x: Floats, codes: Indices, *, gram: bool = False) -> Any:
    """A classifier, fitted to subjects' features or, of an SVM, to their products (`gram`)."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # The weakest regularisation may not converge on separable data; its direction has.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if protocol == "linear":
            from sklearn.linear_model import LogisticRegression

            return LogisticRegression(C=C, max_iter=500).fit(x, codes)
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.svm import SVC

        # libsvm solves the dual exactly and without chance, and leaves the intercept unpenalised,
        # where liblinear iterates in random order and may stop early. Balanced weights keep zero a
        # meaningful threshold: unweighted, strong regularisation puts every subject on the
        # majority's side.
        kernel = "precomputed" if gram else "linear"
        weights: Any = "balanced"
        classes, counts = np.unique(codes, return_counts=True)
        if gram and len(classes) == 2:  # the same, which takes SVC a third of a small fit
            weights = dict(zip(classes, len(codes) / (2 * counts), strict=True))
        svm = SVC(kernel=kernel, C=C, class_weight=weights, cache_size=500)
        return (svm if len(classes) == 2 else OneVsRestClassifier(svm)).fit(x, codes)
