"""The Medical Segmentation Decathlon and nnU-Net's data sets, by what their dataset.json says."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.ingest.trees import mask, picture, scan
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.items import VolumeItem

SHAPE = (10, 12, 9)
BRAIN = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def scan_4d(path: Path, seed: int, volumes: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 1000, (*SHAPE, volumes)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def told(root: Path, **values) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(values))
    return root


def decathlon(root: Path, modality=BRAIN, train=("BRATS_001", "BRATS_002"), test=("BRATS_485",)):
    """A task as its archive holds it, with a scan and a mask that dataset.json does not list."""
    for i, name in enumerate((*train, *test, "BRATS_999")):
        folder = "imagesTs" if name in test else "imagesTr"
        path = root / folder / f"{name}.nii.gz"
        scan_4d(path, i, len(modality)) if len(modality) > 1 else scan(path, i, SHAPE)
        if name not in test:
            mask(root / "labelsTr" / f"{name}.nii.gz", SHAPE)
    (root / "imagesTr" / "._BRATS_001.nii.gz").write_bytes(b"junk")
    entries = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in train
    ]
    return told(
        root,
        name="BRATS",
        tensorImageSize="4D",
        modality=modality,
        labels={"0": "background", "1": "edema"},
        numTraining=len(train),
        numTest=len(test),
        training=entries,
        test=[f"./imagesTs/{n}.nii.gz" for n in test],
    )


def test_volumes_of_a_decathlon_scan_are_its_modalities(tmp_path):
    root = decathlon(tmp_path / "Task01_BrainTumour")
    for source in (root, tmp_path):
        cohort = recognise(source)
        assert cohort.layout == "a Medical Segmentation Decathlon task"
        assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
        assert [s.subject for s in cohort.subjects] == ["BRATS_001", "BRATS_002", "BRATS_485"]
        assert [s.split for s in cohort.subjects] == ["train", "train", "test"]
        assert [s.mask is not None for s in cohort.subjects] == [True, True, False]
    file = source / root.name / "imagesTr" / "BRATS_001.nii.gz"
    assert cohort.subjects[0].files["t1ce"] == VolumeItem(file, 2, 4)
    assert dict(recognise(root).left_out) == {
        "imagesTr/BRATS_999.nii.gz": "does not fit dataset.json",
        "labelsTr/BRATS_999.nii.gz": "a mask without an image",
    }


def test_a_store_of_a_decathlon_task_has_each_volume_in_its_channel(tmp_path):
    root = decathlon(tmp_path / "task")
    result = prepare(root, tmp_path / "store", size=SHAPE, spacing=1)
    assert (result.prepared, result.failures) == (3, ())
    store = Store(tmp_path / "store")
    # The test scans have no masks, so that all are centred alike.
    assert store.info.center == "image"
    values = nib.load(root / "imagesTr" / "BRATS_002.nii.gz").get_fdata()
    for channel in range(4):
        volume = values[..., channel]
        expected = (volume - volume.min()) / np.ptp(volume) * 255
        np.testing.assert_allclose(store.read([1])[0, channel], expected, atol=0.1)
    assert store.table.source[1][3] == "imagesTr/BRATS_002.nii.gz[3]"


@pytest.mark.parametrize("named", [3, 5])
def test_another_number_of_volumes_than_modalities_fails_by_name(tmp_path, named):
    modality = {str(i): name for i, name in enumerate(["a", "b", "c", "d", "e"][:named])}
    root = decathlon(tmp_path / "task", modality)
    for i, name in enumerate(("BRATS_001", "BRATS_002")):
        scan_4d(root / "imagesTr" / f"{name}.nii.gz", i, 4)
    result = prepare(root, tmp_path / "s", workers=1)
    assert [f.subject for f in result.failures] == ["BRATS_001", "BRATS_002"]
    for failure in result.failures:
        assert f"4 volumes, and {named} modalities are named" in failure.reason
    assert result.prepared == 1
    dry = prepare(root, dry_run=True, workers=1)
    assert {f.subject for f in dry.failures} == {"BRATS_001", "BRATS_002"}


def test_numbered_files_beyond_the_named_modalities_are_left_out(tmp_path):
    for i in range(3):
        scan(tmp_path / "imagesTr" / f"a_{i:04d}.nii.gz", i)
    told(tmp_path, modality={"0": "T1", "1": "T2"}, training=["./imagesTr/a.nii.gz"])
    cohort = recognise(tmp_path)
    assert {*cohort.subjects[0].files} == {"t1", "t2"}
    assert dict(cohort.left_out) == {"imagesTr/a_0002.nii.gz": "does not fit dataset.json"}


def test_one_modality_is_one_3d_file(tmp_path):
    cohort = recognise(decathlon(tmp_path, {"0": "CT"}, test=()))
    assert cohort.modalities == ("ct",)
    assert cohort.subjects[0].files["ct"] == tmp_path / "imagesTr" / "BRATS_001.nii.gz"
    assert cohort.has_masks


def nnunet(root: Path, ending=".nii.gz", **values) -> Path:
    for i, case in enumerate(("case_a", "case_b")):
        for channel in range(2):
            path = root / "imagesTr" / f"{case}_{channel:04d}{ending}"
            picture(path, i) if ending == ".png" else scan(path, 10 * i + channel)
        label = root / "labelsTr" / f"{case}{ending}"
        picture(label) if ending == ".png" else mask(label)
    for channel in range(2):
        path = root / "imagesTs" / f"case_c_{channel:04d}{ending}"
        picture(path) if ending == ".png" else scan(path, 30 + channel)
    given = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "x": 1}}
    return told(root, **(given | {"numTraining": 2, "file_ending": ending} | values))


def test_nnunet_numbers_its_modalities(tmp_path):
    root = nnunet(tmp_path / "Dataset001_X")
    scan(root / "imagesTr" / "case_a_0002.nii.gz")
    scan(root / "imagesTr" / "odd.nii.gz")
    mask(root / "labelsTr" / "case_z.nii.gz")
    cohort = recognise(root)
    assert cohort.layout == "an nnU-Net data set"
    assert cohort.modalities == ("t1", "t2")
    assert [(s.subject, s.split) for s in cohort.subjects] == [
        *(("case_a", "train"), ("case_b", "train"), ("case_c", "test"))
    ]
    assert cohort.subjects[0].files["t2"].name == "case_a_0001.nii.gz"
    assert cohort.subjects[0].mask.name == "case_a.nii.gz"
    assert dict(cohort.left_out) == {
        "imagesTr/case_a_0002.nii.gz": "does not fit dataset.json",
        "imagesTr/odd.nii.gz": "does not fit dataset.json",
        "labelsTr/case_z.nii.gz": "a mask without an image",
    }
    assert prepare(root, tmp_path / "store", size=8).prepared == 3


def test_nnunet_of_pictures_of_listed_files_and_of_equal_names(tmp_path):
    assert recognise(nnunet(tmp_path / "a", ".png")).kind == "pictures"
    listed = {"q": {"images": ["imagesTr/case_b_0000.nii.gz", "imagesTr\\case_b_0001.nii.gz"]}}
    cohort = recognise(nnunet(tmp_path / "b", dataset=listed))
    assert [s.subject for s in cohort.subjects] == ["q"]
    assert cohort.subjects[0].files["t2"].is_file()
    cohort = recognise(nnunet(tmp_path / "c", channel_names={"0": "noNorm", "1": "noNorm"}))
    assert cohort.modalities == ("nonorm_0", "nonorm_1")


def test_nnunets_first_version_lists_cases_and_numbers_files(tmp_path):
    root = nnunet(tmp_path)
    entry = {"image": "./imagesTr/case_a.nii.gz", "label": "./labelsTr/case_a.nii.gz"}
    told(root, modality={"0": "T1", "1": "T2"}, training=[entry], test=[])
    subject = recognise(root).subjects[0]
    assert {m: f.name for m, f in subject.files.items()} == {
        "t1": "case_a_0000.nii.gz",
        "t2": "case_a_0001.nii.gz",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"training": [', r"dataset\.json: is not valid JSON: line 1, column 15"),
        ("[" * 100_000, "is nested too deeply"),
        ("\xff", "is not valid JSON|is not text in UTF-8"),
        ("[]", "holds an array instead of an object"),
        ('{"training": 3}', "training must be a list"),
        ('{"training": [{"label": "x"}]}', "entry 0 of training names no image"),
        ('{"training": [{"image": 3}]}', "should name a file holds no path"),
        ('{"training": ["../x.nii.gz"]}', "names a file outside its folder"),
        ('{"training": ["/etc/x.nii.gz"]}', "names a file outside its folder"),
        ('{"training": ["a.nii.gz"], "test": ["b/a.nii.gz"]}', "a is listed 2 times; a case"),
        ('{"training": [], "modality": {"1": "T1"}}', "must number the modalities from 0"),
        ('{"training": [], "modality": ["T1"]}', "must number the modalities from 0"),
        ('{"channel_names": {"0": "T1"}, "file_ending": ".xyz"}', r"file_ending '\.xyz' cannot"),
        ('{"channel_names": {"0": "T1"}}', "file_ending '' cannot be read"),
        ('{"training": []}', "but no image in imagesTr"),
    ],
)
def test_a_broken_description_is_refused_in_one_line(tmp_path, text, message):
    scan(tmp_path / "imagesTr" / "a.nii.gz")
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=message) as caught:
        recognise(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_named_but_absent_fails_its_subject_alone(tmp_path):
    root = decathlon(tmp_path / "task", {"0": "CT"}, test=())
    (root / "imagesTr" / "BRATS_001.nii.gz").unlink()
    result = prepare(root, tmp_path / "store", size=8)
    assert result.prepared == 1
    assert [(f.subject, f.reason) for f in result.failures] == [
        ("BRATS_001", "imagesTr/BRATS_001.nii.gz: no such file")
    ]


def test_several_tasks_at_once_are_refused(tmp_path):
    for name in ("Task01", "Task02"):
        decathlon(tmp_path / name)
    with pytest.raises(SourceError, match=r"holds 2 data sets .*Task01, Task02, …; prepare one"):
        recognise(tmp_path)
