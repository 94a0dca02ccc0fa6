"""Shared by all tests: checked shapes, small stores, real data where it is."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vitaepp.data.store import Record, Store, StoreWriter, stage
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.system.progress import messages_on_stderr

MakeStore = Callable[..., Store]


@pytest.fixture(autouse=True, scope="session")
def _messages() -> Iterator[None]:
    """Messages are on standard error, although pytest sets up a logging of its own."""
    with messages_on_stderr():
        yield


def write_store(
    path: Path,
    subjects: int = 8,
    size: tuple[int, ...] = (16, 16, 16),
    modalities: tuple[str, ...] = ("t1", "t2"),
    splits: bool = False,
) -> Store:
    """Make a store of smooth random images whose label `bright` they carry."""
    rng = np.random.default_rng(0)
    spacing = (1.0,) * len(size)
    info = StoreInfo(modalities, size, spacing, "float16", "image")
    labels = pd.DataFrame(
        {
            "subject": [f"s{i:03d}" for i in range(subjects)],
            "split": [
                "test" if splits and i % 4 == 3 else "train" * splits for i in range(subjects)
            ],
            "bright": [i % 2 for i in range(subjects)],
        }
    )
    with StoreWriter(path, info) as writer:
        for i, subject in enumerate(labels.subject):
            ramp = sum(np.meshgrid(*(np.linspace(0, 60, n) for n in size), indexing="ij"))
            image = ramp + rng.normal(0, 5, info.shape) + 40 * (i % 2)
            affine = tuple(np.eye(len(size) + 1).ravel())
            zeros, tops = (0.0,) * len(modalities), (255.0,) * len(modalities)
            record = Record(subject, affine, zeros, tops, modalities, "x")
            stage(writer.path, info, image.clip(0, 255), record)
        writer.commit(labels, [])
    return Store(path)


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """`write_store` into the test's own folder."""

    def make(*args: Any, name: str = "store", **options: Any) -> Store:
        return write_store(tmp_path / name, *args, **options)

    return make


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("VITAEPP_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VITAEPP_DATA")
    return folder


#: A recipe that trains in seconds.
TINY = (
    "model.embed_dim=48",
    "model.depth=2",
    "model.num_heads=4",
    "model.decoder_embed_dim=48",
    "model.decoder_depth=1",
    "model.decoder_num_heads=4",
    "model.patch_size=8",
    "loss.perceptual.weights=random",
    "loss.perceptual.slices=1",
    "optim.epochs=3",
    "optim.batch_size=4",
)
