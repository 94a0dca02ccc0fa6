"""Masks are never images: the folder trees that people have, and what is taken for what."""

from pathlib import PurePosixPath

import numpy as np
import pytest
import SimpleITK as sitk

from tests.ingest.trees import mask, picture, scan
from vitaepp.errors import RecipeError, SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.layouts.pairing import pair
from vitaepp.ingest.planning.account import files_in_words
from vitaepp.system.progress import counted


def few(path):
    """A mask by its voxels, on the grid of `scan`, or of `picture`."""
    if path.suffix == ".png":
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.zeros((20, 16), np.uint8)
        values[5:9, 4:9] = 255
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
        return path
    return mask(path)


def tree(root, names):
    """Files by name: those that end in `!` are masks by their voxels."""
    for i, name in enumerate(names):
        path = root / name.removesuffix("!")
        if name.endswith("!"):
            few(path)
        elif path.suffix == ".png":
            picture(path, seed=i)
        else:
            scan(path, seed=i)


def each(*patterns, of=("p01", "p02", "p03")):
    return [pattern.format(s) for s in of for pattern in patterns]


#: Name, files (`!` marks a mask), and what each subject's image and mask are, by name of subject.
TREES = {
    **{
        f"beside, {sign}{word}": (
            each("{}.nii.gz", "{}" + sign + word + ".nii.gz!"),
            {s: (f"{s}.nii.gz", f"{s}{sign}{word}.nii.gz") for s in ("p01", "p02", "p03")},
        )
        for sign, word in [
            *(("_", "seg"), ("_", "mask"), ("_", "label"), ("-", "lesion"), ("_", "gt")),
            *(("-", "label"), ("_", "ROI"), (".", "seg"), ("_", "Segmentation"), ("", "Mask")),
        ]
    },
    "kits": (
        each("case_{}/imaging.nii.gz", "case_{}/segmentation.nii.gz!", of=("00", "01")),
        {
            f"case_{i}": (f"case_{i}/imaging.nii.gz", f"case_{i}/segmentation.nii.gz")
            for i in ("00", "01")
        },
    ),
    "lits": (
        each("volume-{}.nii", "segmentation-{}.nii!", of="012"),
        {f"volume-{i}": (f"volume-{i}.nii", f"segmentation-{i}.nii") for i in "012"},
    ),
    "btcv": (
        each("img/img000{}.nii.gz", "label/label000{}.nii.gz!", of="123"),
        {f"img000{i}": (f"img/img000{i}.nii.gz", f"label/label000{i}.nii.gz") for i in "123"},
    ),
    "amos without dataset.json": (
        each("imagesTr/amos_{}.nii.gz", "labelsTr/amos_{}.nii.gz!", of=("0001", "0004", "0600")),
        {
            f"amos_{i}": (f"imagesTr/amos_{i}.nii.gz", f"labelsTr/amos_{i}.nii.gz")
            for i in ("0001", "0004", "0600")
        },
    ),
    "nnU-Net without dataset.json": (
        each("imagesTr/c{}_0000.nii.gz", "labelsTr/c{}.nii.gz!", of="123"),
        {f"c{i}": (f"imagesTr/c{i}_0000.nii.gz", f"labelsTr/c{i}.nii.gz") for i in "123"},
    ),
    "suffix in another folder": (
        each("images/{}.nii.gz", "labels/{}_label.nii.gz!"),
        {s: (f"images/{s}.nii.gz", f"labels/{s}_label.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "prefix in another folder": (
        each("images/{}.nii.gz", "masks/lesion_{}.nii.gz!"),
        {s: (f"images/{s}.nii.gz", f"masks/lesion_{s}.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "two suffixes": (
        each("images/{}_t1.nii.gz", "labels/{}_manual_seg.nii.gz!"),
        {
            f"{s}_t1": (f"images/{s}_t1.nii.gz", f"labels/{s}_manual_seg.nii.gz")
            for s in ("p01", "p02", "p03")
        },
    ),
    "apart, with splits": (
        each("Training/images/{}.nii.gz", "Training/GT/{}.nii.gz!", of=("a1", "a2"))
        + each("Testing/images/{}.nii.gz", "Testing/GT/{}.nii.gz!", of=("b1",)),
        {
            **{
                f"Training/{s}": (f"Training/images/{s}.nii.gz", f"Training/GT/{s}.nii.gz")
                for s in ("a1", "a2")
            },
            "Testing/b1": ("Testing/images/b1.nii.gz", "Testing/GT/b1.nii.gz"),
        },
    ),
    "covid, rp_im and rp_msk": (
        each("rp_im/{}.nii.gz", "rp_msk/{}.nii.gz!", of="123"),
        {f"rp_im/{i}": (f"rp_im/{i}.nii.gz", f"rp_msk/{i}.nii.gz") for i in "123"},
    ),
    "below a subject, one mask": (
        each("{}/ct.nii.gz", "{}/segmentations/liver.nii.gz!"),
        {s: (f"{s}/ct.nii.gz", f"{s}/segmentations/liver.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "below a subject, many": (
        each("{}/ct.nii.gz", *(f"{{}}/segmentations/{o}.nii.gz!" for o in ("liver", "aorta"))),
        {s: (f"{s}/ct.nii.gz", None) for s in ("p01", "p02", "p03")},
    ),
    "a lesion among many": (
        each("{}/ct.nii.gz", *(f"{{}}/segmentations/{o}.nii.gz!" for o in ("liver", "tumor"))),
        {s: (f"{s}/ct.nii.gz", f"{s}/segmentations/tumor.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "frames of a heart": (
        each(
            *("patient{0}/patient{0}_frame01.nii.gz", "patient{0}/patient{0}_frame01_gt.nii.gz!"),
            *("patient{0}/patient{0}_frame12.nii.gz", "patient{0}/patient{0}_frame12_gt.nii.gz!"),
            of=("001", "002"),
        ),
        {
            f"patient{i}/patient{i}_frame{j}": (
                f"patient{i}/patient{i}_frame{j}.nii.gz",
                f"patient{i}/patient{i}_frame{j}_gt.nii.gz",
            )
            for i in ("001", "002")
            for j in ("01", "12")
        },
    ),
    "a mask a modality": (
        each("{0}/T1.nii.gz", "{0}/T1_seg.nii.gz!", "{0}/FLAIR.nii.gz", "{0}/FLAIR_seg.nii.gz!"),
        {s: (f"{s}/FLAIR.nii.gz", f"{s}/FLAIR_seg.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "a mask of the second of two": (
        each("{0}/T1.nii.gz", "{0}/T1_2.nii.gz", "{0}/T1_2_seg.nii.gz!"),
        {s: (f"{s}/T1_2.nii.gz", f"{s}/T1_2_seg.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "a mask of each of two": (
        each(
            *("{0}/T1.nii.gz", "{0}/T1_reg.nii.gz"),
            *("{0}/T1_seg.nii.gz!", "{0}/T1_reg_lesion.nii.gz!", "{0}/lesion_seg_x.nii.gz!"),
        ),
        {s: (f"{s}/T1.nii.gz", f"{s}/lesion_seg_x.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "a mask elsewhere, of the second of two": (
        each("images/{0}/T1.nii.gz", "images/{0}/T1_reg.nii.gz", "labels/{0}/T1_reg.nii.gz!"),
        {s: (f"images/{s}/T1.nii.gz", None) for s in ("p01", "p02", "p03")},
    ),
    "brats": (
        each("{0}/{0}_flair.nii.gz", "{0}/{0}_t1.nii.gz", "{0}/{0}_seg.nii.gz!"),
        {s: (f"{s}/{s}_flair.nii.gz", f"{s}/{s}_seg.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "brats, a word that nobody knows": (
        each("{0}/{0}_flair.nii.gz", "{0}/{0}_t1.nii.gz", "{0}/{0}_core.nii.gz!"),
        {s: (f"{s}/{s}_flair.nii.gz", f"{s}/{s}_core.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "modalities side by side": (
        each("{0}_T1.nii.gz", "{0}_FLAIR.nii.gz", "{0}_lesion_mask.nii.gz!"),
        {s: (f"{s}_FLAIR.nii.gz", f"{s}_lesion_mask.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "modalities in folders": (
        each("T1/{0}.nii.gz", "FLAIR/{0}.nii.gz", "masks/{0}.nii.gz!"),
        {s: (f"FLAIR/{s}.nii.gz", f"masks/{s}.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "modalities in images, masks in labels": (
        each("images/{0}_T1.nii.gz", "images/{0}_FLAIR.nii.gz", "labels/{0}.nii.gz!"),
        {
            f"images/{s}": (f"images/{s}_FLAIR.nii.gz", f"labels/{s}.nii.gz")
            for s in ("p01", "p02", "p03")
        },
    ),
    "a word that nobody knows, beside": (
        each("{}.nii.gz", "{}_blob.nii.gz!"),
        {s: (f"{s}.nii.gz", f"{s}_blob.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "a word that nobody knows, apart": (
        each("mri/{}.nii.gz", "outlined/{}.nii.gz!"),
        {f"mri/{s}": (f"mri/{s}.nii.gz", f"outlined/{s}.nii.gz") for s in ("p01", "p02", "p03")},
    ),
    "one subject": (
        ["x.nii.gz", "x_blob.nii.gz!"],
        {"x": ("x.nii.gz", "x_blob.nii.gz")},
    ),
    "ultrasound": (
        [
            f"{label}/{label} ({i}){end}"
            for label in ("benign", "malignant")
            for i in (1, 2)
            for end in (".png", "_mask.png!")
        ]
        + ["benign/benign (1)_mask_1.png!"],
        {
            f"{label}/{label} ({i})": (
                f"{label}/{label} ({i}).png",
                f"{label}/{label} ({i})_mask.png",
            )
            for label in ("benign", "malignant")
            for i in (1, 2)
        },
    ),
    "skin": (
        each("ISIC_{0}.png", "ISIC_{0}_segmentation.png!", "ISIC_{0}_superpixels.png!", of="12"),
        {f"ISIC_{i}": (f"ISIC_{i}.png", f"ISIC_{i}_segmentation.png") for i in "12"},
    ),
    "retina": (
        each(
            "training/images/{0}_training.png",
            "training/1st_manual/{0}_manual1.png!",
            of=("21", "22"),
        ),
        {
            f"training/{i}_training": (
                f"training/images/{i}_training.png",
                f"training/1st_manual/{i}_manual1.png",
            )
            for i in ("21", "22")
        },
    ),
    "shapes alone": (
        each("{}_seg.nii.gz!"),
        {f"{s}_seg": (f"{s}_seg.nii.gz", None) for s in ("p01", "p02", "p03")},
    ),
    "shapes in labels alone": (
        each("labels/{}.nii.gz!"),
        {f"labels/{s}": (f"labels/{s}.nii.gz", None) for s in ("p01", "p02", "p03")},
    ),
    "left and right shapes": (
        each("{}_left.nii.gz!", "{}_right.nii.gz!"),
        {
            f"{s}_{side}": (f"{s}_{side}.nii.gz", None)
            for s in ("p01", "p02", "p03")
            for side in ("left", "right")
        },
    ),
    "faces with and without masks": (
        each("with_mask/{}.png", "without_mask/{}.png", of="123"),
        {
            f"{label}/{i}": (f"{label}/{i}.png", None)
            for label in ("with_mask", "without_mask")
            for i in "123"
        },
    ),
    "bids with derivatives": (
        each(
            *("sub-{0}/anat/sub-{0}_T1w.nii.gz", "sub-{0}/anat/sub-{0}_label-GM_probseg.nii.gz"),
            "derivatives/x/sub-{0}/anat/sub-{0}_dseg.nii.gz!",
            of="12",
        ),
        {
            f"sub-{i}": (
                f"sub-{i}/anat/sub-{i}_T1w.nii.gz",
                f"derivatives/x/sub-{i}/anat/sub-{i}_dseg.nii.gz",
            )
            for i in "12"
        },
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_what_is_an_image_and_what_its_mask(tmp_path, name):
    files, expected = TREES[name]
    root = tmp_path / "source"
    tree(root, files)
    cohort = recognise(root)

    def told(item):
        return None if item is None else item.relative_to(root).as_posix()

    found = {
        s.subject: (told(s.files[cohort.modalities[0]]), told(s.mask)) for s in cohort.subjects
    }
    assert found == expected
    # The account says how many were taken for what, and what is not taken has a reason.
    masks = sum(mask is not None for _, mask in expected.values())
    images = len({f for s in cohort.subjects for f in s.files.values()})
    kind = cohort.kind if images > 1 else cohort.kind.removesuffix("s")
    account = f"{counted(images, 'file')} taken as {kind}, {masks} as masks"
    assert files_in_words(cohort) == account
    taken = {told(item) for s in cohort.subjects for item in (*s.files.values(), s.mask)}
    assert {f.removesuffix("!") for f in files} - taken == {path for path, _ in cohort.left_out}


def test_a_pattern_names_the_masks_and_nothing_else_is_one(tmp_path):
    tree(tmp_path, each("{}.nii.gz", "{}_seg.nii.gz!", "{}_odd.nii.gz!"))
    cohort = recognise(tmp_path, mask_pattern="*_odd.nii.gz", layout="scans")
    assert [s.subject for s in cohort.subjects if s.mask is not None] == ["p01", "p02", "p03"]
    assert {s.mask.name for s in cohort.subjects if s.mask} == {
        f"p0{i}_odd.nii.gz" for i in (1, 2, 3)
    }
    assert len(cohort.subjects) == 6
    assert len(recognise(tmp_path, mask_pattern="", layout="scans").subjects) == 9


def test_what_may_be_one_subject_or_two_is_not_guessed(tmp_path):
    tree(tmp_path, each("{}_asl.nii.gz", "{}_dce.nii.gz"))
    with pytest.raises(SourceError, match=r"may be one subject or two; list modalities .*`layout"):
        recognise(tmp_path)
    assert len(recognise(tmp_path, layout="scans").subjects) == 6
    with pytest.raises(RecipeError, match=r"`layout=scan`: did you mean scans"):
        recognise(tmp_path, layout="scan")


@pytest.mark.parametrize(
    ("files", "doubt"),
    [
        (each("{}/native.nii.gz", "{}/arterial.nii.gz", "{}/venous.nii.gz"), "one subject or two"),
        (each("{}_T1.nii.gz", "{}_T1_reg.nii.gz", "{}_T2.nii.gz"), "t1 and t2 by their names"),
        (["p01_T1.nii.gz", "p02_T1.nii.gz", "p03_FLAIR.nii.gz"], "t1 and flair by their names"),
        (["T2/p01.nii.gz", "T2/p02.nii.gz", "PD/p03.nii.gz"], "pd and t2 by their names"),
    ],
)
def test_scans_of_several_kinds_are_not_one_channel_unasked(tmp_path, files, doubt):
    tree(tmp_path, files)
    with pytest.raises(SourceError, match=doubt):
        recognise(tmp_path)
    assert len(recognise(tmp_path, layout="scans").subjects) == len(files)


def test_masks_whose_names_fit_no_image_are_told(tmp_path):
    tree(tmp_path, each("images/{}.nii.gz") + each("labels/{}.nii.gz!", of=("x7", "x8", "x9")))
    cohort = recognise(tmp_path)
    assert all(s.mask is None for s in cohort.subjects)
    assert len(cohort.subjects) == 3
    assert {why for _, why in cohort.left_out} == {"a mask without an image"}


def test_a_name_that_fits_two_images_is_not_guessed():
    images = {name: [PurePosixPath(f"{name}.nii.gz")] for name in ("a_1", "a_2")}
    mask_path = PurePosixPath("a_seg.nii.gz")
    pairs = pair(images, [mask_path])
    assert pairs.masks == {}
    assert pairs.left_out == {mask_path: "a mask whose name fits several images"}


@pytest.mark.parametrize("column", ["seg", "mask_path", "Segmentation", "lesion_label"])
def test_a_manifest_may_call_its_masks_otherwise(tmp_path, column):
    tree(tmp_path, each("{}.nii.gz", "{}_x.nii.gz!"))
    rows = "".join(f"p0{i},p0{i}.nii.gz,p0{i}_x.nii.gz\n" for i in (1, 2, 3))
    (tmp_path / "m.csv").write_text(f"subject,t1,{column}\n{rows}")
    cohort = recognise(tmp_path / "m.csv")
    assert cohort.modalities == ("t1",)
    assert cohort.has_masks
    assert cohort.notes == (f"masks: column {column}",)
    (tmp_path / "two.csv").write_text(f"subject,t1,{column},mask\np01,p01.nii.gz,a.nii,b.nii\n")
    with pytest.raises(SourceError, match=f"by its name, column {column} holds masks"):
        recognise(tmp_path / "two.csv")


def test_a_column_of_a_manifest_that_looks_like_masks_is_told(tmp_path):
    tree(tmp_path, each("{}.nii.gz", "{}_x.nii.gz!", "{}_t2.nii.gz"))
    rows = "".join(f"p0{i},p0{i}.nii.gz,p0{i}_x.nii.gz,p0{i}_t2.nii.gz\n" for i in (1, 2, 3))
    (tmp_path / "m.csv").write_text(f"subject,t1,tumor,other\n{rows}")
    cohort = recognise(tmp_path / "m.csv")
    assert cohort.modalities == ("t1", "tumor", "other")
    (note,) = cohort.notes
    assert note.startswith("column tumor is used as an image, and holds few whole numbers")
    assert recognise(tmp_path / "m.csv", ("t1", "tumor", "other")).notes == ()
