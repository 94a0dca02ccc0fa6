"""Evaluate embeddings from file to file: read them, their controls and labels, and check them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vitaepp.data.origin import run_around, warn_outdated
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.budget import Budget, parse_budget
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.files import (
    SAME_STORE,
    Candidate,
    embeddings_of,
    load_candidates,
    load_controls,
    other_cohort,
    provenance_of,
    refuse_leak,
    require_alike,
    untrained_of,
    with_labels,
)
from vitaepp.evaluation.folds import by_subject, share_out
from vitaepp.evaluation.origin import digests
from vitaepp.evaluation.question import Candidates, Features
from vitaepp.evaluation.result import FILES, Evaluation
from vitaepp.evaluation.tasks import read_target
from vitaepp.system.files import file_stem
from vitaepp.system.paths import refuse_as_results
from vitaepp.system.progress import say


def evaluate(
    embeddings: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    label: str | None,
    out: str | os.PathLike[str],
    protocol: str | None = None,
    seed: int = 0,
    folds: int = 5,
    any_store: bool = False,
    positive: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    id_column: str | None = None,
    *,
    task: str = "classification",
    time: str | None = None,
    event: str | None = None,
    group: str | None = None,
    leave_one_group_out: bool = False,
    harmonize: bool | str = False,
    sites: str | None = None,
    external: str | os.PathLike[str] | None = None,
    budget: Sequence[Budget] | str = (),
    candidates: Sequence[str | os.PathLike[str]] | str = (),
    repeats: int | None = None,
) -> Evaluation:
    """Measure with a simple model how much an embedding tells about a label.

    The task says what is predicted: `classification`, one of several classes; `multilabel`, several
    columns of two classes each; `ordinal`, ordered classes; `regression`, a value; `survival`, the
    time to an event. The model of classes follows from the protocol. `svm` is the paper's for 3D: a
    linear SVM in stratified five-fold nested cross-validation, 20 % of each training part held out
    to choose C, refit on all of it. `linear` is the paper's for 2D: a linear probe (multinomial
    logistic regression) on given train and test splits, 20 % of train held out for its C; subjects
    of any other split take no part. `knn` takes the nearest neighbours, by their cosine. Values are
    predicted by ridge regression (`linear`) or a linear support vector regression (`svm`), ordered
    classes by a threshold model, survival by Cox regression with ridge; these, and `knn`, use
    given train and test splits, else cross-validation. Features are standardised on the training
    part, within three standard deviations. AUC is taken from the decision function; sensitivity and
    specificity, with two classes, at its zero.

    The controls that lie beside the embeddings, an untrained encoder and raw intensities (reduced
    by PCA inside each training part), go through the very same folds; so does the mean of the
    training part, for values. The file of raw intensities is reduced likewise where it is evaluated
    by itself.

    Args:
        embeddings: Parquet file of `vitaepp embed`; or one an outer fold, in the order of
            `plan_folds`, whose encoder was pre-trained without this fold's test subjects (the
            strict protocol), which is checked, by `participant` for other scans of these people.
        label: column to predict, or several with commas between them for `multilabel`; subjects
            where it is empty are left out. Not for survival.
        out: folder for metrics.json, predictions.parquet, map.csv, and what options add:
            external.parquet, budget.csv, repeats.csv and .parquet. A report finds it inside the
            run, or is given it.
        protocol: `svm`, `linear` or `knn`; unset, for classes `linear` where labelled subjects are
            split into train and test, else `svm`; for all others `linear`.
        seed: draws the folds and the held-out parts.
        folds: outer folds of cross-validation; at least 2.
        any_store: also where several files were embedded from stores that were prepared in
            different ways.
        positive: the class that sensitivity is of, where there are two; unset, the last in sort
            order, numbers by size and text by alphabet.
        labels: CSV, TSV or XLSX whose columns are joined to the embeddings by subject; those that
            they have already are this table's, and told where they differ.
        id_column: its column of subjects. Unset: `subject`, `subject_id`, `participant_id` or
            `patient`.
        task: see above.
        time: for survival, the column of times to the event or to the end of follow-up.
        event: for survival, the column that says whether the event was seen.
        group: a column, as of sites or scanners, whose groups no fold splits; given train and test
            splits are not used then.
        leave_one_group_out: test each group once, by models that saw none of it.
        harmonize: centre and scale the features of each group, by what its training part says; a
            group of which little or nothing is trained on is centred and scaled like the whole. Or
            `combat`: ComBat, fitted to the training part; there such a group stays as it is.
        sites: column of the groups that are harmonised where folds may split them; that of `group`
            by default, of which a tested one is never trained on.
        external: embeddings of another cohort by the same encoder, on which models of all labelled
            subjects are tested once.
        budget: numbers of labelled subjects, and `all`, as a list or as text such as
            `10,20,50,all`: models are fitted on nested draws of so many of each training part.
        candidates: files of other poolings or blocks of the same encoder, as a list or as text with
            commas; or `all` that `embed` wrote beside the embeddings with `pools`. Each training
            part chooses one together with the strength of its model, by the same held-out subjects;
            of the untrained control likewise.
        repeats: draws of the folds, with this seed and the next ones. Unset: ten where fewer than
            300 subjects are cross-validated, without candidates and groups; else one. `folds`,
            `mean` and predictions are of the first; `repeats` in metrics.json has means over all
            and the leads over the controls, with a test that several draws make sharper. Draws that
            share the subjects out alike count once.

    Returns:
        The evaluation that was written, which `compare` takes as it is. Standard deviations are
        the sample's over folds, None for one fold.

    Raises:
        EvaluationError: the file, the label, the splits or the groups do not allow the evaluation.
        SourceError: the table of labels cannot be joined.
        MissingPackageError: survival needs scikit-survival, which is not installed.

    Source:
        Prabhakar et al. 2023, section 4, "Evaluation strategy, classifier, and metrics".
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise EvaluationError(f"{out}: is a file; give a folder")
    refuse_as_results(out, "evaluation")
    one = isinstance(embeddings, str | os.PathLike)
    paths = [Path(embeddings)] if one else [Path(e) for e in embeddings]  # type: ignore[arg-type,union-attr]
    FILES.check(out, inputs=[*paths, labels, external])
    every = [embeddings_of(path) for path in paths]
    embedded = every[0]
    remedy = None if any_store else SAME_STORE
    for path, other in zip(paths, every, strict=True):
        require_alike(path, other, paths[0], embedded, remedy)
    if differences := embedded.provenance.get("unlike"):
        say(f"{paths[0]}: embedded with {', '.join(differences)} in the encoder's training")
    if progress := embedded.provenance.get("unfinished"):
        say(f"{paths[0]}: the training had not ended: {progress}")
    if labels is not None:
        embedded = with_labels(embedded, Path(labels), id_column)
    elif id_column is not None:
        raise EvaluationError("`id_column` names a column of the table `labels`; give that, too")
    if label is None and task != "survival":
        raise EvaluationError("name the column to predict as `label`")
    ordered = by_subject(embedded.table)
    target = read_target(ordered, label or "", task, positive=positive, time=time, event=event)
    shared = share_out(
        target,
        ordered,
        protocol=protocol,
        folds=folds,
        seed=seed,
        group=group,
        leave_one_group_out=leave_one_group_out,
    )
    name = target.name
    _refuse_other_label(Path(out), name)
    if not one:
        parts = shared.folds
        subjects = ordered["subject"].to_numpy()[target.rows]
        if len(paths) != len(parts):
            raise EvaluationError(
                f"{len(paths)} files of embeddings for {len(parts)} folds; give one per fold"
            )
        for path, other, part in zip(paths, every, parts, strict=True):
            refuse_leak(path, replace(other, table=embedded.table), set(subjects[part.test]))
    facts = provenance_of(every)
    controls = load_controls(paths[0], embedded)
    features: Features | Candidates | list[Features]
    features = embedded.features if one else [e.features for e in every]
    compared: dict[str, Features | Candidates] = {n: c.features for n, c in controls.items()}
    pooled = dict[str, Candidate]()
    if candidates:
        if not one:
            raise EvaluationError("`candidates` are of one encoder; here is one for each fold")
        pooled = load_candidates(paths[0], embedded, candidates)
        features = {name: candidate.embedded.features for name, candidate in pooled.items()}
        if "untrained" in controls:
            compared["untrained"] = untrained_of(pooled)
        paths = [candidate.path for candidate in pooled.values()]
        every = [candidate.embedded for candidate in pooled.values()]
    if run_around(out) != run_around(paths[0]):
        warn_outdated(out, facts, "give the folder of another evaluation")
    is_raw = embedded.provenance.get("method") == "raw"
    if is_raw and external is not None:
        raise EvaluationError(
            f"{paths[0]}: raw intensities are kept in coordinates of their own store, which mean "
            "nothing in another; leave out `external`"
        )
    cohort = None
    if external is not None:
        cohort = other_cohort(Path(external), embedded, labels, id_column, pooled)
    evaluation = evaluate_features(
        features,
        embedded.table,
        name,
        controls=compared,
        task=task,
        protocol=protocol,
        seed=seed,
        folds=folds,
        positive=positive,
        time=time,
        event=event,
        group=group,
        leave_one_group_out=leave_one_group_out,
        harmonize=harmonize,
        sites=sites,
        external=cohort,
        budget=parse_budget(budget) if isinstance(budget, str) else budget,
        repeats=repeats,
        reduce=is_raw,
        provenance=facts | {"embeddings": digests(out, paths, every)},
    )
    if labels is not None:
        evaluation.metrics["labels_from"] = Path(labels).name
    return evaluation.save(out)


def _refuse_other_label(folder: Path, label: str) -> None:
    """Refuse to write over the evaluation of another label, or over a fine-tuning."""
    try:
        there = json.loads((folder / "metrics.json").read_bytes())
        other, tuned = there["label"], "finetune" in there
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing, or nothing whole
    if tuned:
        raise EvaluationError(f"{folder}: holds a fine-tuning; give a folder of its own")
    if other != label:
        raise EvaluationError(
            f"{folder}: holds the evaluation of label {other!r}; give that of {label!r} a folder "
            f"of its own, as {folder.with_name(f'{folder.name}-{file_stem(label)}')}"
        )
