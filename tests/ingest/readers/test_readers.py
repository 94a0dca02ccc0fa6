"""A file is read right, or refused in one clear line."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from tests.ingest.trees import picture, scan, volume
from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.readers.arrays import NpzArray, npz_keys, read_array
from vitaepp.ingest.readers.image import is_grey, to_grey
from vitaepp.ingest.readers.pictures import read_picture
from vitaepp.ingest.readers.scans import read_scan


def break_off(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def corrupt_middle(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\0" * 40
    path.write_bytes(data)


def short_inside_gzip(path):
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:-100]))


def with_value(value):
    def change(path):
        values = volume().astype(np.float32)
        values[1, 2, 3] = value
        scan(path, values=values)

    return change


def nifti(values, intent=None):
    def change(path):
        image = nib.Nifti1Image(values, np.eye(4))
        if intent:
            image.header.set_intent(intent)
        image.to_filename(path)

    return change


BROKEN = [
    ("x.nii.gz", break_off, "truncated or corrupt"),
    ("x.nii", break_off, "truncated: its header promises 2160 bytes of voxels, it has 1155"),
    ("x.nii", lambda p: break_off(p, 0.02), "not a NIfTI"),
    ("x.nii.gz", corrupt_middle, "truncated or corrupt"),
    ("x.nii.gz", short_inside_gzip, "truncated: its header promises"),
    ("x.nii.gz", lambda p: p.write_text("hello"), "truncated, corrupt or not a NIfTI"),
    ("x.nii", lambda p: p.write_text("hello" * 200), "not a NIfTI"),
    ("x.nii", lambda p: p.write_bytes(b""), "empty"),
    ("x.nii", lambda p: p.unlink(), "no such file"),
    ("x.nii.gz", with_value(np.nan), "1 of 1080 voxels are NaN or infinite"),
    ("x.nii", with_value(-np.inf), "NaN or infinite"),
    ("x.nii", nifti(np.stack([volume()] * 2, -1)), r"is 4D \(10×12×9×2\); a 3D volume"),
    ("x.nii", nifti(volume()[:, :, 0]), "is 2D"),
    ("x.nii", nifti(np.stack([volume()] * 3, -1)[:, :, :, None], "vector"), "3 values per voxel"),
    ("x.nii", nifti(np.full((5, 5, 5), 7, np.int16)), "the same value, 7"),
    ("x.nii", nifti(volume().astype(np.complex64)), "complex"),
]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_a_broken_scan_is_refused_in_one_line_and_silence(tmp_path, capfd, name, change, message):
    path = scan(tmp_path / name)
    change(path)
    with pytest.raises(SubjectError, match=message) as caught:
        read_scan(path, "case/x")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("case/x: ")
    assert str(tmp_path) not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(10, 12, 9), (130, 130, 130)], ids=["small", "large"])
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.mgz", "x.mgh", "x.img.gz"])
def test_whether_a_file_is_compressed_is_told_by_its_bytes(tmp_path, name, shape):
    kind = {"m": nib.MGHImage, "i": nib.Nifti1Pair}.get(name[2], nib.Nifti1Image)
    values = volume(shape=shape).astype(np.float32)
    kind(values, np.eye(4, dtype=np.float32)).to_filename(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    packed = data[:2] == b"\x1f\x8b"
    (tmp_path / name).write_bytes(gzip.decompress(data) if packed else gzip.compress(data, 1))
    path = tmp_path / name.replace(".img.gz", ".hdr")
    if path.name != name:  # nibabel packs both
        (tmp_path / "x.hdr.gz").rename(path)
    assert np.array_equal(read_scan(path, "x").values, values)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path):
    path = scan(tmp_path / "x.nii.gz")
    data, sound = path.read_bytes(), read_scan(path, "x")
    refused = 0
    for at in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert np.array_equal(read_scan(path, "x").values, sound.values)
        except SubjectError:
            refused += 1
    assert refused > len(data) / 5 * 0.9


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "X.NII"])
def test_scans_of_every_type_are_what_nibabel_reads(tmp_path, dtype, name):
    values = volume().astype(dtype)
    nib.Nifti1Image(values, np.diag([-2, 1.5, 1, 1])).to_filename(tmp_path / "y.nii.gz")
    data = gzip.decompress((tmp_path / "y.nii.gz").read_bytes())
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    image = read_scan(tmp_path / name, "x")
    assert np.array_equal(image.values, values)
    np.testing.assert_allclose(image.grid.affine, np.diag([-2, 1.5, 1, 1]))


@pytest.mark.parametrize("order", ["<", ">"])
def test_trailing_axes_of_one_and_either_byte_order_are_fine(tmp_path, order):
    header = nib.Nifti1Header(endianness=order)
    values = volume()[..., None].astype(np.float32)
    header.set_data_dtype(header.structarr["dim"].dtype.newbyteorder(order).str[0] + "f4")
    nib.Nifti1Image(values, np.eye(4), header).to_filename(tmp_path / "x.nii")
    assert np.array_equal(read_scan(tmp_path / "x.nii", "x").values, values[..., 0])
    break_off(tmp_path / "x.nii", 0.9)
    with pytest.raises(SubjectError, match="truncated"):
        read_scan(tmp_path / "x.nii", "x")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_picture_is_refused_in_silence(tmp_path, capfd, suffix):
    path = picture(tmp_path / f"x{suffix}", shape=(64, 64))
    break_off(path)
    with pytest.raises(SubjectError, match=r"x: .*truncated"):
        read_picture(path, "x")
    assert capfd.readouterr() == ("", "")


def test_pictures_keep_rows_columns_and_colours_and_lose_what_is_opaque(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 255, (7, 5, 4)).astype(np.uint8)
    rgba[..., 3] = 255
    sitk.WriteImage(sitk.GetImageFromArray(rgba, isVector=True), str(tmp_path / "x.png"))
    image = read_picture(tmp_path / "x.png", "x")
    assert np.array_equal(image.values, rgba[..., :3])
    assert image.grid.size == (7, 5)
    assert image.is_colour
    assert not is_grey(image)
    np.testing.assert_allclose(to_grey(image), rgba[..., :3] @ [0.299, 0.587, 0.114])
    grey = read_picture(picture(tmp_path / "g.png"), "g")
    assert is_grey(grey)
    assert np.array_equal(to_grey(grey), grey.values[..., 0])


@pytest.mark.parametrize(
    ("shape", "space", "colour"),
    [
        ((8, 8), (8, 8), False),
        ((8, 8, 3), (8, 8), True),
        ((8, 8, 1), (8, 8), False),
        ((8, 8, 8), (8, 8, 8), False),
        ((8, 8, 8, 3), (8, 8, 8), True),
    ],
)
def test_arrays_of_pictures_and_volumes_are_distinct(shape, space, colour):
    image = read_array(np.random.default_rng(0).random(shape), "x")
    assert image.grid.size == space
    assert image.is_colour == colour


def test_npz_items_come_one_by_one_and_strangers_code_is_not_run(tmp_path):
    arrays = {"a": np.arange(24).reshape(4, 3, 2), "f": np.asfortranarray(np.eye(3))}
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    assert npz_keys(tmp_path / "x.npz") == ["a", "f"]
    for key, value in arrays.items():
        assert np.array_equal(np.stack(list(NpzArray(tmp_path / "x.npz", key))), value)
    with pytest.raises(SourceError, match="has no array b"):
        NpzArray(tmp_path / "x.npz", "b")
    np.savez(tmp_path / "o.npz", a=np.array([object()]))
    with pytest.raises(SourceError, match="Python objects"):
        NpzArray(tmp_path / "o.npz", "a")
    break_off(tmp_path / "x.npz")
    with pytest.raises(SourceError, match="truncated"):
        npz_keys(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d[:-40],
        lambda d: d[:18] + b"\xff" * 4 + d[22:],
        lambda d: d[:20],
        lambda d: d[:30] + b"\7" + d[31:],
    ],
)
def test_a_bmp_that_the_image_library_would_make_up_is_refused(tmp_path, change):
    path = picture(tmp_path / "x.bmp", colour=True)
    sound = read_picture(picture(tmp_path / "x.png", colour=True), "x").values
    assert np.array_equal(read_picture(path, "x").values, sound)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SubjectError, match="x: cannot be read"):
        read_picture(path, "x")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"NDims = 3", b"NDims = -1"),  # crashes the library
        (b"NDims = 3", b"NDims = 33"),
        (b"DimSize = 10 12 9", b"DimSize = 10 12"),
        (b"DimSize = 10 12 9", b"DimSize = 10 12 10"),
        (b"CompressedDataSize", b"SompressedDataSize"),  # gives memory that nobody filled
        (b"ElementDataFile = LOCAL\n", b"ElementDataFile = LOCAL\nx"),
    ],
)
def test_a_compressed_metaimage_is_what_it_promises_or_refused(tmp_path, before, after):
    path = tmp_path / "x.mha"
    sitk.WriteImage(sitk.GetImageFromArray(volume().T), str(path), useCompression=True)
    assert np.array_equal(read_scan(path, "x").values, volume())
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, after))
    with pytest.raises(SubjectError, match="x: cannot be read"):
        read_scan(path, "x")


def test_a_tiff_of_ink_is_read_as_light(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (9, 8)).astype(np.uint8)
    path = tmp_path / "x.tif"
    Image.fromarray(values).save(path)
    assert np.array_equal(read_picture(path, "x").values, values)
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 1))
    data[at + 8] = 0
    path.write_bytes(data)
    assert np.array_equal(read_picture(path, "x").values, 255 - values)


def test_a_picture_is_read_by_what_it_begins_with_and_nothing_else_is(tmp_path):
    sound = read_picture(picture(tmp_path / "x.png"), "x").values
    (tmp_path / "x.png").rename(tmp_path / "x.bmp")
    assert np.array_equal(read_picture(tmp_path / "x.bmp", "x").values, sound)
    sitk.WriteImage(sitk.GetImageFromArray(volume()[0]), str(tmp_path / "y.mha"))
    (tmp_path / "y.mha").rename(tmp_path / "y.png")
    with pytest.raises(SubjectError, match="y: cannot be read"):
        read_picture(tmp_path / "y.png", "y")


def test_a_jpeg_whose_data_are_mended_is_refused_and_bytes_to_spare_are_not(tmp_path, capfd):
    path = picture(tmp_path / "x.jpg", shape=(64, 64))
    data, sound = path.read_bytes(), read_picture(path, "x").values
    path.write_bytes(data[:-2] + b"\x12\x34" + data[-2:])
    assert np.array_equal(read_picture(path, "x").values, sound)
    path.write_bytes(data[: len(data) // 2] + b"\x77" * 9 + b"\xff\xd9")
    with pytest.raises(SubjectError, match="x: cannot be read: its data are corrupt"):
        read_picture(path, "x")
    assert capfd.readouterr() == ("", "")
