"""Real scans and pictures, where they are at hand."""

import zipfile

import nibabel as nib
import numpy as np
import pytest

from vitaepp.data.store import Store
from vitaepp.ingest.prepare import prepare


def unpack(archive, folder, wanted):
    if not archive.is_file():
        pytest.skip(f"no {archive.name} in the folder of real data")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder, [n for n in opened.namelist() if wanted(n)])
    return folder


def test_hippocampus(data, tmp_path):
    source = unpack(
        data / "hippocampus.zip", tmp_path, lambda n: "_00" in n or n.endswith("labels.csv")
    )
    source = next(source.rglob("labels.csv")).parent
    result = prepare(source, tmp_path / "s", size=(48, 64, 48), labels=source / "labels.csv")
    assert result.failures == ()
    store = Store(tmp_path / "s")
    assert set(store.label_columns) == {"volume_mm3", "large"}
    assert store.table.large.isin([0, 1]).all()
    for row, record in enumerate(store.table.itertuples()):
        original = nib.load(source / record.source[0])
        mask = nib.load(source / "labels" / f"{record.subject}.nii.gz")
        # 1 mm already: every voxel of the crop that the scan has is the scan's own.
        affine = np.linalg.inv(original.affine) @ np.reshape(record.affine, (4, 4))
        first = np.rint(affine[:3, 3]).astype(int)
        values = original.get_fdata()
        low, high = values.min(), values.max()
        padded = np.pad((values - low) / (high - low) * 255, 64)
        box = tuple(slice(f + 64, f + 64 + n) for f, n in zip(first, (48, 64, 48), strict=True))
        np.testing.assert_allclose(store.read([row])[0, 0], padded[box], atol=0.07)
        middle = np.argwhere(mask.get_fdata() > 0).mean(axis=0)
        assert np.abs(first + np.array([23.5, 31.5, 23.5]) - middle).max() <= 0.51


def test_chest_xray(data, tmp_path):
    source = unpack(
        data / "chest_xray.zip",
        tmp_path,
        lambda n: ("/test/" in n and "IM-000" in n) or "/test/PNEUMONIA/person1_" in n,
    )
    result = prepare(source, tmp_path / "s", size=64)
    assert result.failures == ()
    store = Store(tmp_path / "s")
    assert store.info.modalities == ("grey",)
    assert set(store.table.split) == {"test"}
    assert set(store.table.label) <= {"NORMAL", "PNEUMONIA"}
    assert 60 < store.read(range(len(store))).astype(float).mean() < 190
