"""Size and spacing of the original image, which a store keeps of its subjects."""

import numpy as np
import pandas as pd

from tests.ingest.trees import picture, scan, volume
from vitaepp.data.store import Store
from vitaepp.ingest.prepare import prepare


def test_size_and_spacing_are_along_the_axes_of_the_crop_however_a_scan_was_stored(tmp_path):
    values = volume(shape=(10, 12, 9))
    scan(tmp_path / "scans" / "a.nii.gz", values=values, affine=np.diag([2.0, 1, 3, 1]))
    # The same scan with its last axis first.
    turned = np.array([[0.0, 2, 0, 0], [0, 0, 1, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
    scan(tmp_path / "scans" / "b.nii.gz", values=np.moveaxis(values, 2, 0), affine=turned)
    prepare(tmp_path / "scans", tmp_path / "store", size=8, spacing=2, workers=1)
    table = Store(tmp_path / "store").table
    assert [list(size) for size in table["source_size"]] == [[10, 12, 9]] * 2
    assert np.allclose(table["source_spacing"].tolist(), [[2, 1, 3]] * 2)


def test_a_picture_has_rows_and_columns(tmp_path):
    picture(tmp_path / "pictures" / "a.png", shape=(20, 30))
    prepare(tmp_path / "pictures", tmp_path / "store", size=16, workers=1)
    table = Store(tmp_path / "store").table
    assert list(table["source_size"][0]) == [20, 30]
    assert list(table["source_spacing"][0]) == [1, 1]


def test_a_store_of_an_earlier_version_is_read_and_added_to(tmp_path):
    scan(tmp_path / "scans" / "a.nii.gz", seed=1)
    prepare(tmp_path / "scans", tmp_path / "store", size=8, spacing=1, workers=1)
    path = tmp_path / "store" / "table.parquet"
    pd.read_parquet(path).drop(columns=["source_size", "source_spacing"]).to_parquet(path)
    assert "source_size" not in Store(tmp_path / "store").table
    scan(tmp_path / "scans" / "b.nii.gz", seed=2)
    prepare(tmp_path / "scans", tmp_path / "store", size=8, spacing=1, workers=1)
    sizes = Store(tmp_path / "store").table["source_size"]
    assert [list(size) for size in sizes] == [[], [10, 12, 9]]
