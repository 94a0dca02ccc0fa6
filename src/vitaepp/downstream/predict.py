"""Predict a label of new patients' scans."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.store import Store
from vitaepp.data.storeinfo import unlike
from vitaepp.data.storetable import Failure
from vitaepp.downstream.model import Model
from vitaepp.encoder.fits import check_fits
from vitaepp.errors import ModelError, SourceError
from vitaepp.ingest.new_scans import (
    NewImage,
    Scan,
    Spacing,
    decisions_in,
    images_of,
    say_decisions,
)
from vitaepp.presentation.notebook import Tabular
from vitaepp.system.files import check_replaces, columns_in, together, write_text
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import counted, say

#: Above this percentile, a scan is said to be unlike the cohort.
FAR = 99.0


@dataclass(frozen=True, eq=False)
class Predictions(Tabular):
    """What a model predicts of new subjects.

    Attributes:
        table: a row a subject: `subject`, the probability of each class, and `percentile`: the
            share of the model's cohort that is nearer to the rest of it than the subject is, in %.
        label: what is predicted.
        notes: of each row, what makes it doubtful; empty for most.
        failures: subjects that could not be prepared, each with its reason.
    """

    table: pd.DataFrame
    label: str
    notes: tuple[str, ...]
    failures: tuple[Failure, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The table, with `notes`: a row a subject."""
        return self.table.assign(notes=list(self.notes))

    def doubtful(self) -> pd.DataFrame:
        """The rows that have notes: `subject` and `notes`."""
        noted = self.to_frame()[["subject", "notes"]]
        return noted[noted["notes"] != ""]

    def __str__(self) -> str:
        lines = []
        rows = self.table.itertuples(index=False)
        for (subject, *probabilities, percentile), notes in zip(rows, self.notes, strict=True):
            best = int(np.argmax(probabilities))
            doubts = f"; {notes}" * bool(notes)
            lines.append(
                f"{subject}: {self.label} {self.table.columns[1 + best]} "
                f"({probabilities[best]:.2f}), distance at percentile {percentile:.0f}{doubts}"
            )
        return "\n".join(lines)


def predict(
    model: str | os.PathLike[str] | Model,
    scans: Scan | Sequence[Scan],
    out: str | os.PathLike[str] | None = None,
    *,
    spacing: Spacing | None = None,
    device: str | None = None,
) -> Predictions:
    """Predict the label of scans, and say how far each is from the cohort of the model.

    Scans are prepared like those that the model was fitted on, by the code of `prepare`.

    Args:
        model: folder of `vitaepp fit`, or what it returned.
        scans: what to predict. A path is a scan, a folder of a subject's DICOM files, a manifest,
            or anything else that `prepare` reads, of one subject or several; or a store. Arrays
            and mappings are as in `Encoder.embed_files`.
        out: CSV file to write: `subject`, the probability of each class, `percentile`. Where
            something makes rows doubtful, a file beside it with `.notes` in its name says what.
        spacing: of arrays, as in `Encoder.embed_files`.
        device: where to compute; an accelerator if there is one by default.

    Returns:
        The table that was written, and the subjects that could not be prepared.

    Raises:
        ModelError: the model cannot be read, or two subjects have one name.
        SourceError: scans are of another kind than the model's, or none can be read.
        RunError: a store was prepared unlike the images that the model was fitted on.
    """
    model = model if isinstance(model, Model) else Model.load(model)
    each: list[Any] = [scans]
    if isinstance(scans, Sequence) and not isinstance(scans, str):
        each = list(scans)
    if out is not None:
        check_replaces(out, "table of predictions", _is_own)
        check_replaces(_beside(Path(out)), "table of notes on predictions", _is_notes)
    subjects: list[str] = []
    decisions: list[tuple[str, ...]] = []
    failures: list[Failure] = []
    features_of_each: list[npt.NDArray[np.float32]] = []
    rest = []
    for i, scan in enumerate(each):
        if isinstance(scan, str | os.PathLike) and kind_of(scan) == "store":
            store = Store(scan)
            subjects += map(str, store.table["subject"])
            features_of_each.append(_of_store(model, store, device))
            decisions += decisions_in(store, model.prepared.modalities)
        else:
            rest.append((f"scan {i}", scan))
    origins: list[tuple[str, Any]] = []

    def images() -> Iterator[npt.NDArray[Any]]:
        for scan, one in images_of(model.prepared, rest, spacing, "predicting"):
            if isinstance(one, NewImage):
                decisions.append(one.decisions)
                origins.append((one.subject, scan))
                yield one.image
            else:
                failures.append(one)

    if rest:
        features_of_each.append(
            model.encoder.embed_images(
                images(),
                modalities=model.prepared.modalities,
                device=device,
                precision=model.precision,
            )
        )
    subjects += _names(origins)
    say_decisions(decisions, len(decisions))
    reasons = [f"{failure.subject}: {failure.reason}" for failure in failures]
    if not subjects and len(reasons) == 1:
        raise SourceError(reasons[0])
    for reason in reasons:
        say(reason)
    if not subjects:
        raise SourceError(f"none of {counted(len(failures), 'scan')} can be read")
    twice = {s for s in subjects if subjects.count(s) > 1}
    if twice:
        raise SourceError(f"subject {min(twice)} is given twice; give each subject once")
    features = np.concatenate(features_of_each)
    if not np.isfinite(features).all():
        raise ModelError("features are not finite; the encoder must have gone out of bounds")
    table = pd.DataFrame(model.probabilities(features), columns=[str(c) for c in model.classes])
    table.insert(0, "subject", subjects)
    table["percentile"] = model.percentiles(features)
    far = table["percentile"] > FAR
    notes = tuple(
        "; ".join(["unlike the training cohort"] * is_far + list(dict.fromkeys(own)))
        for is_far, own in zip(far, decisions, strict=True)
    )
    if far.any():
        say(
            f"{far.sum()} of {counted(len(table), 'scan')}: farther from the training cohort than "
            f"{FAR:.0f} % of the cohort itself; what is predicted of it may mean nothing"
        )
    predictions = Predictions(table, model.label, notes, tuple(failures))
    if out is not None:
        _write(predictions, Path(out))
    return predictions


def _write(predictions: Predictions, out: Path) -> None:
    """Write the table, and before it what makes rows doubtful; of an earlier call none is left."""
    beside, doubtful = _beside(out), predictions.doubtful()
    with together(out.parent, out.name, optional=[beside.name]) as staged:
        if not doubtful.empty:
            write_text(staged / beside.name, doubtful.to_csv(index=False))
        write_text(staged / out.name, predictions.table.to_csv(index=False))
    if not doubtful.empty:
        say(f"{beside}: what makes {counted(len(doubtful), 'row')} of {out.name} doubtful")


def _beside(out: Path) -> Path:
    """Where the notes on predictions are."""
    return out.with_name(f"{out.stem}.notes{out.suffix}")


def _is_own(path: Path) -> bool:
    return {"subject", "percentile"} <= set(columns_in(path))


def _is_notes(path: Path) -> bool:
    return {"subject", "notes"} <= set(columns_in(path))


def _of_store(model: Model, store: Store, device: str | None) -> npt.NDArray[np.float32]:
    check_fits(model.encoder.config, store)
    if differences := unlike(store.info, model.prepared):
        raise ModelError(
            f"{store.path}: {', '.join(differences)} in the images that the model was fitted on; "
            "give the scans themselves, or prepare them with the model's encoder as `recipe`"
        )
    return model.encoder.embed(store, device=device, precision=model.precision, any_store=True)


def _names(origins: Sequence[tuple[str, Any]]) -> list[str]:
    """The name of each subject; where several have one, their paths."""
    names = [name for name, _ in origins]
    return [
        Path(scan).as_posix()
        if names.count(name) > 1 and isinstance(scan, str | os.PathLike)
        else name
        for name, scan in origins
    ]
