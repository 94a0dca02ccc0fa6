"""Cohorts of phantoms with and without a plant: small pictures, their store, their embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.embeddings import Embeddings
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage


def write_cohort(
    folder: Path,
    columns: dict[str, Any],
    *,
    brighter: Any = 0.0,
    gain: Any = 1.0,
    padded: Any = 0,
    seed: int = 0,
    images: Any = None,
    **embedded: Any,
) -> tuple[Path, Path]:
    """A store of noisy pictures and embeddings that see their pixels.

    Args:
        folder: for both.
        columns: of the table, label and metadata, `(subject,)` each.
        brighter: what is added to every voxel of a subject.
        gain: what the noise is multiplied by.
        padded: rows of each side that are empty.
        seed: of the noise.
        images: row of which subject's picture each has; unset, its own.
        embedded: columns of the embeddings' own table.

    Returns:
        The file of embeddings and the store.
    """
    n = len(next(iter(columns.values())))
    rng = np.random.default_rng(seed)
    brighter, gain, padded = (np.broadcast_to(v, n) for v in (brighter, gain, padded))
    pictures = 100 + 20 * gain[:, None, None] * rng.normal(size=(n, 16, 16))
    pictures += brighter[:, None, None]
    for picture, rows in zip(pictures, padded, strict=True):
        picture[: int(rows)] = picture[16 - int(rows) :] = 0
    pictures = np.clip(pictures if images is None else pictures[images], 0, 255)
    info = StoreInfo(("grey",), (16, 16), None, "float16", "image")
    table = pd.DataFrame({"subject": [f"s{i:03d}" for i in range(n)], "split": ""} | columns)
    with StoreWriter(folder / "store", info) as writer:
        for subject, picture, rows in zip(table["subject"], pictures, padded, strict=True):
            record = Record(
                subject,
                tuple(np.eye(3).ravel()),
                (0.0,),
                (255.0,),
                (f"{subject}.png",),
                subject,
                source_size=(16 - 2 * int(rows), 16),
                source_spacing=(1.0, 1.0),
            )
            stage(writer.path, info, picture[None], record)
        writer.commit(table, [])
    store = Store(folder / "store")
    # What an encoder may see: means and spreads of patches.
    patches = pictures.reshape(n, 4, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(n, 16, 16)
    features = np.hstack([patches.mean(axis=2), patches.std(axis=2)]).astype(np.float32)
    path = folder / "e.parquet"
    facts = {"images": store.fingerprint(), "method": "vitae++", "encoder": "these weights"}
    Embeddings(table.assign(**embedded), features, facts).save(path)
    return path, folder / "store"
