"""The encoder as a transformer of scikit-learn, for pipelines and searches.

Example:
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> features = ViTAEFeatures("run")
    >>> pipeline = make_pipeline(features, StandardScaler(), LogisticRegression())
    >>> pipeline.fit(paths, grades).predict(new_paths)         # doctest: +SKIP
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin

from vitaepp.data.runfolder import weights_id
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError


class ViTAEFeatures(TransformerMixin, BaseEstimator):
    """Turns scans into features with a trained encoder; fitting it learns nothing.

    What it takes is one of:

    - scans, as in `Encoder.embed_files`: a list of paths, arrays, or mappings of modalities;
    - images as a store holds them: one array `(image, channel, *space)` of intensities in [0, 255];
    - with `store`, its subjects: names, or row numbers.

    A search embeds the same scans for every fold and every candidate. Where that takes long, embed
    them once and search on the features.

    Args:
        encoder: a run, the folder of an encoder, or an `Encoder`.
        store: prepared store whose subjects are given.
        spacing: of arrays, as in `Encoder.embed_files`.
        batch_size: images at a time; chosen by their size by default.
        device: where to compute; an accelerator if there is one by default.
        precision: other than the encoder's own.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        store: str | os.PathLike[str] | None = None,
        spacing: Any = None,
        batch_size: int | None = None,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.spacing = spacing
        self.batch_size = batch_size
        self.device = device
        self.precision = precision

    def fit(self, X: Any, y: Any = None) -> ViTAEFeatures:
        """Check that there is such an encoder; the scans are not read."""
        self._opened()
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:
        """Features, `(scan, feature)`.

        Raises:
            VitaeppError: as of `Encoder.embed_files`, or the store has no such subject.
        """
        encoder = self._opened()
        how = {name: getattr(self, name) for name in ("batch_size", "device", "precision")}
        if self.store is not None:
            store = Store(self.store)
            return encoder.embed(store, _rows(store, X), **how)
        prepared = np.asarray(X) if not isinstance(X, list | tuple) else None
        axes = 2 + len(encoder.config.shape["image_size"])
        if prepared is not None and prepared.dtype.kind in "biuf" and prepared.ndim == axes:
            return encoder.embed_images(prepared, **how)
        return encoder.embed_files(list(X), spacing=self.spacing, **how)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """`f0 … fD-1`, as in files of embeddings."""
        return np.array([f"f{i}" for i in range(self._opened().dim)], object)

    def _opened(self) -> Encoder:
        if isinstance(self.encoder, Encoder):
            return self.encoder
        return _loaded(Path(self.encoder), weights_id(self.encoder))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


@lru_cache(maxsize=2)
def _loaded(path: Path, _weights: str | None) -> Encoder:
    """The encoder in a folder, which clones of a search share while its weights are the same."""
    return Encoder.from_pretrained(path)


def _rows(store: Store, subjects: Any) -> list[int]:
    """The rows of a store that are meant, by their numbers or by the names of subjects."""
    given = np.asarray(subjects)
    given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if given.ndim == 1 and given.dtype.kind in "iu":
        rows, outside = given, (given < 0) | (given >= len(store))
    elif given.ndim == 1:
        row_of = {str(subject): row for row, subject in enumerate(store.table["subject"])}
        rows = np.array([row_of.get(str(subject), -1) for subject in given], int)
        outside = rows < 0
    else:
        raise RunError(f"subjects of shape {given.shape}; give a list of names, or of row numbers")
    if outside.any():
        raise RunError(f"{store.path}: has no subject {given[outside.argmax()]}")
    return [int(row) for row in rows]
