"""Files that make a folder a store: `store.json` and `table.parquet`."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa

from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import ADDED_LATER, RESERVED_COLUMNS
from vitaepp.errors import StoreError, StoreNotFoundError
from vitaepp.system.paths import instead_of
from vitaepp.system.storage import Folder, folder_at
from vitaepp.system.urls import Location

#: Of `store.json`.
FORMAT = 1

#: What helps where `prepare` cannot mend a store.
ANEW = "prepare its source into a new folder, or delete this one and prepare it again"


def read_info(folder: Folder) -> StoreInfo:
    """What the images of a store are.

    Raises:
        StoreNotFoundError: the folder is no store.
        StoreError: its store.json is damaged, or of another version.
    """
    if not folder.exists("store.json"):
        raise StoreNotFoundError(f"{folder}: {instead_of('store', str(folder))}")
    try:
        values = json.loads(folder.read("store.json"))
        info = StoreInfo.parse(values) if values.pop("format") == FORMAT else None
        if info is not None:
            # What is no type, size or spacing is an error here, rather than anywhere later.
            _ = np.dtype(info.dtype), *map(int, info.size), *map(float, info.spacing or ())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{folder}: store.json is damaged or not ours; {ANEW}") from None
    if info is None:
        raise StoreError(f"{folder}: made by another version of vitaepp; {ANEW}")
    return info


def stored_info(path: Location) -> StoreInfo | None:
    """What a store that was begun holds, or None where there is none.

    Raises:
        StoreError: its store.json is damaged.
    """
    folder = folder_at(path)
    return read_info(folder) if folder.exists("store.json") else None


def read_table(folder: Folder) -> pd.DataFrame:
    """A store's table.

    Raises:
        StoreError: it is damaged, or not a store's.
    """
    try:
        table = pd.read_parquet(io.BytesIO(folder.read("table.parquet")))
        present = {*table.columns}
    except (pa.ArrowException, ValueError):
        present = set()
    needed = [c for c in RESERVED_COLUMNS if c not in ADDED_LATER]
    if not present.issuperset(needed):
        raise StoreError(f"{folder}: table.parquet is damaged or not ours; {ANEW}")
    return table
