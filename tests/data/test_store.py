"""The store: what is staged is there after commit, and nothing is before."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from zarr.codecs import ZstdCodec

from vitaepp.data import storearrays, storewriter
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Failure, Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.errors import StoreError

INFO = StoreInfo(("t1", "t2"), (4, 5, 6), (1.0, 1.0, 1.0), "float16", "image")


def record(subject: str, checksum: str = "x") -> Record:
    affine = tuple(np.eye(4).ravel())
    return Record(subject, affine, (0.0, 0.0), (9.0, 9.0), ("a", "b"), checksum)


def image(value: float, info: StoreInfo = INFO) -> np.ndarray:
    return np.full(info.shape, value, np.float32)


def labels(*subjects: str) -> pd.DataFrame:
    return pd.DataFrame({"subject": subjects, "split": "", "grade": range(len(subjects))})


def test_commit_aligns_images_with_table_whatever_the_order_of_staging(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        for value, subject in [(3, "c/ö"), (1, "a"), (2, "b")]:
            stage(tmp_path / "s", INFO, image(value), record(subject))
        with pytest.raises(StoreError, match="no subject"):
            Store(tmp_path / "s")
        writer.commit(labels("a", "b", "broken", "c/ö"), [Failure("broken", "truncated")])
    store = Store(tmp_path / "s")
    assert list(store.table.subject) == ["a", "b", "c/ö"]
    assert store.images.shape == (3, *INFO.shape)
    assert store.images.chunks == (1, *INFO.shape)
    assert [float(x[0, 0, 0, 0]) for x in store.read([0, 1, 2])] == [1, 2, 3]
    assert list(store.table.grade) == [0, 1, 3]
    assert store.label_columns == ["grade"]
    failures = pd.read_csv(tmp_path / "s" / "failures.csv")
    assert failures.to_dict("records") == [{"subject": "broken", "reason": "truncated"}]


def test_later_subjects_follow_and_changed_ones_replace_their_image(tmp_path):
    path = tmp_path / "s"
    with StoreWriter(path, INFO) as writer:
        stage(path, INFO, image(2), record("b"))
        writer.commit(labels("b"), [])
    with StoreWriter(path, INFO) as writer:
        assert writer.checksums() == {"b": ("x", "")}
        stage(path, INFO, image(1), record("a"))
        stage(path, INFO, image(7), record("b", "y"))
        writer.commit(labels("a", "b"), [])
    store = Store(path)
    assert list(store.table.subject) == ["b", "a"]
    assert [float(x.max()) for x in store.read([0, 1])] == [7, 1]
    assert list(store.table.checksum) == ["y", "x"]
    assert list(store.table.grade) == [1, 0]


def test_one_writer_at_a_time_and_only_for_the_same_settings(tmp_path):
    with StoreWriter(tmp_path / "s", INFO), pytest.raises(StoreError, match="another prepare"):
        StoreWriter(tmp_path / "s", INFO)
    other = StoreInfo(("t1",), (4, 5, 6), (1.0, 1.0, 1.0), "float16", "image")
    with pytest.raises(StoreError, match=r"different store \(modalities"):
        StoreWriter(tmp_path / "s", other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="not empty and not a store"):
        StoreWriter(tmp_path / "mine", INFO)


@pytest.mark.parametrize(("value", "stored"), [(0.0, 0), (254.6, 255), (17.4, 17)])
def test_uint8_rounds(tmp_path, value, stored):
    info = StoreInfo(("x",), (8, 8), None, "uint8", "image")
    with StoreWriter(tmp_path / "s", info) as writer:
        stage(tmp_path / "s", info, image(value, info), record("a"))
        writer.commit(labels("a"), [])
    assert Store(tmp_path / "s").read([0]).tolist() == np.full((1, 1, 8, 8), stored).tolist()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: (p / "table.parquet").write_bytes(b"PAR1"), "table.parquet is damaged"),
        (lambda p: pd.DataFrame({"subject": ["a"]}).to_parquet(p / "table.parquet"), "damaged"),
        (lambda p: shutil.rmtree(p / "images.zarr"), "missing or damaged"),
        (lambda p: (p / "images.zarr" / "zarr.json").write_text("{"), "missing or damaged"),
        (lambda p: shutil.rmtree(p / "images.zarr" / "c" / "1"), "lacks 1 of 2 subjects"),
        (lambda p: (p / "images.zarr/c/1/0/0/0").unlink(), r"lacks 1 of 2 subjects \(b\)"),
        (
            lambda p: (p / "images.zarr/c/1/0/0/0").write_bytes(b"x"),
            "c/1, of subject b, is damaged",
        ),
        (lambda p: rewrite(p / "store.json", dtype="nope"), "store.json is damaged"),
        (lambda p: rewrite(p / "store.json", size="x"), "store.json is damaged"),
    ],
)
def test_a_store_that_was_damaged_says_so_and_is_never_read_as_zeros(tmp_path, harm, message):
    path, info = tmp_path / "s", StoreInfo(("x",), (8, 8), None, "uint8", "image")
    with StoreWriter(path, info) as writer:
        for subject in "ab":
            stage(path, info, image(3, info), record(subject))
        writer.commit(labels("a", "b"), [])
    harm(path)
    with pytest.raises(StoreError, match=message):
        Store(path).read([0, 1])


def test_no_flipped_bit_is_read_as_other_voxels(tmp_path):
    path, rng = tmp_path / "s", np.random.default_rng(0)
    with StoreWriter(path, INFO) as writer:
        stage(path, INFO, rng.uniform(0, 255, INFO.shape).astype(np.float32), record("a"))
        writer.commit(labels("a"), [])
    chunk = path / "images.zarr/c/0/0/0/0/0"
    whole, before = chunk.read_bytes(), Store(path).read([0]).tobytes()
    chunk.unlink()
    for bit in rng.integers(0, 8 * len(whole), 60):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(data)
        with suppress(StoreError):  # a bit that means nothing may be flipped
            assert Store(path).read([0]).tobytes() == before


def test_a_store_without_checksums_is_read_and_added_to_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "s"
    with monkeypatch.context() as earlier, StoreWriter(path, INFO) as writer:
        earlier.setattr(storearrays, "ZstdCodec", lambda level, checksum: ZstdCodec(level=level))
        storewriter._encoder.cache_clear()
        stage(path, INFO, image(1), record("a"))
        writer.commit(labels("a"), [])
    storewriter._encoder.cache_clear()
    codecs = json.loads((path / "images.zarr/zarr.json").read_text())["codecs"]
    assert codecs[-1]["configuration"]["checksum"] is False
    with StoreWriter(path, INFO) as writer:
        assert writer.checksums() == {"a": ("x", "")}
        stage(path, INFO, image(2), record("b"))
        writer.commit(labels("a", "b"), [])
    assert json.loads((path / "images.zarr/zarr.json").read_text())["codecs"] == codecs
    assert [float(x.max()) for x in Store(path).read([0, 1])] == [1, 2]


def test_an_image_of_zeros_is_an_image_and_one_lost_after_opening_is_not(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        for subject in "ab":
            stage(tmp_path / "s", INFO, image(0), record(subject))
        writer.commit(labels("a", "b"), [])
        assert writer.checksums() == {"a": ("x", ""), "b": ("x", "")}
    store = Store(tmp_path / "s")
    assert not store.read([0, -1]).any()
    (tmp_path / "s/images.zarr/c/1/0/0/0/0").unlink()
    assert not store.read([0]).any()
    for rows in ([0, 1], [-1]):
        with pytest.raises(StoreError, match=r"zarr/c/1, of subject b, is lost; delete this"):
            store.read(rows)


def rewrite(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_is_not_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no such store"):
        Store(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a store"):
        Store(tmp_path)
    (tmp_path / "store.json").write_text("[1]")
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path)


def test_a_summary_of_one_subject_reads_well(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        stage(tmp_path / "s", INFO, image(3), record("a"))
        writer.commit(labels("a"), [Failure("broken", "truncated")])
    told = inspect(tmp_path / "s")
    assert "over the one subject" in told
    assert "1 subject, named in failures.csv" in told
    assert "1 subjects" not in told + repr(Store(tmp_path / "s"))


def test_rows_are_spread_evenly(make_store):
    store = make_store()
    assert store.spread() == list(range(8))
    assert store.spread(3) == [0, 4, 7]
    assert store.spread(1) == [0]
    assert store.spread(99) == list(range(8))
