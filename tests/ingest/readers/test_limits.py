"""What a file promises is held against the machine before memory is asked for."""

import gzip
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.ingest.trees import picture, scan
from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.readers import image
from vitaepp.ingest.readers.arrays import NpzArray
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_scan


@pytest.fixture(autouse=True)
def frugal():
    """However a file lies, memory and time stay small."""
    before, start = psutil.Process().memory_info().rss, time.monotonic()
    yield
    assert psutil.Process().memory_info().rss - before < 200 << 20
    assert time.monotonic() - start < 10


def lying_nifti(path: Path, at: int, kind: str, *values: float) -> Path:
    """A scan whose header has other values at some offset."""
    scan(path)
    data = path.read_bytes()
    data = bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)
    struct.pack_into(f"<{kind}", data, at, *values)
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else data)
    return path


DIM, BITPIX, VOX_OFFSET = 42, 72, 108


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize(
    ("at", "kind", "values", "message"),
    [
        (DIM, "3h", (32767, 32767, 32767), "promises an image of 32767×32767×32767"),
        (DIM, "3h", (2000, 1000, 9), "truncated: its header promises 36000000 bytes"),
        (DIM - 2, "8h", (7, *[32767] * 7), "promises an image of 32767×"),
        (VOX_OFFSET, "f", (3e38,), "not a NIfTI"),
        (VOX_OFFSET, "f", (1e9,), "truncated"),
        (VOX_OFFSET, "f", (float("nan"),), "not a NIfTI"),
    ],
)
def test_a_header_that_promises_the_absurd_is_refused_at_once(
    tmp_path, name, at, kind, values, message
):
    path = lying_nifti(tmp_path / name, at, kind, *values)
    with pytest.raises(SubjectError, match=message):
        read_scan(path, "x")


def test_bits_a_voxel_are_those_of_the_type_whatever_the_header_says(tmp_path):
    path = lying_nifti(tmp_path / "x.nii", BITPIX, "h", 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SubjectError, match="truncated"):
        read_scan(path, "x")


def test_a_gzip_bomb_is_stopped_on_either_side_of_the_promise(tmp_path, monkeypatch):
    monkeypatch.setattr("vitaepp.ingest.readers.nifti.MOST_SPARE", 1 << 22)
    path = scan(tmp_path / "x.nii")
    bomb = tmp_path / "x.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + b"\0" * (64 << 20), 1))
    with pytest.raises(SubjectError, match="more than its header promises"):
        read_scan(bomb, "x")
    # As large as it promises, but more than the machine takes.
    monkeypatch.setattr(image, "most_voxels", lambda: 1 << 20)
    data = bytearray(path.read_bytes()[:352])
    struct.pack_into("<3h", data, DIM, 250, 250, 250)
    bomb.write_bytes(gzip.compress(bytes(data) + b"\0" * (2 * 250**3), 1))
    with pytest.raises(SubjectError, match="250×250×250, more than the 1048576 values"):
        read_scan(bomb, "x")


def lying_png(path: Path, width: int, height: int) -> Path:
    picture(path)
    data = bytearray(path.read_bytes())
    struct.pack_into(">2I", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [(20_000, 20_000), (178_956_971, 1), (2**31 - 1, 2**31 - 1)])
def test_a_picture_beyond_pillows_limit_is_an_error(tmp_path, size):
    path = lying_png(tmp_path / "x.png", *size)
    with pytest.raises(SubjectError, match=r"x: (its header promises|cannot be read)"):
        read_picture(path, "x")


def test_a_picture_at_the_limit_is_not_refused_for_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "MOST_PIXELS", 20 * 16 * 3)
    assert read_picture(picture(tmp_path / "x.png", shape=(20, 16)), "x").grid.size == (20, 16)
    with pytest.raises(SubjectError, match="17×20, more than"):
        read_picture(picture(tmp_path / "y.png", shape=(20, 17)), "y")


@pytest.mark.parametrize(
    ("shape", "fortran", "message"),
    [
        ((10**15, 4, 4), False, "more than the file holds"),
        ((2, 10**7, 10**7), False, "more than the file holds"),
        ((-5, 4, 4), False, "more than the file holds"),
        ((10**9, 0, 4), False, "1000000000 images"),
    ],
)
def test_an_array_that_promises_the_absurd_is_refused(tmp_path, shape, fortran, message):
    described = {"descr": "|u1", "fortran_order": fortran, "shape": shape}
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w") as archive,
        archive.open("train_images.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, described)
    with pytest.raises(SourceError, match=message):
        NpzArray(tmp_path / "x.npz", "train_images")


def test_an_item_that_is_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "most_voxels", lambda: 1 << 20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((2, 4 << 20), np.uint8))
    with pytest.raises(SourceError, match="more than the 1048576 values"):
        NpzArray(tmp_path / "x.npz", "a")
    np.savez_compressed(tmp_path / "y.npz", a=np.zeros((8, 1 << 19), np.uint8))
    assert len(NpzArray(tmp_path / "y.npz", "a")) == 8
