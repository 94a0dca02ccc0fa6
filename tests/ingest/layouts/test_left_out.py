"""Every image of a source is taken, or left out with a reason."""

import shutil
from pathlib import Path

import pytest

from tests.ingest import official, trees
from tests.ingest.dicom_files import series
from tests.ingest.layouts.test_bids import bids
from tests.ingest.layouts.test_decathlon import decathlon, nnunet
from vitaepp.data.suffixes import PICTURE_SUFFIXES, SCAN_SUFFIXES, suffix_of
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import NOT_READ, left_out_in_words, recognise
from vitaepp.ingest.layouts.dicom_series import DICOM_SUFFIXES
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.items import files_of


def images_and_masks(root: Path) -> Path:
    for name in ("a", "b"):
        trees.scan(root / "images" / f"{name}.nii.gz")
        trees.mask(root / "labels" / f"{name}.nii.gz")
    return root


SOURCES = {
    "bids": bids,
    "decathlon": decathlon,
    "nnunet": nnunet,
    "brats": official.brats2018,
    "brats 2020": official.brats2020,
    "egd": official.egd,
    "images": images_and_masks,
    "pictures": official.chest_xray,
    "tiny_imagenet": official.tiny_imagenet,
}


#: Files that may hold images and are not read, with the reasons, and files that hold none.
UNREAD = {
    "old.mnc": "its format is not read",
    "arrays.npz": "arrays inside the source; name the file itself as SOURCE",
    "p09.nii.bz2": "its format is not read",
    "p15+orig.BRIK": "its format is not read",
    "p15+orig.HEAD": "its format is not read",
    "p16+orig.BRIK.gz": "its format is not read",
    **dict.fromkeys(("a.mnc.gz", "b.dcm.bz2", "c.png.gz", "d.nii.Z"), "its format is not read"),
    **dict.fromkeys(("e.jxl", "f.fits", "g.img.gz"), "its format is not read"),
    "p17.IMG": "without its header (.hdr)",
    "p18.nii.gz.aria2": "an incomplete download; download it again",
    "p10.NII.ZIP": "an archive inside the source; extract it",
    "sub/p11.tar.gz": "an archive inside the source; extract it",
    "p12.7z": "an archive inside the source; extract it",
    "p13.nii.gz.part": "an incomplete download; download it again",
    "p14.zip.tmp": "an incomplete download; download it again",
    "Unconfirmed 1.crdownload": "an incomplete download; download it again",
}
SIDE_CARS = ("README", "notes.pdf", "p01.json", "p01.bval", "LICENSE.txt", "x.tmp", ".DS_Store")


def dicom(root: Path) -> Path:
    series(root / "p1", trees.volume((8, 8, 4)).astype("uint16"))
    return root


@pytest.mark.parametrize("name", [*SOURCES, "dicom"])
def test_archives_and_unfinished_downloads_are_listed_whatever_the_layout(tmp_path, name):
    root = (SOURCES | {"dicom": dicom})[name](tmp_path / "source")
    before = recognise(root)
    for file in (*UNREAD, *SIDE_CARS):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(b"x")
    after = recognise(root)
    assert [s.subject for s in after.subjects] == [s.subject for s in before.subjects]
    assert dict(after.left_out) == {**dict(before.left_out), **UNREAD}


def test_what_is_read_is_never_called_unread():
    read = {*SCAN_SUFFIXES, *PICTURE_SUFFIXES, *DICOM_SUFFIXES}
    for reason, suffixes in NOT_READ.items():
        assert not read.intersection(suffixes), reason


def test_a_folder_of_archives_alone_says_that_they_are_to_be_extracted(tmp_path):
    (tmp_path / "p01.zip").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no images found; p01.zip: an archive inside the"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", SOURCES)
def test_no_image_of_any_layout_is_lost_in_silence(tmp_path, name):
    root = SOURCES[name](tmp_path / "source")
    trees.scan(root / "elsewhere" / "stray.nii.gz")
    trees.mask(root / "labels" / "nobody.nii.gz")
    trees.picture(root / "qc" / "slice.png")
    (root / "old.mnc").write_bytes(b"x")
    cohort = recognise(root)
    taken = {
        file.relative_to(root).as_posix()
        for s in cohort.subjects
        for item in (*s.files.values(), *filter(None, [s.mask]))
        for file in files_of(item)
    }
    images = (*SCAN_SUFFIXES, *PICTURE_SUFFIXES, ".mnc")
    there = {
        f.relative_to(root).as_posix()
        for f in root.rglob("[!.]*")
        if f.is_file() and suffix_of(f.name, images)
    }
    left_out = dict(cohort.left_out)
    left_out.pop("sub-09", None)  # a participant without files
    assert taken | left_out.keys() == there
    assert not taken & left_out.keys()
    assert all(left_out.values())
    assert left_out["old.mnc"] == "its format is not read"


def test_what_is_left_out_of_images_with_masks_and_of_copies(tmp_path):
    source = images_and_masks(tmp_path / "a")
    trees.mask(source / "labels" / "c.nii.gz")
    trees.scan(source / "other" / "d.nii.gz")
    assert dict(recognise(source).left_out) == {
        "labels/c.nii.gz": "a mask without an image",
        "other/d.nii.gz": "not in a folder of scans",
    }
    source = official.chest_xray(tmp_path / "b", train=1, test=0)
    shutil.copytree(source, tmp_path / "copy")
    (tmp_path / "copy").rename(source / "chest_xray")
    assert [why for _, why in recognise(source).left_out] == ["a copy of another"] * 2


def test_a_modality_of_few_is_left_out_unless_it_is_asked_for(tmp_path):
    source = trees.brats(tmp_path, names=("t1", "t2"))
    trees.scan(source / "a" / "a_flair.nii.gz")
    assert dict(recognise(source).left_out) == {
        "a/a_flair.nii.gz": "modality flair: 1 of 3 subjects have it; `modalities` can include it"
    }
    assert recognise(source, ["flair", "t1"]).left_out == ()


def test_prepare_tells_in_one_line_how_many_are_left_out(tmp_path, capsys):
    source = images_and_masks(tmp_path / "x")
    prepare(source, tmp_path / "store", size=8)
    assert "left out" not in capsys.readouterr().err
    trees.mask(source / "labels" / "c.nii.gz")
    trees.mask(source / "labels" / "d.nii.gz")
    prepare(source, tmp_path / "store", size=8)
    expected = (
        "2 left out (labels/c.nii.gz: a mask without an image, …); "
        "prepare `dry_run` lists more of them"
    )
    assert f"x: {expected}\n" in capsys.readouterr().err
    assert left_out_in_words(recognise(source)) == expected
