"""Recompute every number of the tables in this folder from the predictions beside it.

The tables of README.md are among them, and its sentences on their differences. The prose of
methods.md, checklists, figures, notes below tables and what README.md says of trainings are not.

    python verify.py [FOLDER]

It needs pandas, scikit-learn, and NumPy and SciPy, which come with them, and scikit-survival where
survival was predicted; nothing else, and nothing of the program that wrote the tables. Exit status
0: every number is right. 1: one differs, and is named. 2: a file is missing or cannot be read.

`data/index.json` says which table stands on which predictions. A score above 0 is the second class
of two, or that a label is there; of more, the largest score is the class. Ordered classes have a
probability each, values a prediction, survival a risk. With several folds the test is the corrected
resampled t-test (Nadeau and Bengio 2003), of one draw of the folds or of several; on one test split
DeLong's test of the AUC, McNemar's exact test of the accuracy, or Wilcoxon's signed-rank test of
absolute errors. Intervals are the percentile bootstrap over persons, of classes drawn within their
class. A column `person` is there where some have several subjects; then tests of one split are by
person, too, and the exact sign-flip test stands for McNemar's.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, pearsonr, spearmanr, wilcoxon
from scipy.stats import norm as normal
from scipy.stats import t as student
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

RESAMPLES, LEVEL = 2000, 0.95
LARGEST_DIFFERENCE = 1e-9


class Features:
    """What one set of features, such as an embedding or a control, predicts."""

    def __init__(self, table: pd.DataFrame, columns: list[str], question: dict[str, Any]) -> None:
        table = table.sort_values(["fold", "subject"], ignore_index=True)
        self.task, self.table, classes = question["task"], table, question["classes"]
        self.subject = table["subject"].astype(str).to_numpy()
        self.draw = table["draw"].to_numpy() if "draw" in table else np.zeros(len(table), int)
        self.draws = int(self.draw.max()) + 1
        self.fold = table["fold"].to_numpy() + question["folds"] * self.draw
        self.score = table[columns].to_numpy(float)
        self.several = "person" in table
        self.person = table["person" if self.several else "subject"].to_numpy()
        self.names = [str(c) for c in classes]
        self.true: Any
        if self.task in ("classification", "ordinal"):
            codes = {c: i for i, c in enumerate(self.names)}
            self.true = table["label"].astype(str).map(codes).to_numpy()
        elif self.task == "multilabel":
            self.true = table[[f"label:{c}" for c in self.names]].to_numpy(int)
        else:
            self.true = table["time" if self.task == "survival" else "label"].to_numpy(float)
        two = len(columns) == 1
        self.said = (self.score[:, 0] > 0).astype(int) if two else self.score.argmax(axis=1)
        self.classes = [1] if two else list(range(len(classes)))
        self.sizes = question["train"]
        self.folds = [self.of_fold(self.fold == k) for k in sorted(set(self.fold))]

    def of_fold(self, rows: Any) -> dict[str, float]:
        """The metrics of some rows, by scikit-learn, SciPy and scikit-survival."""
        if self.task == "regression":
            return of_values(self.true[rows], self.score[rows, 0])
        if self.task == "ordinal":
            return of_ranks(self.true[rows], self.score[rows])
        if self.task == "survival":
            return self.of_survival(rows)
        if self.task == "multilabel":
            each = [
                of_classes(self.true[rows, i], self.score[rows, i] > 0, self.score[rows, i : i + 1])
                for i in range(len(self.names))
            ]
            return {metric: float(np.mean([one[metric] for one in each])) for metric in each[0]}
        return of_classes(self.true[rows], self.said[rows], self.score[rows], self.classes)

    def of_survival(self, rows: Any) -> dict[str, float]:
        """The concordance; what needs the training part, only where that is the other folds."""
        from sksurv.metrics import (
            concordance_index_censored,
            concordance_index_ipcw,
            cumulative_dynamic_auc,
        )
        from sksurv.util import Surv

        event = self.table["event"].to_numpy() == 1
        time, risk = self.true, self.score[:, 0]
        scores = {"c_index": np.nan}
        if event[rows].any():
            c = concordance_index_censored(event[rows], time[rows], risk[rows], tied_tol=0)
            scores["c_index"] = float(c[0])
        k = int(self.fold[rows][0])
        others = ~rows & (self.draw == self.draw[rows][0])
        if int(others.sum()) != self.sizes[k]:
            return scores
        scores |= {"c_uno": np.nan, "auc": np.nan}
        end = np.nextafter(time[others].max(), 0)
        came = event[rows] & (time[rows] <= end)
        if not came.any():
            return scores
        train = Surv.from_arrays(event[others], time[others])
        until = np.minimum(time[rows], end)
        test = Surv.from_arrays(came, until)
        scores["c_uno"] = float(concordance_index_ipcw(train, test, risk[rows])[0])
        at = np.unique(np.quantile(time[others][event[others]], [0.25, 0.5, 0.75]))
        at = at[(at >= until[came].min()) & (at < until.max())]
        if len(at):
            scores["auc"] = float(cumulative_dynamic_auc(train, test, risk[rows], at)[1])
        return scores

    def known(self, metric: str) -> bool:
        """Whether the predictions are enough to compute it."""
        return all(metric in fold for fold in self.folds)

    def defined(self, metric: str) -> list[float]:
        """Its value in each fold that has one."""
        return [fold[metric] for fold in self.folds if np.isfinite(fold[metric])]

    def mean(self, metric: str) -> Any:
        """Over folds; None where no fold has a value."""
        values = self.defined(metric)
        return float(np.mean(values)) if values else None

    def std(self, metric: str) -> Any:
        """Sample standard deviation over folds; None of a single one."""
        values = self.defined(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def resampled(self, metric: str, weights: Any) -> Any:
        """`(resample, fold)`: the metric with each subject as often as its weight says."""
        number = {s: i for i, s in enumerate(sorted(set(self.subject)))}
        column = np.array([number[s] for s in self.subject])
        folds = []
        for k in sorted(set(self.fold)):
            rows = self.fold == k
            w, true, predicted = weights[:, column[rows]], self.true[rows], self.said[rows]
            if self.task != "classification":
                folds.append(self.weighted(rows, w))
                continue
            if metric == "accuracy":
                folds.append(share(w, predicted == true, np.ones(len(true), bool)))
                continue
            parts = []
            for i, c in enumerate(self.classes):
                if metric == "auc":
                    parts.append(area(w, true == c, self.score[rows, i]))
                elif metric == "sensitivity":
                    parts.append(share(w, predicted == c, true == c))
                elif metric == "specificity":
                    parts.append(share(w, predicted != c, true != c))
                else:
                    raise ValueError(f"no bootstrap of {metric!r}")
            folds.append(mean_of_defined(np.stack(parts, axis=-1)))
        return np.stack(folds, axis=-1)

    def weighted(self, rows: Any, weights: Any) -> Any:
        """`(resample,)`: the first metric of what is no class, of some rows."""
        true, score = self.true[rows], self.score[rows]
        if self.task == "regression":
            return divided(weights @ np.abs(score[:, 0] - true), weights.sum(1))
        if self.task == "multilabel":
            areas = [area(weights, true[:, i] == 1, score[:, i]) for i in range(len(self.names))]
            return mean_of_defined(np.stack(areas, axis=-1))
        if self.task == "survival":
            return concordance(weights, true, self.table["event"].to_numpy()[rows] == 1, score)
        count = score.shape[1]
        higher = np.stack([score[:, k:].sum(axis=1) for k in range(1, count)], axis=1)
        cell = count * true + (higher > 0.5).sum(axis=1)
        return kappa((weights @ np.eye(count**2)[cell]).reshape(-1, count, count))


def of_classes(true: Any, predicted: Any, score: Any, classes: Any = (1,)) -> dict[str, float]:
    """Of classes, each against the rest and averaged."""
    parts = [
        (
            roc_auc_score(true == c, score[:, i]),
            recall_score(true == c, predicted == c),
            recall_score(true != c, predicted != c),
        )
        for i, c in enumerate(classes)
    ]
    area, sensitivity, specificity = (float(mean) for mean in np.mean(parts, axis=0))
    scores = {"auc": area, "sensitivity": sensitivity, "specificity": specificity}
    return scores | {"accuracy": float(accuracy_score(true, predicted))}


def of_values(true: Any, predicted: Any) -> dict[str, float]:
    """Errors in the unit of the value, and how much of its variation is explained."""
    scores = {
        "mae": float(mean_absolute_error(true, predicted)),
        "rmse": float(root_mean_squared_error(true, predicted)),
        "r2": float(r2_score(true, predicted)) if np.ptp(true) > 0 else np.nan,
    }
    varied = min(np.ptp(true), np.ptp(predicted)) > 0
    for name, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
        scores[name] = float(correlation(true, predicted).statistic) if varied else np.nan
    return scores


def of_ranks(true: Any, probability: Any) -> dict[str, float]:
    """Of ordered classes: the predicted one is the median of the probabilities."""
    count = probability.shape[1]
    higher = np.stack([probability[:, k:].sum(axis=1) for k in range(1, count)], axis=1)
    predicted, expected = (higher > 0.5).sum(axis=1), higher.sum(axis=1)
    varied = np.ptp(true) > 0 and np.ptp(expected) > 1e-12
    areas = [
        roc_auc_score(true > k, higher[:, k]) for k in range(count - 1) if 0 < np.mean(true > k) < 1
    ]
    ranks = list(range(count))
    one = len(set(true) | set(predicted)) == 1
    return {
        "kappa": np.nan
        if one
        else float(cohen_kappa_score(true, predicted, labels=ranks, weights="quadratic")),
        "mae": float(mean_absolute_error(true, predicted)),
        "spearman": float(spearmanr(true, expected).statistic) if varied else np.nan,
        "auc": float(np.mean(areas)) if areas else np.nan,
        "accuracy": float(accuracy_score(true, predicted)),
    }


def area(weights: Any, positive: Any, score: Any) -> Any:
    """AUC of each resample: how often a positive is above a negative, ties counting half."""
    above, below = score[positive][:, None], score[~positive][None, :]
    wins = (above > below) + 0.5 * (above == below)
    of_pairs = np.einsum(
        "rp,pn,rn->r", weights[:, positive], wins, weights[:, ~positive], optimize=True
    )
    return divided(of_pairs, weights[:, positive].sum(1) * weights[:, ~positive].sum(1))


def concordance(weights: Any, time: Any, event: Any, risk: Any) -> Any:
    """Harrell's, of each resample: of the pairs whose order is known the share in order."""
    before = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    known = (event[:, None] & before).astype(float)
    wins = known * ((risk > risk[:, 0]) + 0.5 * (risk == risk[:, 0]))
    right, pairs = (
        np.einsum("ri,ij,rj->r", weights, of, weights, optimize=True) for of in (wins, known)
    )
    return divided(right, pairs)


def kappa(table: Any) -> Any:
    """With quadratic weights, of tables of the true by the predicted rank."""
    ranks = np.arange(table.shape[-1])
    cost = (ranks[:, None] - ranks) ** 2.0
    chance = table.sum(2)[:, :, None] * table.sum(1)[:, None]
    observed = (table * cost).sum((1, 2)) * table.sum((1, 2))
    return 1 - divided(observed, (chance * cost).sum((1, 2)))


def share(weights: Any, right: Any, among: Any) -> Any:
    """The weight of those `among` who are right."""
    return divided(weights @ (right & among).astype(float), weights @ among.astype(float))


def divided(above: Any, below: Any) -> Any:
    """A quotient; NaN where the divisor is 0."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0)


def mean_of_defined(values: Any) -> Any:
    """Mean over the last axis of what is no NaN."""
    known = np.isfinite(values)
    return divided(np.where(known, values, 0).sum(-1), known.sum(-1).astype(float))


def interval(one: Features, other: Features, metric: str) -> Any:
    """Of the difference, over resampled persons; None where no resample has one."""
    order = np.unique(one.subject, return_index=True)[1]
    classes = one.true[order] if one.task == "classification" else np.zeros(len(order), int)
    weights = drawn(classes, one.person[order], one.several)
    difference = one.resampled(metric, weights) - other.resampled(metric, weights)
    means = mean_of_defined(difference)
    means = means[np.isfinite(means)]
    if not len(means):
        return None
    ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(ends[0]), float(ends[1])


def drawn(classes: Any, person: Any, several: bool) -> Any:
    """`(resample, subject)`: how often each is drawn, a person with all its subjects."""
    kinds, who = np.unique(classes, return_inverse=True)[1], np.arange(len(classes))
    if several:
        who = np.unique(person, return_inverse=True)[1]
        has = np.zeros((who.max() + 1, kinds.max() + 1), bool)
        has[who, kinds] = True
        kinds = np.unique(has, axis=0, return_inverse=True)[1].ravel()
    weights = np.zeros((RESAMPLES, len(kinds)))
    for kind in range(kinds.max() + 1):
        members = np.flatnonzero(kinds == kind)
        draw = np.random.default_rng([0, kind]).integers(
            len(members), size=(RESAMPLES, len(members))
        )
        for r in range(RESAMPLES):
            weights[r, members] = np.bincount(draw[r], minlength=len(members))
    return weights[:, who]


def by_person(one: Features, values: Any) -> Any:
    """The sum of each person's values."""
    return np.bincount(np.unique(one.person, return_inverse=True)[1], values)


def sign_flip(differences: Any) -> float:
    """The exact test of whole numbers, if either sign of each were equally likely."""
    sums = np.ones(1)
    for size in np.abs(differences[differences != 0]).astype(int):
        sums = np.convolve(sums, np.concatenate([[0.5], np.zeros(2 * size - 1), [0.5]]))
    at = np.arange(len(sums)) - len(sums) // 2
    return float(min(1.0, sums[np.abs(at) >= abs(differences.sum()) - 0.5].sum()))


def lead_of(one: Features, other: Features) -> Any:
    """By how much the absolute error of each subject is larger."""
    return np.abs(one.score[:, 0] - one.true) - np.abs(other.score[:, 0] - one.true)


def p_of(one: Features, other: Features, metric: str) -> Any:
    """Two-sided p of the difference; None where there is no test."""
    differences = np.array(
        [a[metric] - b[metric] for a, b in zip(one.folds, other.folds, strict=True)]
    )
    if len(differences) > 1:
        tested = len(one.true) / len(differences)
        trained = float(np.mean(one.sizes))
        spread = 0.0 if np.ptp(differences) <= 1e-12 else differences.var(ddof=1)
        variance = (one.draws / len(differences) + tested / trained) * spread
        if variance > 0:
            t = differences.mean() / np.sqrt(variance)
            return float(2 * student.sf(abs(t), len(differences) - 1))
        return 1.0 if abs(differences.mean()) <= 1e-12 else 0.0
    if one.task == "regression" and metric == "mae":
        lead = by_person(one, lead_of(one, other))
        return float(wilcoxon(lead).pvalue) if np.any(lead) else 1.0
    if one.task != "classification":
        return None
    if metric == "auc":
        p = p_of_areas(one, other)
        if p is not None or one.mean("auc") == other.mean("auc"):
            return p
    elif metric != "accuracy":
        return None
    right, others = one.said == one.true, other.said == other.true
    if one.several:
        return sign_flip(by_person(one, right.astype(int) - others))
    first, second = int((right & ~others).sum()), int((others & ~right).sum())
    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def holm(values: list[float]) -> list[float]:
    """p-values, corrected for their number."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = largest
    return corrected


class Checks:
    """Numbers as they stand, each beside what it should be."""

    def __init__(self) -> None:
        self.count, self.wrong, self.unknown = 0, list[str](), list[str]()

    def number(self, where: str, stated: Any, right: Any) -> None:
        """An unrounded number, or none where there should be none."""
        self.count += 1
        absent = stated is None or pd.isna(stated)
        same = absent if right is None else not absent
        if same and right is not None:
            same = abs(float(stated) - right) <= LARGEST_DIFFERENCE * max(1.0, abs(right))
        if not same:
            self.wrong.append(f"{where}: {stated} stands there, {right} is right")

    def text(self, where: str, stated: str, right: list[str]) -> None:
        """A rounded number as it is written; of several right ones the first is the usual one."""
        self.count += 1
        if stated not in right:
            self.wrong.append(f"{where}: {stated!r} stands there, {right[0]!r} is right")


def either(form: Callable[..., str], *values: Any) -> list[str]:
    """Values as they are rounded; a tie may go either way."""
    nudges = product((0.0, LARGEST_DIFFERENCE, -LARGEST_DIFFERENCE), repeat=len(values))
    moved = (
        [
            None if v is None else v + n * max(1.0, abs(v))
            for v, n in zip(values, shares, strict=True)
        ]
        for shares in nudges
    )
    return list(dict.fromkeys(form(*one) for one in moved))


def digits_of(metric: str, value: Any) -> int:
    """Digits after the point: three, and three that count of an error in a small unit."""
    if metric in ("mae", "rmse") and value and math.isfinite(value) and abs(value) < 0.01:
        return min(12, 2 - math.floor(math.log10(abs(value))))
    return 3


def signed(value: float, digits: int = 3) -> str:
    """As the tables round a difference."""
    return f"{value:+.{digits}f}"


def ends(low: float, high: float, digits: int = 3) -> str:
    """As the tables round an interval."""
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def rounded(mean: Any, std: Any, digits: int = 3) -> str:
    """As the tables round."""
    if mean is None:
        return "undefined"
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


def rounded_p(p: float) -> str:
    """As the tables round."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def section_of(folder: Path, title: str) -> str:
    """What README.md says of a question."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def lines_of(text: str, tex: bool) -> list[list[str]]:
    """The cells of a LaTeX or Markdown table, its head first."""
    if not tex:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows if not row.startswith("| ---")]
        return [[cell.strip() for cell in row] for row in cells]
    signs = {r"$\pm$": "±", "$-$": "-", "$+$": "+", "$<$": "<", r"$\Delta$": "Δ", r"\%": "%"}
    for symbol, sign in signs.items():
        text = text.replace(symbol, sign)
    rows = [line.removesuffix(r"\\") for line in text.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows]


def check_texts(
    checks: Checks, folder: Path, name: str, right: list[list[list[str]]], **more: str
) -> None:
    """The last cells of the Markdown and the LaTeX table and of others; one of [] is not known."""
    names = (f"{name}.md", f"{name}.tex")
    texts = {name: (folder / "tables" / name).read_text(encoding="utf-8") for name in names}
    for page, text in (texts | more).items():
        head, *rows = lines_of(text, page.endswith(".tex")) or [[]]
        if len(rows) != len(right):
            checks.wrong.append(f"{page}: {len(rows)} rows stand there, {len(right)} are right")
            continue
        for row, expected in zip(rows, right, strict=True):
            first = len(head) - len(expected)
            if len(row) != len(head) or first not in (0, 1):
                checks.wrong.append(f"{page}, {row[0]}: {len(row)} cells stand there")
                continue
            for title, stated, cell in zip(head[first:], row[first:], expected, strict=True):
                if cell:
                    checks.text(f"{page}, {row[0]}, {title}", stated, cell)


def check(checks: Checks, folder: Path, question: dict[str, Any]) -> None:
    """All tables of one question."""
    number, metrics = question["number"], question["metrics"]
    tables = {
        file: pd.read_parquet(folder / "data" / file)
        for file in {row["predictions"] for row in question["rows"]}
    }
    every = [Features(tables[r["predictions"]], r["columns"], question) for r in question["rows"]]
    names = [row["name"] for row in question["rows"]]

    stem = f"results-{number}"
    table = pd.read_csv(folder / "tables" / f"{stem}.csv")
    checks.text(f"{stem}.csv, rows", str(len(table)), [str(len(every))])
    for row, one, name in zip(table.to_dict("records"), every, names, strict=True):
        for metric in metrics:
            where = f"{stem}.csv, {name}, {metric}"
            if not one.known(metric):
                checks.unknown.append(where)
                continue
            checks.number(f"{where} mean", row[f"{metric}_mean"], one.mean(metric))
            checks.number(f"{where} std", row[f"{metric}_std"], one.std(metric))
    texts = [cells_of(one, metrics) for one in every]
    readme = section_of(folder, question["title"])
    check_texts(checks, folder, stem, texts, **{"README.md": readme})

    stem, first = f"subjects-{number}", every[0]
    table = pd.read_csv(folder / "tables" / f"{stem}.csv")
    folds = sorted(set(first.fold[first.draw == 0]))
    checks.text(f"{stem}.csv, rows", str(len(table)), [str(len(folds))])
    texts = []
    for row, k in zip(table.to_dict("records"), folds, strict=True):
        rows = first.fold == k
        right = {"fold": k + 1, "train": first.sizes[k], "test": int(rows.sum())}
        right |= counted(first, rows)
        for label, count in right.items():
            checks.number(f"{stem}.csv, fold {k + 1}, {label}", row[label], count)
        texts.append([[f"{n:,}"] for n in right.values()])
    check_texts(checks, folder, stem, texts)

    if question["compared"]:
        compared = [every[i] for i in question["compared"]]
        check_comparison(checks, folder, question, compared, readme)


def cells_of(one: Features, metrics: list[str]) -> list[list[str]]:
    """Each metric as the tables have it; [] where the predictions are not enough."""
    return [
        either(partial(rounded, digits=digits_of(m, one.mean(m))), one.mean(m), one.std(m))
        if one.known(m)
        else list[str]()
        for m in metrics
    ]


def counted(one: Features, rows: Any) -> dict[str, int]:
    """How many of some rows have each class, each label, or the event."""
    if one.task == "survival":
        return {"event": int(one.table["event"].to_numpy()[rows].sum())}
    if one.task == "multilabel":
        return dict(zip(one.names, one.true[rows].sum(axis=0).tolist(), strict=True))
    return {name: int((one.true[rows] == i).sum()) for i, name in enumerate(one.names)}


def p_of_areas(one: Features, other: Features) -> Any:
    """DeLong's test (1988) of one test split, by person (Obuchowski 1997); None without a test."""
    moved = np.zeros(len(one.true))
    for i, c in enumerate(one.classes):
        positive = one.true == c
        parts = [placements(positive, f.score[:, i], one.person) for f in (one, other)]
        moved += (parts[0] - parts[1]) / len(one.classes)
    error = np.sqrt(np.sum(by_person(one, moved) ** 2))
    if error <= 1e-12:
        return None
    return float(2 * normal.sf(abs(one.mean("auc") - other.mean("auc")) / error))


def placements(positive: Any, score: Any, person: Any) -> Any:
    """How much each subject moves the area: its share of pairs that are in order, less the mean."""
    high, low = score[positive][:, None], score[~positive][None]
    order = (high > low) + 0.5 * (high == low)
    moved = np.empty(len(score))
    for side, share_in_order in ((positive, order.mean(axis=1)), (~positive, order.mean(axis=0))):
        persons = len(set(person[side]))
        scale = np.sqrt(persons / max(persons - 1, 1)) / len(share_in_order)
        moved[side] = (share_in_order - order.mean()) * scale
    return moved


def check_comparison(
    checks: Checks, folder: Path, question: dict[str, Any], every: list[Features], readme: str
) -> None:
    """Differences from the first row, their intervals and tests."""
    stem, metric = f"comparison-{question['number']}", question["metric"]
    names = [question["rows"][i]["name"] for i in question["compared"]]
    reference, *others = every
    metrics = question["metrics"]
    differences = [one.mean(metric) - reference.mean(metric) for one in others]
    digits = digits_of(metric, reference.mean(metric) if reference.known(metric) else None)
    intervals = [interval(one, reference, metric) for one in others]
    ps = [p_of(one, reference, metric) for one in others]
    known = holm([p for p in ps if p is not None])
    corrected = [known.pop(0) if p is not None else None for p in ps]

    table = pd.read_csv(folder / "tables" / f"{stem}.csv")
    checks.text(f"{stem}.csv, rows", str(len(table)), [str(len(every))])
    rights: list[dict[str, Any]] = [dict.fromkeys(("difference", "low", "high", "p", "p_holm"))]
    for i, d in enumerate(differences):
        low, high = intervals[i] or (None, None)
        computed = {"difference": d, "low": low, "high": high, "p": ps[i], "p_holm": corrected[i]}
        rights.append(computed)
    several = sum(p is not None for p in ps) > 1
    texts = []
    rows = zip(table.to_dict("records"), every, rights, names, strict=True)
    for i, (row, one, right, name) in enumerate(rows):
        for m in filter(one.known, metrics):
            checks.number(f"{stem}.csv, {name}, {m} mean", row[f"{m}_mean"], one.mean(m))
            checks.number(f"{stem}.csv, {name}, {m} std", row[f"{m}_std"], one.std(m))
        for column, value in right.items():
            checks.number(f"{stem}.csv, {name}, {column}", row[column], value)
        cells = cells_of(one, metrics)
        bounded = any(intervals)
        if right["difference"] is None:
            cells += [["reference"], *([[""]] * (1 + bounded + several))]
        else:
            cells += [either(partial(signed, digits=digits), right["difference"])]
            if bounded:
                bounds = partial(ends, digits=digits)
                cells += [either(bounds, right["low"], right["high"]) if intervals[i - 1] else [""]]
            for p in (right["p"], *([right["p_holm"]] if several else [])):
                cells.append([""] if p is None else either(rounded_p, p))
            written = {text for cell in cells[len(metrics) :] for text in cell}
            check_sentence(checks, f"{stem}.csv, {name}", str(row["sentence"]), written, names)
        texts.append(cells)
    check_texts(checks, folder, stem, texts)
    sentences = [s for s in table["sentence"].fillna("") if s]
    page = (folder / "tables" / f"{stem}.md").read_text(encoding="utf-8")
    stand = [line[2:] for line in page.splitlines() if line.startswith("- ")]
    checks.text(f"{stem}.md, sentences", "\n".join(stand), ["\n".join(sentences)])
    stand = [line[2:] for line in readme.splitlines() if line.startswith("- ")]
    checks.text("README.md, sentences", "\n".join(stand), ["\n".join(sentences)])


def check_sentence(
    checks: Checks, where: str, sentence: str, written: set[str], names: list[str]
) -> None:
    """Every number with a point in a sentence is one of those that the table has."""
    for name in sorted(names, key=len, reverse=True):
        sentence = sentence.replace(name, "")
    known = {n for text in written for n in re.findall(r"[-+]?\d+\.\d+", text)}
    for number in re.findall(r"[-+]?\d+\.\d+", sentence):
        checks.count += 1
        if number not in known:
            checks.wrong.append(f"{where}, sentence: {number} stands there, and is no such number")


def main(folder: Path) -> int:
    """Check a dossier, and say what is wrong."""
    checks = Checks()
    try:
        index = json.loads((folder / "data" / "index.json").read_text(encoding="utf-8"))
        for question in index["questions"]:
            check(checks, folder, question)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        print(f"{folder}: cannot be checked: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for line in checks.wrong:
        print(line, file=sys.stderr)
    if checks.wrong:
        print(f"{len(checks.wrong)} of {checks.count} numbers differ", file=sys.stderr)
        return 1
    print(
        f"{checks.count} numbers of the tables and of README.md are right; not looked at: methods, "
        "checklists, figures, notes below tables"
    )
    if checks.unknown:
        print(
            f"not checked, because the times of the training part are not here: "
            f"{'; '.join(checks.unknown)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent))
