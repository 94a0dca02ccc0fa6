"""Does the embedding tell facts, and do facts alone tell the label?"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.auditing.facts import FEWEST, Fact
from vitaepp.auditing.permutation import association_test
from vitaepp.data.arrays import Floats, Indices
from vitaepp.data.participants import Persons
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import plan_folds, share_out
from vitaepp.evaluation.labels import read_labels
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks import read_target
from vitaepp.evaluation.tasks.base import Target

#: Most subjects that the embedding is asked about a fact with; more would take hours and change
#: little. A training part of five folds has 1,000 then.
MOST = 1250

#: Facts that are no property of a scan: they are asked of the embedding, and no control.
NO_CONTROL = ("split",)

Features = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Embedded subjects with their label, and how they are evaluated.

    Attributes:
        table: `subject`, `split`, labels, in the order of subjects; its index counts from 0.
        features: `(subject, feature)`.
        persons: `(subject,)`, the person of each.
        label: the column of classes.
        protocol: of the evaluation; None for its default.
        folds: of cross-validation.
        seed: of all that is random.
        positive: of two classes.
        encoder: id of the weights that made the features, if it is known.
    """

    table: pd.DataFrame
    features: Features
    persons: Persons
    label: str
    protocol: str | None
    folds: int
    seed: int
    positive: str | None
    encoder: str | None = None

    def evaluate(self, features: Features | Sequence[Features]) -> Evaluation:
        """How much features tell about the label, in the folds that all of them share."""
        return evaluate_features(
            features,
            self.table,
            self.label,
            protocol=self.protocol,
            seed=self.seed,
            folds=self.folds,
            positive=self.positive,
            repeats=1,
        )

    def parts(self) -> list[tuple[Indices, Indices]]:
        """The rows that each fold is fitted on, and those that it is tested on.

        Raises:
            EvaluationError: the label or the splits do not allow an evaluation.
        """
        row_of = {subject: i for i, subject in enumerate(self.table["subject"])}
        parts = plan_folds(self.table, self.label, self.protocol, self.folds, self.seed)
        return [
            (np.array([row_of[s] for s in train]), np.array([row_of[s] for s in test]))
            for train, test in parts
        ]

    def classes(self) -> tuple[Indices, Floats]:
        """The labelled rows, and a column of 0 and 1 for each class of theirs."""
        labels = read_labels(self.table, self.label)
        return labels.rows, np.eye(len(labels.classes))[labels.codes]


@dataclass(frozen=True)
class Association:
    """How well features or facts predict something, and whether that may be chance.

    Attributes:
        score: the AUC of classes, Spearman's correlation of numbers; the mean over folds.
        metric: `auc` or `spearman`.
        p: of `association_test`, not corrected.
        n: subjects.
        column: which of several columns the score is of, the one that is predicted best.
        evaluation: of the label, where that is predicted.
    """

    score: float
    metric: str
    p: float
    n: int
    column: str = ""
    evaluation: Evaluation | None = None

    @property
    def effect(self) -> float:
        """From 0, chance, to 1; of an AUC, Somers' D."""
        return 2 * self.score - 1 if self.metric == "auc" else self.score


def fact_from_embedding(cohort: Cohort, fact: Fact) -> Association | None:
    """Ask the embedding about a fact; None where its numbers differ too little to be ranked."""
    known = _some(fact, cohort.persons, cohort.seed)
    columns, persons = fact.columns.iloc[known], cohort.persons[known]
    features = cohort.features[known]
    names = ["subject", *([PARTICIPANT] if PARTICIPANT in cohort.table else [])]
    table = cohort.table[names].iloc[known].reset_index(drop=True)
    kind, metric = ("classification", "auc") if fact.is_classes else ("regression", "spearman")
    scores = {}
    for name in columns:
        column = fact.name + f", {name}" * (len(columns.columns) > 1)
        if column in ("split", *names):  # these have a meaning for the evaluation
            column += " as metadata"
        values = table.assign(**{column: columns[name].to_numpy()})
        folds = _most_folds(read_target(values, column, kind), values, cohort)
        if not folds:
            continue
        result = evaluate_features(
            features, values, column, task=kind, seed=cohort.seed, folds=folds, repeats=1
        )
        # Predictions that are all the same have no rank: they tell nothing.
        scores[str(name)] = float(np.mean([np.nan_to_num(f[metric]) for f in result["folds"]]))
    if not scores:
        return None
    best = max(scores, key=lambda name: scores[name])
    p = association_test(features, targets(fact)[known], persons, seed=cohort.seed)
    return Association(
        scores[best], metric, p, len(known), best if len(columns.columns) > 1 else ""
    )


def _most_folds(target: Target, table: pd.DataFrame, cohort: Cohort) -> int:
    """How many folds there can be in which a fact varies enough to be scored; 0 for none.

    Of a number that many subjects share, a small fold may have too few different values.
    """
    for folds in range(min(cohort.folds, FEWEST), 1, -1):
        with suppress(EvaluationError):
            share_out(target, table.assign(split=""), folds=folds, seed=cohort.seed)
            return folds
    return 0


def label_from_facts(cohort: Cohort, facts: Sequence[Fact]) -> Association:
    """Ask facts alone about the label, in the folds of the embedding's own evaluation."""
    evaluation = cohort.evaluate([matrix for matrix, _ in _designs(cohort, facts)])
    rows, classes = cohort.classes()
    matrix = design(facts, np.arange(len(cohort.table)))[rows]
    p = association_test(matrix, classes, cohort.persons[rows], seed=cohort.seed)
    return Association(evaluation["mean"]["auc"], "auc", p, evaluation["n"], evaluation=evaluation)


def label_from_both(cohort: Cohort, facts: Sequence[Fact]) -> Evaluation:
    """Ask the embedding and facts together about the label.

    Either counts as much as the other: the columns of facts are repeated until they are as many as
    the features. One of a hundred columns would otherwise say nothing beside thousands.
    """
    both = []
    for matrix, _ in _designs(cohort, facts):
        times = max(1, round(cohort.features.shape[1] / matrix.shape[1]))
        both.append(np.hstack([cohort.features, np.tile(matrix, times)]))
    return cohort.evaluate(both)


def label_without_facts(cohort: Cohort, facts: Sequence[Fact]) -> Evaluation:
    """Ask about the label what is left of the embedding when facts are regressed out.

    A ridge regression of every feature on the facts is fitted to the training part of each fold.

    Source:
        Snoek, Miletić and Scholte 2019, "How to control for confounds in decoding analyses of
        neuroimaging data": in the folds, and not before them.
    """
    from sklearn.linear_model import Ridge

    left = []
    for matrix, train in _designs(cohort, facts):
        ridge = Ridge(alpha=1.0).fit(matrix[train], cohort.features[train])
        left.append(cohort.features - ridge.predict(matrix))
    return cohort.evaluate(left)


def _designs(cohort: Cohort, facts: Sequence[Fact]) -> list[tuple[Features, Indices]]:
    """Facts as features for each fold, with the rows of its training part."""
    return [(design(facts, train), train) for train, _ in cohort.parts()]


def design(facts: Sequence[Fact], train: Indices) -> Floats:
    """Facts as columns of numbers, `(subject, column)`: classes one-hot, numbers standardised.

    What is not known is a class of its own, or the median with a column that says so.

    Args:
        facts: at least one.
        train: the rows that all of it is fitted to.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    whole = pd.concat(
        [f.columns.add_prefix(f"{i} ") for i, f in enumerate(facts)], axis=1
    ).reset_index(drop=True)
    classes = [str(c) for c in whole if not pd.api.types.is_numeric_dtype(whole[c])]
    numbers = [str(c) for c in whole if c not in classes]
    whole[classes] = whole[classes].where(whole[classes].notna(), "not known")
    make = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), classes),
        (
            make_pipeline(
                SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
                StandardScaler(),
            ),
            numbers,
        ),
    )
    return np.asarray(make.fit(whole.iloc[train]).transform(whole), np.float64)


def targets(fact: Fact) -> Floats:
    """What `association_test` is asked of a fact: a column for each class, or ranks of numbers."""
    if fact.is_classes:
        return pd.get_dummies(fact.columns.iloc[:, 0]).to_numpy(np.float64)
    return fact.columns.rank().to_numpy(np.float64)


def _some(fact: Fact, persons: Persons, seed: int) -> Indices:
    """Rows where a fact is known, about `MOST` at most, of persons drawn with all their subjects.

    Of each class, a hundred persons are drawn first, so that a rare one stays.
    """
    rows = np.flatnonzero(fact.known)
    if len(rows) <= MOST:
        return rows
    who, first, counts = np.unique(persons[rows], return_index=True, return_counts=True)
    random = np.random.default_rng(seed).permutation(len(who))
    value = fact.columns.iloc[rows[first[random]], 0].to_numpy(object)
    number = pd.Series(value).groupby(value).cumcount() if fact.is_classes else np.zeros(len(who))
    order = random[np.argsort(np.asarray(number) >= 100, kind="stable")]
    taken = who[order[: max(1, int((np.cumsum(counts[order]) <= MOST).sum()))]]
    return rows[np.isin(persons[rows], taken)]
