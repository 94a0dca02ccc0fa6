"""Phantoms are plausible files, the same for the same seed, and hard on raw intensities."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import distance_transform_edt

from vitaepp.datasets.phantom import (
    CORE,
    ENHANCING,
    OEDEMA,
    PhantomSettings,
    phantom,
    write_phantoms,
)
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise


def test_a_cohort_in_brats_naming_with_balanced_grades(tmp_path):
    labels = write_phantoms(tmp_path / "p", subjects=4, seed=1, workers=1)
    table = pd.read_csv(labels)
    assert table.high_grade.value_counts().to_dict() == {1: 2, 0: 2}
    cohort = recognise(tmp_path / "p")
    assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
    assert [s.subject for s in cohort.subjects] == list(table.subject)
    assert cohort.has_masks
    affines = []
    for subject in cohort.subjects:
        images = [nib.load(f) for f in (*subject.files.values(), subject.mask)]
        assert len({i.shape for i in images}) == 1
        assert all(np.array_equal(i.affine, images[0].affine) for i in images)
        mask = np.asarray(images[-1].dataobj)
        assert set(np.unique(mask)) <= {0, CORE, OEDEMA, ENHANCING}
        # The tumour is in the volume, and not all of it.
        assert 0.001 < (mask > 0).mean() < 0.15
        affines.append(images[0].affine)
    assert not np.allclose(affines[0], affines[1])


def test_the_same_seed_gives_the_same_files_and_an_interrupted_call_goes_on(tmp_path):
    for name in ("a", "b"):
        write_phantoms(tmp_path / name, subjects=2, seed=3, workers=1)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.nii.gz"))
    assert len(files) == 10
    for file in files:
        one, other = nib.load(tmp_path / "a" / file), nib.load(tmp_path / "b" / file)
        assert np.array_equal(one.get_fdata(), other.get_fdata())
        assert np.array_equal(one.affine, other.affine)
    times = {f: (tmp_path / "a" / f).stat().st_mtime_ns for f in files}
    (tmp_path / "a" / "labels.csv").unlink()
    assert write_phantoms(tmp_path / "a", subjects=2, seed=3).is_file()
    assert {f: (tmp_path / "a" / f).stat().st_mtime_ns for f in files} == times
    with pytest.raises(SourceError, match="other settings"):
        write_phantoms(tmp_path / "a", subjects=2, seed=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").write_text("x")
    with pytest.raises(SourceError, match="not empty"):
        write_phantoms(tmp_path / "mine")


def test_high_grades_enhance_around_a_core_and_low_grades_in_it():
    """What makes the grade is there: enhancing voxels lie nearer to the surface in high grades."""
    settings = PhantomSettings(enhancement=(1.0, 1.0))
    inward = {"low": [], "high": []}
    for grade, values in inward.items():
        for seed in range(3):
            _, _, mask = phantom(np.random.default_rng(seed), grade, "A", settings)
            tumour = np.isin(mask, (CORE, ENHANCING))
            depth = distance_transform_edt(tumour)
            values.append(depth[mask == ENHANCING].mean() / depth[tumour].mean())
    assert max(inward["high"]) < min(inward["low"])


def test_tissue_looks_as_it_does_on_each_modality():
    plain = PhantomSettings(contrast=0.0, gain=(1.0, 1.0), bias=0.0, noise=(0.01, 0.01))
    _, images, _ = phantom(np.random.default_rng(0), "low", "A", plain)
    _, t1, t1ce, t2 = images
    assert images.dtype == np.int16
    assert np.median(t1[t1 > 300]) > np.median(t2[t1 > 300])  # white matter fills the head
    assert np.percentile(t2, 99) > np.percentile(t1, 99)  # CSF is bright on T2
    assert (t1ce.astype(int) - t1 > 150).sum() > 20  # contrast agent shows on T1c alone
    assert images.min() >= 0
