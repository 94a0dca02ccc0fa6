"""What neighbours are looked for: new scans, and the store with the images of the cohort."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitaepp.data.embeddings import Embeddings
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Failure
from vitaepp.downstream.fit import encoder_of, near
from vitaepp.errors import EvaluationError, SourceError, VitaeppError
from vitaepp.ingest.new_scans import NewImage, images_of, say_decisions
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.urls import Location


@dataclass(frozen=True, eq=False)
class NewScans:
    """New scans: their names, images, what they have of the modalities, and features."""

    names: list[str]
    images: list[npt.NDArray[Any]]
    present: list[list[bool]]
    notes: list[tuple[str, ...]]
    features: npt.NDArray[np.float32]
    failures: tuple[Failure, ...]


def new_scans(
    embedded: Embeddings,
    path: Path,
    query: Any,
    run: str | os.PathLike[str] | None,
    device: str | None,
) -> NewScans:
    """New scans, prepared and embedded as the cohort's were.

    Args:
        embedded: the cohort.
        path: of its file, beside which the encoder is looked for.
        query: a scan or several, as in `neighbours`.
        run: run or encoder folder; it need not be beside the embeddings.
        device: where to embed.

    Raises:
        SourceError: scans are of another kind than the cohort's, or none can be read.
        RunError: the encoder of the embeddings is not found.
    """
    one = isinstance(query, str | os.PathLike | Mapping | np.ndarray)
    scans = [query] if one else list(query)
    encoder = encoder_of(embedded, path, None if run is None else Path(run))
    prepared = StoreInfo.parse(embedded.provenance["prepared"] | {"masks": None})
    images: list[NewImage] = []
    failures: list[Failure] = []
    for scan in scans:
        if isinstance(scan, str | os.PathLike) and kind_of(scan) == "store":
            raise SourceError(f"{scan}: is a store; give scans, or embed the store")
    named = [(f"scan {i}", scan) for i, scan in enumerate(scans)]
    for _, image in images_of(prepared, named, None, "reading"):
        if isinstance(image, NewImage):
            images.append(image)
        else:
            failures.append(image)
    if not images:
        first = f"{failures[0].subject}: {failures[0].reason}"
        if len(failures) > 1:
            first = f"none of {len(failures)} scans can be read; the first is {first}"
        raise SourceError(first)
    for failure in failures:
        say(f"{failure.subject}: {failure.reason}")
    notes = [image.decisions for image in images]
    say_decisions(notes, len(images))
    features = encoder.embed_images(
        (image.image for image in images),
        modalities=prepared.modalities,
        device=device,
        precision=embedded.provenance["precision"],
    )
    names = [image.subject for image in images]
    names = [
        name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)
    ]
    present = [[m not in image.missing for m in prepared.modalities] for image in images]
    return NewScans(names, [i.image for i in images], present, notes, features, tuple(failures))


def store_of(embedded: Embeddings, path: Path, given: Location | None) -> Store | None:
    """The store with the images of embeddings; None where it is not found.

    Raises:
        StoreError: the one that is named is none.
        EvaluationError: it lacks a subject.
    """
    images = embedded.provenance.get("images")
    if given is None:
        name = str(embedded.provenance.get("store") or "")
        for folder in near(path.absolute().parent, name):
            if kind_of(folder) == "store":
                try:
                    store = Store(folder)
                except VitaeppError:
                    continue
                if store.fingerprint() == images:
                    return store
        say(
            f"{path}: the store{f' {name!r}' if name else ''} it was made of is not beside it: "
            "there are no pictures; name its folder with `store`"
        )
        return None
    store = Store(given)
    lacking = set(embedded.table["subject"].astype(str)) - set(store.table["subject"].astype(str))
    if lacking:
        raise EvaluationError(
            f"{store.path}: has no subject {min(lacking)} ({len(lacking)} of "
            f"{counted(len(embedded), 'subject')} are not there); name the store that was embedded"
        )
    if images not in (None, store.fingerprint()):
        warn(f"{store.path}: holds other images than those that were embedded; embed it again")
    return store
