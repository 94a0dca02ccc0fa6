"""The files of an evaluation: embeddings, their controls and candidates, and another cohort's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.origin import PUBLIC
from vitaepp.data.participants import of_same_persons
from vitaepp.data.poolings import Pooling, pooled_beside, pooled_path
from vitaepp.data.storeinfo import StoreInfo, unlike
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.external import Cohort
from vitaepp.evaluation.folds import by_subject
from vitaepp.evaluation.question import Candidates, Features
from vitaepp.system.progress import say, warn
from vitaepp.system.text import first_few

#: What to do about features of different images.
SAME_STORE = "embed both from one store, or set `any_store`"


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of several files of the same encoder, of which each training part chooses.

    Attributes:
        path: of the file.
        embedded: what is in it.
    """

    path: Path
    embedded: Embeddings


def embeddings_of(path: Path) -> Embeddings:
    """The embeddings in a file, in the order of their subjects."""
    embedded = Embeddings.load(path)
    table = by_subject(embedded.table, f"{path}: ")
    features = embedded.features[table.index.to_numpy()]
    return replace(embedded, table=table.reset_index(drop=True), features=features)


def load_controls(path: Path, embedded: Embeddings) -> dict[str, Embeddings]:
    """The controls that lie beside a file of embeddings; missing ones are named."""
    files = {name: control_path(path, name) for name in CONTROLS}
    controls = {name: embeddings_of(file) for name, file in files.items() if file.is_file()}
    again = "embed again, which writes the controls anew"
    for name, control in controls.items():
        require_alike(files[name], control, path, embedded, again)
        if (method := control.provenance.get("method")) not in (None, name):
            raise EvaluationError(
                f"{files[name]}: has the name of a control ({CONTROLS[name]}) and holds features "
                f"of {method}; give these another name, and {again}"
            )
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
            "says nothing, `embed` writes them"
        )
    return controls


def load_candidates(
    path: Path, embedded: Embeddings, wanted: Sequence[str | os.PathLike[str]] | str
) -> dict[str, Candidate]:
    """Embeddings and those of other poolings or blocks of the same encoder, by name.

    Args:
        path: of the embeddings, the first candidate.
        embedded: what is in it.
        asked: the other files; or text with commas between them, or `all` that lie beside.

    Raises:
        EvaluationError: there are none, or one is of another encoder or of other subjects, or is
            there twice.
    """
    if wanted == "all":
        files = pooled_beside(path)
        if not files:
            raise EvaluationError(
                f"{path}: no other pooling lies beside it; embed the store with `pools`, such as "
                "`pools=mean,mean+std,cls`"
            )
    else:
        texts = wanted.split(",") if isinstance(wanted, str) else wanted
        files = [Path(text.strip() if isinstance(text, str) else text) for text in texts]
    candidates = [Candidate(path, embedded)]
    for file in files:
        other = embeddings_of(file)
        require_alike(file, other, path, embedded, SAME_STORE)
        if other.provenance.get("method") in CONTROLS:
            raise EvaluationError(f"{file}: is a control, which is no candidate; leave it out")
        encoders = [_fact(e, "encoder") for e in (other, embedded)]
        if None not in encoders and encoders[0] != encoders[1]:
            raise EvaluationError(
                f"{file}: was made by another encoder than {path.name}; candidates are poolings "
                "and blocks of one, so embed again with `pools`, or evaluate it by itself"
            )
        for one in candidates:
            if np.array_equal(one.embedded.features, other.features):
                raise EvaluationError(
                    f"{file}: has the same features as {one.path.name}; give each candidate once"
                )
        candidates.append(Candidate(file, other))
    for names in (
        [_fact(c.embedded, "pool") or c.path.stem for c in candidates],
        [c.path.name for c in candidates],
        [str(c.path) for c in candidates],
    ):
        if len(set(names)) == len(names):
            break
    return dict(zip(names, candidates, strict=True))


def untrained_of(candidates: Mapping[str, Candidate]) -> dict[str, Features]:
    """The untrained control of each candidate.

    Raises:
        EvaluationError: one has none beside it.
    """
    features = {}
    for name, candidate in candidates.items():
        file = control_path(candidate.path, "untrained")
        if not file.is_file():
            raise EvaluationError(
                f"{candidate.path}: no control {file.name} beside it, which other candidates have; "
                "embed the store with `pools`, which writes both"
            )
        control = embeddings_of(file)
        require_alike(file, control, candidate.path, candidate.embedded, SAME_STORE)
        features[name] = control.features
    return features


def other_cohort(
    path: Path,
    embedded: Embeddings,
    labels: Any,
    id_column: str | None,
    candidates: Mapping[str, Candidate],
) -> Cohort:
    """Embeddings of another cohort, which must be by the same encoder.

    Args:
        path: of their file.
        embedded: those inside.
        labels: a table of labels, or None.
        id_column: its column of subjects, as inside.
        candidates: inside; those outside lie beside the file.

    Raises:
        EvaluationError: they are of another encoder or pooling, or a candidate is missing.
    """
    other = _of_cohort(path, embedded)
    facts = [e.provenance.get("prepared") or {} for e in (other, embedded)]
    if all(facts):
        with suppress(TypeError):  # another version's
            if differences := unlike(*(StoreInfo.parse(f) for f in facts)):
                warn(f"{path}: its store was prepared with {', '.join(differences)} inside")
    if labels is not None:
        other = with_labels(other, Path(labels), id_column)
    pooled = {
        name: Candidate(file, other if file == path else _of_cohort(file, candidate.embedded))
        for name, candidate in candidates.items()
        for file in [_outside(path, candidate, candidate.embedded is embedded)]
    }
    for candidate in pooled.values():
        require_alike(candidate.path, candidate.embedded, path, other, SAME_STORE)
    features: Features | Candidates = other.features
    controls: dict[str, Features | Candidates] = {}
    # Raw intensities are kept as coordinates of their own store, which mean nothing in another.
    if control_path(path, "untrained").is_file():
        controls["untrained"] = embeddings_of(control_path(path, "untrained")).features
    if pooled:
        features = {name: candidate.embedded.features for name, candidate in pooled.items()}
        controls = {name: untrained_of(pooled) for name in controls}
    say(f"raw intensities are no control outside: {path.name} has them in other coordinates")
    return Cohort(features, other.table, controls, path.stem)


def _of_cohort(path: Path, inside: Embeddings) -> Embeddings:
    """Embeddings of other subjects, by the encoder and the pooling of those inside."""
    other = embeddings_of(path)
    encoders, pools = ([_fact(e, of) for e in (other, inside)] for of in ("encoder", "pool"))
    if None not in encoders and encoders[0] != encoders[1]:
        raise EvaluationError(
            f"{path}: was made by another encoder; embed the external store with the same run"
        )
    if None not in pools and pools[0] != pools[1]:
        raise EvaluationError(
            f"{path}: is pooled as {pools[0]}, but {pools[1]} inside; give the file that is pooled "
            "alike"
        )
    return other


def _outside(path: Path, candidate: Candidate, first: bool) -> Path:
    """Where a candidate lies beside the embeddings of another cohort."""
    if first:
        return path
    pooling = _fact(candidate.embedded, "pool")
    file = path if pooling is None else pooled_path(path, pooling)
    if pooling is None or not file.is_file():
        raise EvaluationError(
            f"{path}: {candidate.path.name} is a candidate inside, and none like it lies beside; "
            "embed both stores with the same `pools`"
        )
    return file


def _fact(embedded: Embeddings, name: str) -> str | None:
    """A fact of embeddings: their `encoder`, or their `pool` with its block; None if not known."""
    value = embedded.provenance.get(name)
    if value is None or name != "pool":
        return value
    return str(Pooling(value, embedded.provenance.get("block")))


def with_labels(embedded: Embeddings, labels: Path, id_column: str | None) -> Embeddings:
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


def refuse_leak(path: Path, embedded: Embeddings, tested: set[str]) -> None:
    """Refuse embeddings whose encoder was pre-trained on subjects that they are tested on.

    Args:
        path: of their file.
        embedded: those inside; participants in their table tell which subjects are one person.
        tested: subjects, of whose people no scan may have been trained on.
    """
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
    if others := of_same_persons(embedded.table, tested) & set(trained):
        raise EvaluationError(
            f"{path}: its encoder was pre-trained on other scans of people whom its fold tests "
            f"({first_few(sorted(others))}); pre-train it without them"
        )


def require_alike(
    path: Path, embedded: Embeddings, first_path: Path, first: Embeddings, remedy: str | None
) -> None:
    """Refuse features of other subjects and, with a remedy, of other images, as far as is known."""
    if list(embedded.table["subject"]) != list(first.table["subject"]):
        raise EvaluationError(f"{path}: holds other subjects than {first_path.name}; embed again")
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


def provenance_of(every: Sequence[Embeddings]) -> dict[str, Any]:
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
