"""Every format gives the same voxels at the same places, or one clear line on why not."""

import gzip
import pickle
import struct
from contextlib import suppress

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from tests.ingest.trees import picture, scan, volume
from vitaepp.data.store import Store
from vitaepp.data.suffixes import SCAN_READERS
from vitaepp.errors import SubjectError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.lesions import NO_AFFINE
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.arrays import FEW, NO_HEADER
from vitaepp.ingest.readers.image import NO_SIZE
from vitaepp.ingest.readers.items import files_of
from vitaepp.ingest.readers.meta import NO_AXES, UNKNOWN_UNIT
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import READERS, read_grid, read_scan

LPS = np.diag([-1, -1, 1])


def image_of(values):
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing((0.7, 1.5, 3.0))
    image.SetOrigin((5.0, -6.0, 7.0))
    image.SetDirection((0.8, -0.48, 0.36, 0.6, 0.64, -0.48, 0.0, 0.6, 0.8))
    return image


def refused(path, message, read=read_scan):
    with pytest.raises(SubjectError, match=message) as caught:
        read(path, "case/x")
    assert "\n" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr", "x.mha", "x.mhd", "x.hdr", "X.NRRD"])
def test_voxels_are_where_simpleitk_put_them(tmp_path, name, compressed, dtype):
    values = (volume() % 250).astype(dtype)
    theirs = image_of(values)
    sitk.WriteImage(theirs, str(tmp_path / name.lower()), compressed)
    (tmp_path / name.lower()).rename(tmp_path / name)
    image = read_scan(tmp_path / name, "x")
    assert image.physical
    assert np.array_equal(image.values, values)
    index = np.random.default_rng(0).uniform(0, 8, (20, 3))
    points = [theirs.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    np.testing.assert_allclose(image.grid.to_world(index), points @ LPS, atol=1e-4)
    (subject,) = recognise(tmp_path).subjects
    assert subject.subject == "x".upper() if name.isupper() else "x"
    assert set(files_of(tmp_path / name)) == set(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_nifti_2_is_what_nibabel_reads(tmp_path, name):
    affine = np.array([[-2, 0, 0.3, 4], [0, 1.5, 0, -3], [0.2, 0, 3, 9], [0, 0, 0, 1.0]])
    nib.Nifti2Image(volume(), affine).to_filename(tmp_path / name)
    image = read_scan(tmp_path / name, "x")
    assert np.array_equal(image.values, volume())
    np.testing.assert_allclose(image.grid.affine, affine)
    data = (tmp_path / name).read_bytes()
    whole = gzip.decompress(data) if name.endswith("gz") else data
    short = whole[:-100]
    (tmp_path / name).write_bytes(gzip.compress(short) if name.endswith("gz") else short)
    refused(tmp_path / name, "truncated: its header promises 2160 bytes")


@pytest.mark.parametrize(("at", "value"), [(8, 0), (12, 108), (16, 99), (344, 2), (4, 65)])
def test_a_damaged_header_of_nifti_2_is_refused_or_read_in_silence(tmp_path, capfd, at, value):
    path = tmp_path / "x.nii"
    nib.Nifti2Image(volume(), np.eye(4)).to_filename(path)
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    with suppress(SubjectError):
        read_scan(path, "x")
    assert capfd.readouterr() == ("", "")


def test_pairs_of_nifti_and_analyze(tmp_path):
    affine = np.diag([-2, 1.5, 3, 1.0])
    nib.Nifti1Pair(volume(), affine).to_filename(tmp_path / "n.hdr")
    nib.AnalyzeImage(volume(), affine).to_filename(tmp_path / "a.hdr")
    image = read_scan(tmp_path / "n.hdr", "x")
    assert np.array_equal(image.values, volume())
    np.testing.assert_allclose(image.grid.affine, affine)
    image = read_scan(tmp_path / "a.hdr", "x")
    assert np.array_equal(image.values, volume())
    # No orientation: from right to left, back to front, feet to head, around the middle.
    np.testing.assert_allclose(image.grid.affine, nib.load(tmp_path / "a.hdr").affine)
    np.testing.assert_allclose(image.grid.center, 0, atol=1e-6)
    assert [s.subject for s in recognise(tmp_path).subjects] == ["a", "n"]
    for name in "na":
        (tmp_path / f"{name}.img").write_bytes(b"\0" * 1000)
        refused(tmp_path / f"{name}.hdr", "promises 2160 bytes of voxels, it has 1000")
        (tmp_path / f"{name}.img").unlink()
        refused(tmp_path / f"{name}.hdr", rf"voxels in {name}.img: no such file")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr", "x.mha", "x.mhd"])
def test_cut_off_files_are_refused_in_silence(tmp_path, capfd, name, compressed):
    sitk.WriteImage(image_of(volume()), str(tmp_path / name), compressed)
    largest = max(tmp_path.iterdir(), key=lambda f: f.stat().st_size)
    whole = largest.read_bytes()
    for cut in (1, 50, len(whole) // 2):
        largest.write_bytes(whole[:-cut])
        refused(tmp_path / name, "truncated")
    largest.write_bytes(b"")
    refused(tmp_path / name, "empty")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["x.nrrd", "x.nhdr", "x.mha", "x.mhd", "x.nii.gz"])
def test_a_flipped_bit_of_compressed_voxels_is_refused_or_changes_nothing(tmp_path, name):
    sitk.WriteImage(image_of(volume()), str(tmp_path / name), True)
    largest = max(tmp_path.iterdir(), key=lambda f: f.stat().st_size)
    whole = largest.read_bytes()
    start = whole.find(b"LOCAL") + 6 if name == "x.mha" else len(whole) // 3
    for at in range(start, len(whole), 97):
        largest.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            assert np.array_equal(read_scan(tmp_path / name, "x").values, volume())
        except SubjectError:
            continue


ABSURD = {
    "x.nrrd": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 90000 90000 9000\n"
    b"encoding: raw\nendian: little\n\n" + b"0" * 999,
    "y.nrrd": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 90000 90000 9000\n"
    b"encoding: gzip\nendian: little\n\n" + gzip.compress(b"0" * 999),
    "x.mha": b"ObjectType = Image\nNDims = 3\nBinaryData = True\nElementSpacing = 1 1 1\n"
    b"DimSize = 90000 90000 9000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n" + b"0" * 999,
}


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize(
    ("size", "message"),
    [(b"90000 90000 9000", "promises an image of"), (b"400 400 400", "bytes, more than the file")],
)
def test_a_header_that_promises_too_much_is_refused_before_memory_is_asked_for(
    tmp_path, name, size, message
):
    (tmp_path / name).write_bytes(ABSURD[name].replace(b"90000 90000 9000", size))
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    "named", ["/etc/hostname", "../secret.raw", "sub/x.raw", "C:\\x.raw", ".."]
)
def test_voxels_outside_of_the_folder_are_not_read(tmp_path, named):
    (tmp_path / "in").mkdir()
    header = ABSURD["x.mha"].split(b"ElementDataFile")[0].replace(b"90000 90000 9000", b"9 9 9")
    (tmp_path / "secret.raw").write_bytes(b"12" * 729)
    (tmp_path / "in" / "x.mhd").write_bytes(header + f"ElementDataFile = {named}\n".encode())
    refused(tmp_path / "in" / "x.mhd", "outside its own folder")
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\nencoding: raw\ndata file: {named}\n"
    (tmp_path / "in" / "y.nhdr").write_text(nrrd)
    refused(tmp_path / "in" / "y.nhdr", "outside its own folder")
    assert len(prepare(tmp_path / "in", tmp_path / "s", size=8, workers=1).failures) == 2


@pytest.mark.parametrize("named", ["LIST", "x%03d.raw 1 9 1"])
def test_lists_of_files_are_refused(tmp_path, named):
    header = ABSURD["x.mha"].split(b"ElementDataFile")[0].replace(b"90000 90000 9000", b"9 9 9")
    (tmp_path / "x.mhd").write_bytes(header + f"ElementDataFile = {named}\n".encode())
    refused(tmp_path / "x.mhd", "list of files")


def test_a_sheared_nrrd_keeps_its_shear(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 12 9\n"
        "space directions: (1,0,0) (0,1,0) (0,0.5,3)\nendian: little\nencoding: raw\n"
        "space origin: (5,6,7)\n\n"
    )
    (tmp_path / "x.nrrd").write_bytes(header.encode() + volume().tobytes("F"))
    image = read_scan(tmp_path / "x.nrrd", "x")
    np.testing.assert_allclose(image.grid.to_world((0, 0, 2)), LPS @ (5, 7, 13), atol=1e-6)


def test_each_reader_of_a_suffix_reads():
    assert set(SCAN_READERS.values()) <= set(READERS)


def test_a_suffix_without_its_reader_is_no_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "scan.nii.gz"
    monkeypatch.setitem(SCAN_READERS, ".nii.gz", "another")
    path.write_bytes(b"healthy")
    with pytest.raises(KeyError, match="another"):
        read_scan(path, "x")
    assert read_grid(path, "x", ndim=3) is None


def test_arrays_of_numpy(tmp_path):
    np.save(tmp_path / "v.npy", volume())
    image = read_scan(tmp_path / "v.npy", "x")
    assert image.physical
    np.testing.assert_array_equal(image.grid.affine, np.eye(4))
    assert np.array_equal(image.values, volume())
    assert image.notes == (NO_HEADER,)
    np.save(tmp_path / "v.npy", volume()[:3])
    assert read_scan(tmp_path / "v.npy", "x").notes == (NO_HEADER, FEW)
    np.save(tmp_path / "v.npy", np.asfortranarray(volume()[..., None]))
    assert np.array_equal(read_scan(tmp_path / "v.npy", "x").values, volume())
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    np.save(tmp_path / "p.npy", colours)
    assert np.array_equal(read_picture(tmp_path / "p.npy", "x").values, colours)
    refused(tmp_path / "p.npy", "is 2D")
    refused(tmp_path / "v.npy", "is 3D", read_picture)


def test_a_numpy_file_that_is_pickled_cut_off_or_odd_is_refused(tmp_path):
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(ran), "w")

    path = tmp_path / "x.npy"
    np.save(path, np.array([Bomb()], object), allow_pickle=True)
    refused(path, "pickled Python objects, which are not opened")
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "not a .npy")
    assert not ran.exists()
    np.save(path, volume())
    path.write_bytes(path.read_bytes()[:-10])
    refused(path, "promises 2160 bytes of values, it has 2150")
    np.save(path, np.zeros((4, 4, 4), [("PatientName", "i4")]))
    refused(path, "are not real numbers")
    np.save(path, np.zeros((4, 5, 6, 7)))
    refused(path, "4 spatial axes")
    path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': '<i4' ")
    refused(path, "not a .npy")


def test_folders_of_numpy_are_scans_or_pictures_by_their_axes(tmp_path):
    for i in range(2):
        (tmp_path / "v").mkdir(exist_ok=True)
        (tmp_path / "p").mkdir(exist_ok=True)
        np.save(tmp_path / "v" / f"{i}.npy", volume(i))
        np.save(tmp_path / "p" / f"{i}.npy", volume(i)[0])
    assert recognise(tmp_path / "v").kind == "scans"
    assert recognise(tmp_path / "p").kind == "pictures"
    np.save(tmp_path / "v" / "4d.npy", np.stack([volume(), volume(1)]))
    np.save(tmp_path / "v" / "labels.npy", np.arange(2))
    (failure,) = prepare(tmp_path / "v", tmp_path / "s", size=8, workers=1).failures
    assert (failure.subject, "4 spatial axes" in failure.reason) == ("4d", True)
    assert Store(tmp_path / "s").table.subject.tolist() == ["0", "1"]
    assert Store(tmp_path / "s").info.spacing == (1, 1, 1)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff"])
def test_pictures_of_16_bits_keep_them(tmp_path, name):
    values = np.random.default_rng(0).integers(0, 65535, (20, 16)).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / name))
    image = read_picture(tmp_path / name, "x")
    assert image.values.dtype == np.uint16
    assert np.array_equal(image.values, values)
    assert prepare(tmp_path, tmp_path / "s", size=(20, 16), workers=1).failures == ()
    made = Store(tmp_path / "s").read([0])[0, 0].astype(float)
    expected = (values - values.min()) / np.ptp(values) * 255.0
    np.testing.assert_allclose(made, expected, atol=0.13)


def plain_tiff(values):
    """An uncompressed TIFF whose directory comes first, so that cutting it off takes pixels."""
    rows, columns = values.shape
    tags = [(256, columns), (257, rows), (258, 16), (259, 1), (262, 1), (273, 122), (277, 1)]
    tags += [(278, rows), (279, values.nbytes)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4 + values.tobytes()


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".png"])
def test_cut_off_pictures_are_refused_in_silence(tmp_path, capfd, suffix):
    path = picture(tmp_path / f"x{suffix}", shape=(40, 30))
    if suffix == ".tif":
        values = np.random.default_rng(0).integers(1, 65535, (40, 30)).astype(np.uint16)
        path.write_bytes(plain_tiff(values))
        assert np.array_equal(read_picture(path, "x").values, values)
    whole = path.read_bytes()
    for cut in (1, 40, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        refused(path, "truncated", read_picture)
    assert capfd.readouterr() == ("", "")


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 10 12 9\nencoding: raw\nendian: little\n{}\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\n{}DimSize = 10 12 9\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
IN_LPS = "space: left-posterior-superior\n"
ALONG = "space directions: ({0},0,0) (0,{0},0) (0,0,{0})\nspace origin: (1,2,3)\n"
TURNED = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\n"
CM = "lengths are in centimetres; converted to mm"


@pytest.mark.parametrize(
    ("header", "fields", "diagonal", "notes"),
    [
        (NRRD, "", (-1, -1, 1), {NO_SIZE, NO_AXES}),
        (NRRD, "content: x\nspacings: 2 2 2\n", (-2, -2, 2), {NO_AXES}),
        (NRRD, 'spacings: 0.2 0.2 0.2\nunits: "cm" "cm" "cm"\n', (-2, -2, 2), {NO_AXES, CM}),
        (NRRD, 'spacings: 2 2 2\nunits: "mm" "" "mm"\n', (-2, -2, 2), {NO_AXES}),
        (NRRD, "space dimension: 3\n" + ALONG.format(2), (-2, -2, 2), {NO_AXES}),
        (NRRD, IN_LPS + ALONG.format(2), (-2, -2, 2), set()),
        (NRRD, "space: RAS\n" + ALONG.format(2), (2, 2, 2), set()),
        (NRRD, "space: right-anterior-superior\n" + ALONG.format(2), (2, 2, 2), set()),
        (NRRD, IN_LPS + ALONG.format(0.2) + 'space units: "cm" "cm" "cm"\n', (-2, -2, 2), {CM}),
        (
            NRRD,
            IN_LPS + ALONG.format(2) + 'space units: "s" "s" "s"\n',
            (-2, -2, 2),
            {UNKNOWN_UNIT},
        ),
        (MHA, "", (-1, -1, 1), {NO_SIZE, NO_AXES}),
        (MHA, "ElementSpacing = 2 2 2\n", (-2, -2, 2), {NO_AXES}),
        (MHA, TURNED + "ElementSpacing = 2 2 2\n", (-2, -2, 2), set()),
        (MHA, TURNED + "DistanceUnits = mm\nElementSize = 2 2 2\n", (-2, -2, 2), set()),
        (MHA, TURNED + "DistanceUnits = cm\nElementSpacing = 0.2 0.2 0.2\n", (-2, -2, 2), {CM}),
    ],
)
def test_what_a_text_header_does_not_say_is_told_and_its_unit_is_used(
    tmp_path, header, fields, diagonal, notes
):
    path = tmp_path / ("x.nrrd" if header is NRRD else "x.mha")
    path.write_bytes(header.format(fields).encode() + volume().tobytes("F"))
    image = read_scan(path, "x")
    assert np.allclose(np.diag(image.grid.affine)[:3], diagonal)
    assert {*image.notes} == notes
    header_alone = read_grid(path, "x", ndim=3)
    assert header_alone is not None
    assert np.array_equal(header_alone.affine, image.grid.affine)
    if CM in notes and "0,0,0.2" in fields:
        assert np.allclose(np.abs(image.grid.affine[:3, 3]), (10, 20, 30))


def test_a_bare_mask_takes_the_grid_of_its_image(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = 2
    scan(tmp_path / "x" / "a.nii", affine=affine)
    mask = np.zeros((10, 12, 9), np.int16)
    mask[3, 4, 5] = 1
    (tmp_path / "x" / "a_mask.nrrd").write_bytes(NRRD.format("").encode() + mask.tobytes("F"))
    result = prepare(tmp_path / "x", tmp_path / "s", size=8, keep_masks=True, workers=1)
    assert NO_AFFINE in result.notes
