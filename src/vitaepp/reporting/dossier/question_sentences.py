"""What an evaluation says in the methods, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vitaepp.evaluation import classifier, cox, knn, ordinal, regression
from vitaepp.evaluation.bootstrap import LEVEL, RESAMPLES
from vitaepp.evaluation.choice import DRAWS, ENOUGH, HELD_OUT
from vitaepp.evaluation.front import COMPONENTS
from vitaepp.evaluation.measures import measures_of, task_of
from vitaepp.presentation.names import metric_name, model_name
from vitaepp.reporting.contents import RunContents
from vitaepp.reporting.dossier.questions import Question
from vitaepp.system.progress import counted
from vitaepp.system.text import be, listed

#: How folds of tasks other than classes are balanced.
_BALANCED = {
    "regression": "balanced over ranges of the value",
    "survival": "stratified by event",
    "multilabel": "stratified by the rarest label of each subject",
}


#: What was chosen of each model, by task and protocol: its name, the values, and their unit.
_STRENGTHS = {
    **{("classification", p): ("C", grid, "") for p, grid in classifier.GRID.items()},
    ("classification", "svm"): (
        "C",
        classifier.GRID["svm"],
        " divided by the number of features",
    ),
    ("classification", "knn"): ("number of neighbours", knn.GRID, ""),
    ("ordinal", "linear"): ("C", ordinal.GRID, ""),
    ("regression", "linear"): ("alpha", regression.GRID["ridge"], ""),
    ("regression", "svm"): ("C", regression.GRID["svr"], " divided by the number of features"),
    ("survival", "linear"): ("alpha", cox.GRID, " times the number of features"),
}


#: What a reader must know of the metrics of a task.
_OF_METRICS = {
    "survival": (
        "The AUC is the mean over the quartiles of the training part's event times, weighted by "
        "the estimated share of events between them; the weights of censoring are the training "
        "part's."
    ),
    "ordinal": (
        "Kappa has quadratic weights, the MAE is in grades, and the AUC is the mean over the "
        "splits into lower and higher grades."
    ),
    "regression": "MAE and RMSE are in the unit of the label.",
}


def _persons(question: Question) -> Iterator[str]:
    metrics = question.metrics
    members, task = metrics.get("members"), task_of(metrics)
    n = counted(metrics["n"], "subject")
    classes = ""
    if isinstance(members, Mapping) and members:
        classes = f" ({', '.join(f'{count:,} {name}' for name, count in members.items())})"
    if task == "survival":
        follow = metrics["follow_up"]
        classes = (
            f" ({metrics['events']:,} with an event; follow-up in the unit of {metrics['time']}, "
            f"median {follow['median']:g}, at most {follow['most']:g})"
        )
    elif task == "regression":
        values = metrics["values"]
        classes = f" (median {values['median']:g}, from {values['least']:g} to {values['most']:g})"
    several = task in ("multilabel", "survival")
    column = f"values in the columns {metrics['label'].replace(',', ', ').replace('  ', ' ')}"
    column = column if several else f"a label in the column {metrics['label']}"
    yield f"{n} with {column} {be(metrics['n'])} evaluated{classes}."
    left_out = metrics.get("left_out") or {}
    if left_out.get("unlabelled"):
        count = left_out["unlabelled"]
        yield f"{counted(count, 'subject')} without this label {be(count)} left out."
    if left_out.get("other splits"):
        count = left_out["other splits"]
        yield f"{counted(count, 'subject')} of other splits {be(count)} left out."


def _partition(question: Question) -> Iterator[str]:
    metrics = question.metrics
    folds = len(metrics["folds"])
    group = metrics.get("group") or {}
    if tested_alone(metrics):
        only = len(group["not_tested"])
        each = f"{folds} of {group['groups']} groups" if only else f"Each of {folds} groups"
        yield (
            f"{each} of {group['column']} {be(folds if only else 1)} tested once, by models that "
            "were fitted on the others"
            + "; what cannot be scored alone was not tested" * bool(only)
            + "."
        )
    elif folds > 1:
        whole = f", in which no fold splits a group of {group['column']}" if group else ""
        over = _BALANCED.get(task_of(metrics), "stratified by class")
        yield f"Features were evaluated in {folds}-fold cross-validation, {over}{whole}."
        if len(question.draws) > 1:
            seeds = listed(str(draw["seed"]) for draw in question.draws)
            yield (
                f"It was repeated with {len(question.draws)} draws of the folds (seeds {seeds}); "
                "means and tests are over all of them."
            )
        elif repeats := metrics.get("repeats"):
            yield (
                f"It was repeated with {repeats['number']} draws of the folds; tables and tests "
                "here are of the first."
            )
    elif sizes := metrics.get("sizes"):
        yield (
            f"Models were fitted on the given training split of {sizes[0]['train']:,} "
            f"subjects and tested on the given test split of {sizes[0]['test']:,}."
        )
    if metrics.get("pretraining") == "without each fold's test subjects":
        yield "Each fold's encoder was pre-trained without its test subjects."
    elif any(_saw_all(entry.run, metrics) for entry in question.entries):
        yield "The encoder saw the images of the test subjects in pre-training, without labels."


def _folds(question: Question) -> Iterator[str]:
    metrics = question.metrics
    if len(metrics["folds"]) > 1 and not tested_alone(metrics):
        drawn = sorted({draw["seed"] for draw in question.draws})
        number = "seed" if len(drawn) == 1 else "seeds"
        yield f"Folds were drawn with the {number} {listed(map(str, drawn))}."


def _results(question: Question) -> Iterator[str]:
    if question.comparison is not None:
        yield from (f"{sentence}." for sentence in question.comparison.sentences)


def _saw_all(run: RunContents, metrics: Mapping[str, Any]) -> bool:
    """Whether a run was trained on all of its store, and evaluated on as many subjects."""
    stored = run.store.get("subjects")
    embedded = metrics["n"] + sum((metrics.get("left_out") or {}).values())
    return stored is not None and run.summary.get("trained_on") == stored == embedded


def _disjoint(question: Question) -> Iterator[str]:
    metrics = question.metrics
    if metrics.get("persons_by") == "participant":
        yield (
            f"The {metrics['n']:,} subjects were of {counted(metrics['persons'], 'person')}; "
            f"{_apart(metrics)}."
        )
    elif "persons" in metrics:
        yield "Each subject counted as a person, as the data do not say otherwise."


def tested_alone(metrics: Mapping[str, Any]) -> list[str]:
    """The groups that were each left out once; [] of another design, which draws its folds."""
    return (metrics.get("group") or {}).get("tested_alone") or []


def _apart(metrics: Mapping[str, Any]) -> str:
    """How persons of several subjects were kept from being both trained on and tested."""
    if tested_alone(metrics):
        return "images of a tested person at other groups were left out of training"
    if len(metrics["folds"]) > 1:
        return "all subjects of a person were in the same fold"
    return "no person was in both the training and the test split"


def _classifier(question: Question) -> Iterator[str]:
    metrics = question.metrics
    protocol = str(metrics.get("classifier") or metrics["protocol"])
    task = task_of(metrics)
    title = model_name(task, protocol)
    features = metrics.get("features")
    several = metrics.get("candidates")
    of = f" on {features:,} features" if isinstance(features, int) and not several else ""
    done = f"{'centred' if protocol == 'knn' else 'standardised'} on the training part"
    limited, reduced = "scaled" in metrics, metrics.get("reduced")  # earlier versions had no limit
    if limited:
        done += ", and taken for three standard deviations beyond that"
    if limited and reduced:
        done = "reduced by PCA on the training part"
    each = ", one for each label" * (task == "multilabel")
    yield f"The model was a {title}{of}{each}, {done}."
    if reduced and not limited:
        yield "Before, features were reduced by PCA, fitted to the training part."
    if harmonized := metrics.get("harmonized"):
        done = (
            "centred and scaled by"
            if harmonized["how"] == "scale"
            else "harmonised by ComBat between"
        )
        yield f"Before, features were {done} {harmonized['column']}, fitted to the training part."
    if strength := _STRENGTHS.get((_kind(task), protocol)):
        name, grid, unit = strength
        tried = ", ".join(f"{c:g}" for c in grid)
        draws = f"{DRAWS} draws" if metrics["sizes"][0]["train"] < ENOUGH else "one draw"
        yield (
            f"Its {name} was chosen among {tried}{unit} on {HELD_OUT:.0%} of the training part "
            f"({draws}), and it was fitted again on all of it."
        )
    if candidates := metrics.get("candidates"):
        yield (
            f"The features were one of {listed(candidates)}, chosen by the same held-out subjects "
            "together with the strength of the classifier, in each training part anew."
        )


def _kind(task: str) -> str:
    """Several labels have the classifiers of one."""
    return "classification" if task == "multilabel" else task


def _in_methods(metric: str) -> str:
    return "Harrell's C-index" if metric == "c_index" else metric_name(metric)


def _controls(question: Question) -> Iterator[str]:
    texts = {
        "untrained": "the same network with the random weights that training started from",
        "raw": f"raw intensities, reduced to at most {COMPONENTS} principal components fitted on "
        "the training part",
        "mean": "the mean of the training part",
    }
    controls = {c for e in question.entries for c in e.evaluation.get("controls") or {}}
    if parts := [text for key, text in texts.items() if key in controls]:
        where = "in the same folds" if len(question.metrics["folds"]) > 1 else "on the same split"
        yield f"The same model {where} had as controls {listed(parts)}."


def _threshold(question: Question) -> Iterator[str]:
    metrics = question.metrics
    if metrics.get("positive") is not None:
        yield (
            f"Sensitivity is that for {metrics['label']} = {metrics['positive']}, where the "
            "decision score is above 0; no threshold was chosen."
        )


def _metrics(question: Question) -> Iterator[str]:
    metrics = question.metrics
    over = ", as mean and sample standard deviation over folds" * (len(metrics["folds"]) > 1)
    task, macro = task_of(metrics), ""
    if task == "multilabel":
        macro = ", averaged over labels"
    elif task == "classification" and len(metrics["classes"]) > 2:
        macro = ", each class against the rest and averaged"
    names = listed(map(_in_methods, measures_of(metrics).names))
    yield f"{names[0].upper()}{names[1:]} are given{macro}{over}."
    if note := _OF_METRICS.get(task):
        yield note


def _tests(question: Question) -> Iterator[str]:
    if question.comparison is None:
        return
    rows = question.comparison.rows
    names = {r.difference.test for r in rows if r.difference and r.difference.test}
    tests = [
        name if name.startswith(("McNemar", "DeLong", "Wilcoxon")) else f"the {name}"
        for name in sorted(names)
    ]
    if tests:
        yield f"Differences from {rows[0].name} were tested by {listed(tests)}, two-sided."
    if sum(row.p_holm is not None for row in rows) > 1:
        yield "P-values were corrected for the number of comparisons (Holm)."


def _uncertainty(question: Question) -> Iterator[str]:
    if question.comparison and any(
        r.difference and r.difference.interval for r in question.comparison.rows
    ):
        within = " within classes" if task_of(question.metrics) == "classification" else ""
        yield (
            f"Intervals of differences are {LEVEL:.0%} percentile bootstrap intervals over tested "
            f"persons ({RESAMPLES:,} resamples{within}, trained models held fixed)."
        )


OF_QUESTION = {
    "persons": _persons,
    "partition": _partition,
    "folds": _folds,
    "disjoint": _disjoint,
    "classifier": _classifier,
    "controls": _controls,
    "threshold": _threshold,
    "metrics": _metrics,
    "tests": _tests,
    "uncertainty": _uncertainty,
    "results": _results,
}
