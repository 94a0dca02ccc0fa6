"""Subjects that lack a modality: kept, marked, and nothing made up."""

import numpy as np
import pandas as pd

from tests.ingest.test_prepare import files_of
from tests.ingest.trees import brats, scan
from vitaepp.data.inspection import inspect
from vitaepp.data.store import Store
from vitaepp.data.storetable import Failure
from vitaepp.ingest.prepare import prepare


def lacking(store: Store) -> dict[str, list[str]]:
    return {
        record.subject: [
            m for m, p in zip(store.info.modalities, record.modality_present, strict=True) if not p
        ]
        for record in store.table.itertuples()
    }


def test_a_missing_modality_is_zero_and_marked_and_leaves_the_others_as_they_are(tmp_path, capsys):
    whole = brats(tmp_path / "whole")
    prepare(whole, tmp_path / "w", size=6)
    some = brats(tmp_path / "some")
    (some / "a" / "a_flair.nii.gz").unlink()  # the first, which gives the grid
    (some / "b" / "b_t2.nii.gz").unlink()
    (some / "b" / "b_t1.nii.gz").unlink()
    result = prepare(some, tmp_path / "s", size=6)
    assert (result.prepared, result.failures) == (3, ())
    told = capsys.readouterr().err
    assert "missing modalities: flair in 1, t1 in 1, t2 in 1 of 3 subjects" in told
    complete, store = Store(tmp_path / "w"), Store(tmp_path / "s")
    assert lacking(store) == {"a": ["flair"], "b": ["t1", "t2"], "c": []}
    assert lacking(complete) == {"a": [], "b": [], "c": []}
    assert complete.present.all()
    images, wanted = store.read(range(3)), complete.read(range(3))
    assert np.array_equal(images[store.present], wanted[store.present])
    assert not images[~store.present].any()
    for record in store.table.itertuples():
        present = np.array(record.modality_present)
        assert [bool(s) for s in record.source] == present.tolist()
        assert not record.intensity_max[~present].any()
    summary = inspect(tmp_path / "s")
    assert summary.count(" over 2 subjects; missing in 1 of 3") == 3


def test_a_manifest_with_empty_cells_and_one_subject_that_has_nothing_of_what_is_asked(tmp_path):
    for i, name in enumerate(("a", "b", "c")):
        scan(tmp_path / f"{name}.nii.gz", seed=i)
    (tmp_path / "m.csv").write_text("subject,t1,t2,pet\nx,a.nii.gz,,\ny,,b.nii.gz,\nz,,,c.nii.gz\n")
    result = prepare(tmp_path / "m.csv", tmp_path / "s", size=6, modalities="t1,t2")
    assert result.failures == (Failure("z", "has no file for t1 or t2; it has pet"),)
    assert lacking(Store(tmp_path / "s")) == {"x": ["t2"], "y": ["t1"]}


def test_a_modality_that_comes_later_is_noticed(tmp_path):
    source = brats(tmp_path / "x")
    kept = (source / "b" / "b_t1.nii.gz").read_bytes()
    (source / "b" / "b_t1.nii.gz").unlink()
    prepare(source, tmp_path / "s", size=6)
    assert prepare(source, tmp_path / "s", size=6).skipped == 3
    (source / "b" / "b_t1.nii.gz").write_bytes(kept)
    result = prepare(source, tmp_path / "s", size=6)
    assert (result.prepared, result.skipped) == (1, 2)
    prepare(source, tmp_path / "t", size=6)
    assert files_of(tmp_path / "s") == files_of(tmp_path / "t")


def test_which_modality_is_missing_is_part_of_what_is_remembered(tmp_path):
    """The same file, once as one modality and once as the other, is not the same subject."""
    scan(tmp_path / "a.nii.gz")
    scan(tmp_path / "b.nii.gz", seed=1)
    for cells in ("a.nii.gz,", ",a.nii.gz"):
        (tmp_path / "m.csv").write_text(f"subject,t1,t2\nx,{cells}\ny,b.nii.gz,b.nii.gz\n")
        assert prepare(tmp_path / "m.csv", tmp_path / "s", size=6).prepared >= 1
    assert Store(tmp_path / "s").present.tolist() == [[False, True], [True, True]]


def test_stores_from_before_there_was_such_a_thing_open_and_grow(tmp_path):
    source = brats(tmp_path / "x", subjects=("a", "b"))
    prepare(source, tmp_path / "s", size=6)
    file = tmp_path / "s" / "table.parquet"
    pd.read_parquet(file).drop(columns="modality_present").to_parquet(file, index=False)
    assert Store(tmp_path / "s").present.tolist() == [[True] * 4] * 2
    brats(tmp_path / "x", subjects=("a", "b", "c"))
    (source / "c" / "c_t2.nii.gz").unlink()
    result = prepare(source, tmp_path / "s", size=6)
    assert (result.prepared, result.skipped) == (1, 2)
    assert Store(tmp_path / "s").present.tolist() == [[True] * 4] * 2 + [[True] * 3 + [False]]
