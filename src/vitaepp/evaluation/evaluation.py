"""Evaluate embeddings from file to file: read them, their controls and labels, and check them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.origin import PUBLIC, run_around, warn_outdated
from vitaepp.data.storeinfo import StoreInfo, unlike
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.budget import Budget, parse_budget
from vitaepp.evaluation.external import Cohort
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import by_subject, share_out
from vitaepp.evaluation.origin import digests
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks import read_target
from vitaepp.system.files import check_writable, file_stem
from vitaepp.system.progress import counted, say, warn


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
    harmonize: bool = False,
    external: str | os.PathLike[str] | None = None,
    budget: Sequence[Budget] | str = (),
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
    part. AUC is taken from the decision function; sensitivity and specificity, with two classes, at
    its zero.

    The controls that lie beside the embeddings, an untrained encoder and raw intensities (reduced
    by PCA inside each training part), go through the very same folds; so does the mean of the
    training part, for values.

    Args:
        embeddings: Parquet file of `vitaepp embed`; or one an outer fold, in the order of
            `plan_folds`, whose encoder was pre-trained without this fold's test subjects (the
            strict protocol), which is checked.
        label: column to predict, or several with commas between them for `multilabel`; subjects
            where it is empty are left out. Not for survival.
        out: folder for metrics.json, predictions.parquet, map.csv, and what options add:
            external.parquet, budget.csv. A report finds it inside the run, or is given it.
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
            group of which little or nothing is trained on is centred and scaled like the whole.
        external: embeddings of another cohort by the same encoder, on which models of all labelled
            subjects are tested once.
        budget: numbers of labelled subjects, and `all`, as a list or as text such as
            `10,20,50,all`: models are fitted on nested draws of so many of each training part.

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
    one = isinstance(embeddings, str | os.PathLike)
    paths = [Path(embeddings)] if one else [Path(e) for e in embeddings]  # type: ignore[arg-type,union-attr]
    every = [_by_subject(path) for path in paths]
    embedded = every[0]
    remedy = None if any_store else "embed both from one store, or set `any_store`"
    for path, other in zip(paths, every, strict=True):
        _require_alike(path, other, paths[0], embedded, remedy)
    if differences := embedded.provenance.get("unlike"):
        say(f"{paths[0]}: embedded with {', '.join(differences)} in the encoder's training")
    if progress := embedded.provenance.get("unfinished"):
        say(f"{paths[0]}: the training had not ended: {progress}")
    if labels is not None:
        embedded = _with_labels(embedded, Path(labels), id_column)
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
            _refuse_leak(path, other, set(subjects[part.test]))
    controls = _load_controls(paths[0], embedded)
    check_writable(Path(out) / "metrics.json")
    if run_around(out) != run_around(paths[0]):
        warn_outdated(out, _provenance(every), "give the folder of another evaluation")
    evaluation = evaluate_features(
        embedded.features if one else [e.features for e in every],
        embedded.table,
        name,
        controls={name: control.features for name, control in controls.items()},
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
        external=None if external is None else _other_cohort(Path(external), embedded, labels),
        budget=parse_budget(budget) if isinstance(budget, str) else budget,
        provenance=_provenance(every) | {"embeddings": digests(out, paths, every)},
    )
    if labels is not None:
        evaluation.metrics["labels_from"] = Path(labels).name
    return evaluation.save(out)


def _by_subject(path: Path) -> Embeddings:
    """The embeddings in a file, in the order of their subjects."""
    embedded = Embeddings.load(path)
    table = by_subject(embedded.table, f"{path}: ")
    features = embedded.features[table.index.to_numpy()]
    return replace(embedded, table=table.reset_index(drop=True), features=features)


def _load_controls(path: Path, embedded: Embeddings) -> dict[str, Embeddings]:
    """The controls that lie beside a file of embeddings; missing ones are named."""
    files = {name: control_path(path, name) for name in CONTROLS}
    controls = {name: _by_subject(file) for name, file in files.items() if file.is_file()}
    again = "embed again, which writes the controls anew"
    for name, control in controls.items():
        _require_alike(files[name], control, path, embedded, again)
        encoders = [e.provenance.get("encoder") for e in (control, embedded)]
        if name == "untrained" and None not in encoders and encoders[0] != encoders[1]:
            raise EvaluationError(
                f"{files[name]}: was made with another encoder than {path.name}; {again}"
            )
    # Nobody trained a public encoder from an untrained one here.
    wanted = ["raw"] if embedded.provenance.get("method") == PUBLIC else list(CONTROLS)
    missing = [CONTROLS[name] for name in wanted if name not in controls]
    if missing:
        say(
            f"no control beside {path}: {' and '.join(missing)}; a number without its controls "
            "says nothing, vitaepp embed writes them"
        )
    return controls


def _other_cohort(path: Path, embedded: Embeddings, labels: Any) -> Cohort:
    """Embeddings of another cohort, which must be by the same encoder."""
    other = _by_subject(path)
    encoders = [e.provenance.get("encoder") for e in (other, embedded)]
    if None not in encoders and encoders[0] != encoders[1]:
        raise EvaluationError(
            f"{path}: was made by another encoder; embed the external store with the same run"
        )
    if both := set(other.table["subject"]) & set(embedded.table["subject"]):
        warn(
            f"{path}: {counted(len(both), 'subject')} have the name of a subject inside, such as "
            f"{min(both)}; if they are the same people, this is no external test"
        )
    facts = [e.provenance.get("prepared") or {} for e in (other, embedded)]
    if all(facts):
        with suppress(TypeError):  # another version's
            if differences := unlike(*(StoreInfo.parse(f) for f in facts)):
                warn(f"{path}: its store was prepared with {', '.join(differences)} inside")
    if labels is not None:
        other = _with_labels(other, Path(labels), None)
    # Raw intensities are kept as coordinates of their own store, which mean nothing in another.
    untrained = control_path(path, "untrained")
    controls = {"untrained": _by_subject(untrained).features} if untrained.is_file() else {}
    say(f"raw intensities are no control outside: {path.name} has them in other coordinates")
    return Cohort(other.features, other.table, controls, path.stem)


def _with_labels(embedded: Embeddings, labels: Path, id_column: str | None) -> Embeddings:
    """Embeddings with the columns of a label table, by subject."""
    from vitaepp.data.labels import join_labels, say_missing

    table, without = join_labels(
        embedded.table,
        labels,
        id_column=id_column,
        origin="the embeddings",
        replacing=True,
    )
    say_missing(labels.name, without, len(table))
    return replace(embedded, table=table)


def _refuse_other_label(folder: Path, label: str) -> None:
    """Refuse to write over the evaluation of another label."""
    try:
        there = json.loads((folder / "metrics.json").read_bytes())["label"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # nothing, or nothing whole
    if there != label:
        raise EvaluationError(
            f"{folder}: holds the evaluation of label {there!r}; give that of {label!r} a folder "
            f"of its own, as {folder.with_name(f'{folder.name}-{file_stem(label)}')}"
        )


def _refuse_leak(path: Path, embedded: Embeddings, tested: set[Any]) -> None:
    """Refuse embeddings whose encoder was pre-trained on subjects that they are tested on."""
    if "pretrained_on" not in embedded.provenance:
        say(
            f"{path}: does not tell which subjects its encoder was pre-trained on; see to it that "
            "its fold's test subjects are not among them"
        )
        return
    trained = embedded.provenance["pretrained_on"]
    if trained is None or tested & set(trained):
        raise EvaluationError(
            f"{path}: its encoder was pre-trained on subjects that its fold tests; pre-train it "
            "on the fold's training part only"
        )


def _require_alike(
    path: Path, embedded: Embeddings, first_path: Path, first: Embeddings, remedy: str | None
) -> None:
    """Refuse features of other subjects and, with a remedy, of other images, as far as is known."""
    if list(embedded.table["subject"]) != list(first.table["subject"]):
        raise EvaluationError(
            f"{path}: holds other subjects than {first_path.name}; run vitaepp embed again"
        )
    if remedy is None:
        return
    facts = [e.provenance.get("prepared") or {} for e in (embedded, first)]
    source = ""
    if all(facts):
        with suppress(TypeError):  # another version's
            source = ", ".join(unlike(*(StoreInfo.parse(f) for f in facts)))
    if source:
        source = f"a store with {source} in that of {first_path.name}"
    images = [e.provenance.get("images") for e in (embedded, first)]
    if not source and None not in images and images[0] != images[1]:
        source = f"other images than {first_path.name}"
    if source:
        raise EvaluationError(f"{path}: was embedded from {source}; {remedy}")


def _provenance(every: Sequence[Embeddings]) -> dict[str, Any]:
    """Where the embeddings come from: of several, the run and the encoder of each fold.

    Run and store by name: results are passed on, and where folders lay is nobody's business. An
    older version's embeddings have paths. Lists of subjects stay with the embeddings.
    """
    folders = ("run", "store")
    facts = [
        {
            k: Path(v).name if k in folders else v
            for k, v in one.provenance.items()
            if k != "pretrained_on"
        }
        for one in every
    ]
    if len(facts) == 1:
        return facts[0]
    return facts[0] | {name: [one.get(name) for one in facts] for name in ("run", "encoder")}
