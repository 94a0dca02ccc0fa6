"""Every layout is recognised for what it is, and a broken one is refused in one line."""

import numpy as np
import pandas as pd
import pytest

from tests.ingest.trees import brats, mask, picture, scan
from vitaepp.data.labels import join_labels
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.readers.items import ArrayItem


def subjects(cohort):
    return [s.subject for s in cohort.subjects]


def names(cohort):
    return [{m: p.name for m, p in s.files.items()} for s in cohort.subjects]


@pytest.mark.parametrize(
    ("separator", "modalities"),
    [("_", ("flair", "t1", "t1ce", "t2")), ("-", ("t2f", "t1n", "t1c", "t2w"))],
)
def test_brats_naming_old_and_new(tmp_path, separator, modalities):
    brats(tmp_path / "LGG", ["BraTS_1_1"], separator, modalities)
    brats(tmp_path / "HGG", ["BraTS_2_1", "BraTS_3_1"], separator, modalities[::-1])
    scan(tmp_path / "HGG" / "__MACOSX" / "BraTS_2_1" / "BraTS_2_1_t1.nii.gz")
    (tmp_path / "HGG" / "BraTS_2_1" / "._BraTS_2_1_t1.nii.gz").write_bytes(b"junk")
    cohort = recognise(tmp_path)
    assert cohort.kind == "scans"
    assert cohort.modalities == modalities
    assert subjects(cohort) == ["BraTS_2_1", "BraTS_3_1", "BraTS_1_1"]
    assert cohort.has_masks
    assert list(cohort.table().grade) == ["HGG", "HGG", "LGG"]
    first = cohort.subjects[0]
    assert first.files["t1" if "t1" in modalities else "t1n"].is_file()
    assert first.mask.name == f"BraTS_2_1{separator}seg.nii.gz"


def test_one_brats_subject_alone_and_a_folder_of_numbered_scans(tmp_path):
    brats(tmp_path / "x", ["s1"])
    assert subjects(recognise(tmp_path / "x" / "s1")) == ["s1"]
    for i in range(3):
        scan(tmp_path / "mri" / f"mri_{i}.nii.gz")
    cohort = recognise(tmp_path / "mri")
    assert cohort.layout == "a folder of scans"
    assert subjects(cohort) == ["mri_0", "mri_1", "mri_2"]
    assert cohort.modalities == ("image",)


def test_modalities_are_chosen_in_order_and_unknown_ones_refused_by_name(tmp_path):
    cohort = recognise(brats(tmp_path))
    assert cohort.choose(("t2", "t1")) == ("t2", "t1")
    with pytest.raises(SourceError, match=r"modality t1cee: no subject has it; did you mean t1ce?"):
        cohort.choose(("t1cee",))
    with pytest.raises(SourceError, match="each only once"):
        cohort.choose(("t1", "t1"))


@pytest.mark.parametrize("folder", ["labels", "masks"])
def test_images_beside_masks(tmp_path, folder):
    for i in range(3):
        scan(tmp_path / "set" / "images" / f"s{i}.nii.gz")
        mask(tmp_path / "set" / folder / f"s{i}.nii.gz")
    (tmp_path / "set" / "labels.csv").write_text("subject,grade\ns0,1\n")
    for source in (tmp_path / "set", tmp_path):
        cohort = recognise(source)
        assert subjects(cohort) == ["s0", "s1", "s2"]
        assert [s.mask.parent.name for s in cohort.subjects] == [folder] * 3
        assert list(cohort.table().columns) == ["subject", "split"]


def test_image_folders_by_class_with_and_without_splits(tmp_path):
    for split in ("train", "test"):
        for label in ("NORMAL", "SICK"):
            picture(tmp_path / "x" / split / label / "IM-0001.jpeg")
    picture(tmp_path / "x" / "train" / "NORMAL" / "._IM-0001.jpeg")
    for source in (tmp_path / "x", tmp_path):
        table = recognise(source).table()
        assert list(table.subject) == [
            *("test/NORMAL/IM-0001", "test/SICK/IM-0001"),
            *("train/NORMAL/IM-0001", "train/SICK/IM-0001"),
        ]
        assert list(table.split) == ["test", "test", "train", "train"]
        assert list(table.label) == ["NORMAL", "SICK"] * 2
    for label in ("cat", "dog"):
        picture(tmp_path / "y" / label / "1.png")
    assert list(recognise(tmp_path / "y").table().label) == ["cat", "dog"]
    assert not recognise(tmp_path / "y").table().split.any()
    picture(tmp_path / "z" / "1.png")
    assert list(recognise(tmp_path / "z").table().columns) == ["subject", "split"]


def test_medmnist(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in [("train", 4), ("val", 2), ("test", 3)]:
        arrays[f"{split}_images"] = rng.integers(0, 255, (n, 8, 8, 8)).astype(np.uint8)
        arrays[f"{split}_labels"] = np.arange(n)[:, None].astype(np.uint8)
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    cohort = recognise(tmp_path / "x.npz")
    table = cohort.table()
    assert cohort.kind == "arrays"
    assert list(table.subject[[0, 4, 8]]) == ["train_00000", "val_00000", "test_00002"]
    assert list(table.label) == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert cohort.subjects[8].files == {"image": ArrayItem(tmp_path / "x.npz", "test_images", 2)}
    assert cohort.notes == ()
    np.savez_compressed(tmp_path / "more.npz", train_masks=[1], train_patient=[2], **arrays)
    (note,) = recognise(tmp_path / "more.npz").notes
    assert note.startswith("train_masks, train_patient: not MedMNIST's arrays, and not used")
    arrays |= {k: np.hstack([v, 1 - v % 2]) for k, v in arrays.items() if k.endswith("labels")}
    np.savez_compressed(tmp_path / "chest.npz", **arrays)  # as ChestMNIST: a column a finding
    several = recognise(tmp_path / "chest.npz").table()
    assert "label" not in several
    assert list(several.label_0) == list(table.label)
    assert list(several.label_1) == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    np.savez(tmp_path / "y.npz", images=rng.random((2, 8, 8)))
    with pytest.raises(SourceError, match=r"none of the arrays train_images.*found images"):
        recognise(tmp_path / "y.npz")
    np.savez(tmp_path / "z.npz", train_images=rng.random((2, 8, 8)), train_labels=np.zeros(3))
    with pytest.raises(SourceError, match="train_labels has 3 rows for 2 images"):
        recognise(tmp_path / "z.npz")


def manifest(tmp_path, text, name="cohort.csv"):
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    return tmp_path / name


def test_a_manifest_tells_paths_from_labels(tmp_path):
    scan(tmp_path / "scans" / "a.nii.gz")
    absolute = scan(tmp_path / "b_t1.nii.gz")
    text = "subject,split,t1,t2,mask,age,sex,dead\n"
    text += f"007,train,{absolute},scans/a.nii.gz,m.nii,40,m,1\n"
    text += "008,,scans/a.nii.gz,,,,f,\n"
    cohort = recognise(manifest(tmp_path, text))
    assert cohort.modalities == ("t1", "t2")
    assert subjects(cohort) == ["007", "008"]
    assert names(cohort) == [{"t1": "b_t1.nii.gz", "t2": "a.nii.gz"}, {"t1": "a.nii.gz"}]
    assert [s.split for s in cohort.subjects] == ["train", ""]
    assert [s.labels for s in cohort.subjects] == [
        {"age": 40, "sex": "m", "dead": 1},
        {"age": None, "sex": "f", "dead": None},
    ]
    assert recognise(manifest(tmp_path, text), ["t2"]).choose(["t2"]) == ("t2",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,t1\na,a.nii\n", "no column subject, .* or patient; found id, t1; .*`id_column`"),
        ("subject,t1\na,a.nii\na,b.nii\n", "subject a occurs 2 times"),
        ("subject,t1\n,a.nii\n", "line 2 has no subject"),
        ("subject,age\na,3\n", "no column holds image files"),
        ("subject,t1,affine\na,a.nii,3\n", "column affine: a store has its own"),
        ("subject,t1,f0\na,a.nii,3\n", "column f0: features of embeddings"),
        ("subject,t1\na,a.nii\nb,b.png\n", "both scans and pictures"),
        ('subject,t1\na,"a.nii\n', "not a readable CSV"),
    ],
)
def test_a_broken_manifest_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(SourceError, match=message) as caught:
        recognise(manifest(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_where_nothing_is_found_what_was_looked_for_is_told(tmp_path):
    (tmp_path / ".DS_Store").write_text("x")
    with pytest.raises(SourceError, match=r"no images found; looked for a manifest .*BraTS naming"):
        recognise(tmp_path)
    with pytest.raises(SourceError, match="no such file or folder"):
        recognise(tmp_path / "nowhere")
    picture(tmp_path / "a" / "x.png")
    picture(tmp_path / "a" / "x.jpg")
    with pytest.raises(SourceError, match="2 files or folders are named x"):
        recognise(tmp_path)


TABLE = pd.DataFrame({"subject": ["a", "b", "c"], "split": ["", "", ""]})


def test_labels_join_by_subject_or_file_name_and_integers_stay_integers(tmp_path):
    path = manifest(tmp_path, "subject,grade,site,split\nb.nii.gz,2,x,test\na,1,y,train\nz,3,y,\n")
    table, without = join_labels(TABLE, path)
    assert without == ["c"]
    assert list(table.subject) == ["a", "b", "c"]
    assert table.grade.dtype == "Int64"
    assert table.grade.tolist() == [1, 2, pd.NA]
    assert list(table.split) == ["train", "test", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,g\na,1\na,2\n", "subject a occurs 2 times"),
        ("subject,g\na,1\na.nii.gz,2\n", "subject a occurs 2 times"),
        ("subject,g\nx,1\n", "no subject in common .*'x', the source 'a'"),
        ("subject,checksum\na,1\n", "column checksum"),
        ("name,g\na,1\n", "no column subject"),
        ("subject,g\n", "no rows"),
    ],
)
def test_broken_labels_are_refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        join_labels(TABLE, manifest(tmp_path, text))
    with pytest.raises(SourceError, match="no such file"):
        join_labels(TABLE, tmp_path / "nowhere.csv")


def test_labels_the_layout_has_already_are_not_overwritten(tmp_path):
    table = TABLE.assign(split="train", grade=1)
    for column in ("grade", "split"):
        with pytest.raises(SourceError, match=f"column {column}"):
            join_labels(table, manifest(tmp_path, f"subject,{column}\na,1\n"))


def test_masks_are_not_taken_for_subjects_beside_other_scans(tmp_path):
    scan(tmp_path / "cohort" / "images" / "a.nii.gz")
    mask(tmp_path / "cohort" / "labels" / "a.nii.gz")
    scan(tmp_path / "older" / "b.nii.gz")
    cohort = recognise(tmp_path)
    assert subjects(cohort) == ["a"]
    assert cohort.subjects[0].mask == tmp_path / "cohort" / "labels" / "a.nii.gz"
    assert dict(cohort.left_out) == {"older/b.nii.gz": "not in a folder of scans"}


@pytest.mark.parametrize(
    ("shape", "told"),
    [((3, 28, 28), True), ((28, 28, 3), False), ((28, 28, 28), False), ((28, 28), False)],
)
def test_colours_on_the_first_axis_are_asked_about(tmp_path, shape, told):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((2, *shape), np.uint8))
    notes = recognise(tmp_path / "a.npz").notes
    assert bool(notes) == told
    assert all("volumes of 3 slices; if these are colours, move that axis last" in n for n in notes)
