"""Pictures whose class is a bright patch, a classifier of them, and volumes with lesions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import encoder_like
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.downstream.fit import fit
from vitaepp.encoder.embed import embed

#: The patch that tells the classes apart, of 4 × 4.
PLANTED = 6

#: Of the crops in the scan's space: turned and shifted, so that a lost affine would show.
AFFINE = np.array([[0, -2, 0, 7], [2, 0, 0, -3], [0, 0, 2, 11], [0, 0, 0, 1.0]])


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, `encoder`, `e.parquet` and `model`; one patch makes the class."""
    root = tmp_path_factory.mktemp("planted")
    info = StoreInfo(("grey",), (32, 32), None, "uint8", "image")
    random, row, column = np.random.default_rng(0), PLANTED // 4 * 8, PLANTED % 4 * 8
    labels = pd.DataFrame({"subject": [f"p{i:02d}" for i in range(24)], "split": ""})
    labels["bright"] = np.arange(24) % 2
    with StoreWriter(root / "store", info) as writer:
        for i, subject in enumerate(labels["subject"]):
            image = random.integers(80, 120, info.shape).astype(float)
            # Stripes along either axis: the whole image has one mean and deviation in both classes,
            # which a brighter patch would change, and with them every standardised patch.
            stripes = np.tile(np.where(np.arange(8) % 2, 200.0, 0.0), (8, 1))
            stripes = stripes if i % 2 else stripes.T
            image[:, row : row + 8, column : column + 8] = stripes
            _stage(writer, info, image, subject)
        writer.commit(labels, [])
    encoder_like(Store(root / "store")).save(root / "encoder")
    embed(root / "encoder", root / "store", root / "e.parquet")
    fit(root / "e.parquet", "bright", root / "model", run=root / "encoder", folds=2)
    return root


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, of four volumes of two modalities with masks, and `encoder`."""
    root = tmp_path_factory.mktemp("volumes")
    info = StoreInfo(("t1", "t2"), (16, 24, 16), (2.0,) * 3, "float16", "mask", masks=True)
    random = np.random.default_rng(0)
    with StoreWriter(root / "store", info) as writer:
        for i in range(4):
            mask = np.zeros(info.size, np.uint8)
            mask[8:, 8:16, :8] = i < 3  # the last subject's is empty
            image = random.uniform(0, 120, info.shape) + 100 * mask
            _stage(writer, info, image, f"v{i}", mask, AFFINE)
        writer.commit(pd.DataFrame({"subject": [f"v{i}" for i in range(4)], "split": ""}), [])
    encoder_like(Store(root / "store")).save(root / "encoder")
    return root


def _stage(writer, info, image, subject, mask=None, affine=None):
    zeros, tops = (0.0,) * len(info.modalities), (255.0,) * len(info.modalities)
    grid = tuple(map(float, np.ravel(np.eye(3) if affine is None else affine)))
    record = Record(subject, grid, zeros, tops, info.modalities, subject)
    stage(writer.path, info, image.clip(0, 255), record, mask)
