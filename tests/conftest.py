"""Shared by all tests: checked shapes, small stores, real data where it is."""

import multiprocessing.util
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.encoder.embed import embed
from vitaepp.encoder.model import Encoder
from vitaepp.evaluation import budget, choice, classifier, repeats, thresholds
from vitaepp.ingest.prepare import prepare
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.progress import messages_on_stderr

# Made once, and kept: tests that have a folder of temporary files of their own would have the
# sockets of processes in it, at a path that is too long for a socket.
multiprocessing.util.get_temp_dir()

MakeStore = Callable[..., Store]


@pytest.fixture(autouse=True, scope="session")
def _messages() -> Iterator[None]:
    """Messages are on standard error, although pytest sets up a logging of its own."""
    with messages_on_stderr():
        yield


@pytest.fixture(autouse=True, scope="session")
def _maps() -> Iterator[None]:
    """t-SNE has its own test; elsewhere its seconds would measure nothing."""

    def made_up(features: Any, seed: int) -> tuple[Any, str]:
        return np.random.default_rng(seed).normal(size=(len(features), 2)), "made up"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitaepp.evaluation.features.embedding_map", made_up)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks() -> Iterator[None]:
    """No test takes the power away; thousands of files would be waited for, 5 ms each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


#: How often training rows are held out, to choose a strength and to find thresholds, and labels are
#: drawn for a budget; and the strengths.
USUAL = choice.DRAWS, thresholds.INNER_FOLDS, budget.DRAWS, dict(classifier.GRID)
FEW = 1, 2, 2, {name: grid[::2] for name, grid in classifier.GRID.items()}


def _hold_out(
    patch: pytest.MonkeyPatch,
    draws: int,
    folds: int,
    of_budget: int,
    grid: Mapping[str, tuple[float, ...]],
) -> None:
    patch.setattr(choice, "DRAWS", draws)
    patch.setattr(thresholds, "INNER_FOLDS", folds)
    patch.setattr(budget, "DRAWS", of_budget)
    for name, strengths in grid.items():
        patch.setitem(classifier.GRID, name, strengths)


@pytest.fixture(autouse=True, scope="session")
def _few_draws() -> Iterator[None]:
    """Evaluations hold out as little as they can: three quarters of what they cost."""
    with pytest.MonkeyPatch.context() as patch:
        _hold_out(patch, *FEW)
        patch.setattr(repeats, "USUAL", 2)
        yield


@pytest.fixture
def every_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations hold out as often as they do for users, where that is the subject."""
    _hold_out(monkeypatch, *USUAL)


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


@pytest.fixture(scope="session")
def transformers() -> Any:
    """Hugging Face's library, which takes seconds to import and talks much."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("transformers")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


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


#: The same without the perceptual loss, which is half the time, where what is trained is no matter.
LIGHT = (*TINY, "loss.perceptual.weight=0")


def encoder_like(store: Store) -> Encoder:
    """An untrained encoder that knows how its store was prepared, as a trained one does."""
    encoder = Encoder.untrained(Recipe.load(settings=(*TINY, "trainer.precision=32")), store.info)
    encoder.config = replace(encoder.config, prepared=store.info)
    return encoder


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two kinds, their store, an encoder, and embeddings with the label `kind`."""
    root = tmp_path_factory.mktemp("clinic")
    rng = np.random.default_rng(0)
    (root / "scans").mkdir()
    lines = ["subject,kind"]
    for i in range(24):
        values = rng.integers(60, 120, (16, 16))
        values[4:12, 4:12] += 100 * (i % 2)
        Image.fromarray(values.astype(np.uint8)).save(root / "scans" / f"p{i:02d}.png")
        lines.append(f"p{i:02d},{('calm', 'loud')[i % 2]}")
    (root / "labels.csv").write_text("\n".join(lines))
    prepare(root / "scans", root / "store", size=16, labels=root / "labels.csv", workers=1)
    encoder_like(Store(root / "store")).save(root / "encoder")
    embed(root / "encoder", root / "store", root / "e.parquet")
    return root
