"""Where the voxels of NIfTI and MGH are, and their values: nibabel's, told where unusual."""

import gzip
import io
import warnings
from itertools import pairwise, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.ndimage import affine_transform

from tests.ingest.trees import volume
from vitaepp.data.geometry import Grid, crop_grid, farthest_apart, resample
from vitaepp.data.store import Store
from vitaepp.errors import SubjectError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers import nifti
from vitaepp.ingest.readers.image import NO_FORM, NO_SIZE
from vitaepp.ingest.readers.items import VolumeItem
from vitaepp.ingest.readers.scans import SHEARED, read_grid, read_scan

SHAPE = (10, 12, 9)

ROTATED = np.array([[0.0, -1.5, 0.0, 30], [2.0, 0.0, 0.0, -20], [0.0, 0.0, 3.0, 5], [0, 0, 0, 1]])
FLIPPED = ROTATED @ np.diag([-1.0, 1, 1, 1])  # qfac is -1
SHEAR = np.eye(4)
SHEAR[0, 1] = 0.25
SHIFT = np.eye(4)
SHIFT[1, 3] = 0.5


def header_of(sform, qform, codes, flip=False):
    image = nib.Nifti1Image(volume(), None)
    image.header["pixdim"][1:4] = (2, 1.5, 3)
    image.set_qform(qform, codes[1])
    image.set_sform(sform, codes[0])
    if flip:
        image.header["pixdim"][2] *= -1
    return image


def written(path, image):
    """Not by nibabel's own writer, which takes the header for wrong and mends it."""
    data = bytes(image.header.binaryblock) + b"\0" * 4 + volume().tobytes("F")
    data = bytearray(data)
    data[108:112] = np.float32(352).tobytes()
    data[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("codes", list(product((0, 1, 2, 4), repeat=2)))
@pytest.mark.parametrize(
    ("sform", "qform"),
    [
        (ROTATED, ROTATED),
        (FLIPPED, FLIPPED),
        (FLIPPED, ROTATED),
        (SHIFT @ ROTATED, ROTATED),
        (SHEAR @ ROTATED, ROTATED),
    ],
    ids=["same", "left-handed", "sides differ", "shifted", "sheared"],
)
def test_the_affine_is_nibabels_and_what_is_unusual_is_told(tmp_path, sform, qform, codes, flip):
    path = written(tmp_path / "x.nii", header_of(sform, qform, codes, flip))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = nib.load(path).affine
    image = read_scan(path, "x")
    assert np.array_equal(image.grid.affine, expected)
    assert np.array_equal(read_grid(path, "x", ndim=3).affine, expected)
    assert np.array_equal(image.values, volume())
    told = " | ".join(image.notes)
    away = np.linalg.norm((np.linalg.inv(sform) @ qform - np.eye(4))[:3, 3]) > 0.1
    away |= not np.allclose(sform[:3, :3], qform[:3, :3])
    assert ("sform and qform differ" in told) == (min(codes) > 0 and away)
    assert ("neither sform nor qform" in told) == (max(codes) == 0)
    assert ("pixdim is negative" in told) == flip
    assert (SHEARED in told) == (codes[0] > 0 and sform[0, 0] != 0)


@pytest.mark.parametrize("unit", ["unknown", "meter", "micron"])
@pytest.mark.parametrize("zero", [[1, 2, 3], [3]], ids=["all", "one"])
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_a_voxel_size_that_is_missing_is_told_where_it_counts(tmp_path, codes, zero, unit):
    image = header_of(ROTATED, ROTATED, codes)
    image.header.set_xyzt_units(unit)
    image.header["pixdim"][zero] = 0
    read = read_scan(written(tmp_path / "x.nii", image), "x")
    assert (NO_SIZE in read.notes) == (not codes[0])
    assert (NO_FORM in read.notes) == (codes == (0, 0))
    if not codes[0]:
        given = np.array([2, 1.5]) * {"unknown": 1, "meter": 1e3, "micron": 1e-3}[unit]
        expected = [1, 1, 1] if len(zero) > 1 else [*given, 1]
        np.testing.assert_allclose(read.grid.spacing, expected, rtol=1e-6)


@pytest.mark.parametrize(("by", "told"), [(0.05, False), (0.095, False), (0.105, True), (4, True)])
def test_forms_that_differ_by_a_tenth_of_a_voxel_anywhere_are_told(tmp_path, by, told):
    # Turned around the first voxel, so that only the farthest corner moves as far, in voxels.
    angle = 2 * np.arcsin(by / 2 / np.hypot(SHAPE[0] - 1, SHAPE[1] - 1))
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(z=angle))
    path = written(tmp_path / "x.nii", header_of(turned, np.eye(4), (1, 1)))
    assert any("differ" in note for note in read_scan(path, "x").notes) == told


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 1), ("unknown", 1), ("micron", 1e-3), ("meter", 1e3)]
)
def test_lengths_are_in_the_headers_unit(tmp_path, unit, factor):
    image = header_of(ROTATED, ROTATED, (1, 1))
    image.header.set_xyzt_units(unit)
    read = read_scan(written(tmp_path / "x.nii", image), "x")
    np.testing.assert_allclose(read.grid.affine[:3], ROTATED[:3] * factor, rtol=1e-6)
    assert bool(read.notes) == (factor != 1)


def test_a_broken_qform_beside_a_sform_is_told_and_alone_refused(tmp_path):
    for code, refused in ((1, False), (0, True)):
        image = header_of(ROTATED, ROTATED, (code, 1))
        image.header["quatern_b"] = 7
        path = written(tmp_path / "x.nii", image)
        if refused:
            with pytest.raises(SubjectError, match="x: cannot be read"):
                read_scan(path, "x")
        else:
            assert "differ" in read_scan(path, "x").notes[0]


def test_axes_nearly_in_one_plane_are_refused(tmp_path):
    flat = np.eye(4)
    flat[0, 1] = 20
    with pytest.raises(SubjectError, match="no usable spacing and orientation"):
        read_scan(written(tmp_path / "x.nii", header_of(flat, np.eye(4), (1, 0))), "x")


@pytest.mark.parametrize("shear", [0.0, 0.05, 0.2, 0.5])
def test_a_sheared_scan_is_resampled_as_scipy_does(tmp_path, shear):
    affine = ROTATED.copy()
    affine[:3, 2] += shear * 3 * np.array([0.6, -0.8, 0])
    values = np.random.default_rng(0).random((20, 24, 16)).astype(np.float32)
    nib.Nifti1Image(values, affine).to_filename(tmp_path / "x.nii")
    scan = read_scan(tmp_path / "x.nii", "x")
    target = crop_grid(scan.grid, (1.3, 1.7, 2.1), (14, 12, 10), scan.grid.center)
    np.testing.assert_allclose(
        target.direction.T @ target.direction, np.eye(3), atol=1e-6
    )  # the crop is straight
    step = np.linalg.inv(affine) @ target.affine
    expected = affine_transform(values, step[:3, :3], step[:3, 3], target.size, order=1, cval=-1)
    found = resample(scan.values, scan.grid, target, -1.0)
    inside = affine_transform(
        np.ones((20, 24, 16)), step[:3, :3], step[:3, 3], target.size, order=1
    )
    assert (inside == 1).mean() > 0.7
    np.testing.assert_allclose(found[inside == 1], expected[inside == 1], atol=1e-5)


def test_a_blob_in_a_sheared_scan_is_where_it_was_after_prepare(tmp_path):
    affine = SHEAR @ np.diag([1.0, 1.2, 1.5, 1])
    shape, at = (60, 50, 40), np.array([33.0, 28.0, 31.0])
    world = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    values = (1000 * np.exp(-((world - at) ** 2).sum(-1) / 18)).astype(np.float32)
    (tmp_path / "scans").mkdir()
    nib.Nifti1Image(values, affine).to_filename(tmp_path / "scans" / "a.nii.gz")
    assert (
        prepare(tmp_path / "scans", tmp_path / "s", size=32, spacing=1.5, center="image").failures
        == ()
    )
    store = Store(tmp_path / "s")
    image = store.read([0])[0, 0].astype(float)
    index = [(image * axis).sum() / image.sum() for axis in np.indices(image.shape)]
    place = apply_affine(np.reshape(store.table.affine.iloc[0], (4, 4)), index)
    np.testing.assert_allclose(place, at, atol=0.15)


SCALES = [(None, None), (2.5, None), (2, -1), (0.001, 3), (np.nan, 0), (0, 5), (1e-38, 0)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "u1", "i8"])
def test_values_are_scaled_as_nibabel_does(tmp_path, kind, dtype, scale):
    header = kind.header_class(endianness="<" if dtype[0] != ">" else ">")
    header.set_data_dtype(np.dtype(dtype).newbyteorder("="))
    image = kind(volume(shape=SHAPE).astype(np.uint8).astype(dtype), np.eye(4), header)
    image.to_filename(tmp_path / "x.nii.gz")
    data = bytearray(gzip.decompress((tmp_path / "x.nii.gz").read_bytes()))
    raw = kind.header_class(bytes(data[: header.sizeof_hdr]))
    raw["scl_slope"], raw["scl_inter"] = (0 if v is None else v for v in scale)
    data[: header.sizeof_hdr] = raw.binaryblock
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(bytes(data)))
    found = read_scan(tmp_path / "x.nii.gz", "x").values
    expected = np.asanyarray(nib.load(tmp_path / "x.nii.gz").dataobj)
    assert found.dtype.isnative
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["SimpleITK's zlib", "Python's"])
@pytest.mark.parametrize("slope", [1, 2])
def test_a_sound_compressed_scan_is_decompressed_once(tmp_path, monkeypatch, slope, large):
    image = nib.Nifti1Image(volume(), np.eye(4))
    image.header.set_slope_inter(slope, 0)
    image.to_filename(tmp_path / "x.nii.gz")
    monkeypatch.setattr(nifti, "LARGE", large)
    by_python, by_simpleitk = [], []
    fill, read = nifti._fill, nifti.read_image
    monkeypatch.setattr(nifti, "_fill", lambda *a: by_python.append(1) or fill(*a))
    monkeypatch.setattr(nifti, "read_image", lambda *a: by_simpleitk.append(1) or read(*a))
    read_scan(tmp_path / "x.nii.gz", "x")
    assert len(by_python) + len(by_simpleitk) == 1
    assert bool(by_simpleitk) == (slope == 1 and large == 0)


@pytest.mark.parametrize("large", [0, 1 << 30], ids=["SimpleITK's zlib", "Python's"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_either_zlib_gives_what_nibabel_reads(tmp_path, monkeypatch, dtype, members, large):
    monkeypatch.setattr(nifti, "LARGE", large)
    values = np.stack([volume(seed).astype(dtype) for seed in (1, 2)], axis=-1)
    nib.Nifti1Image(values, ROTATED).to_filename(tmp_path / "x.nii")
    data = (tmp_path / "x.nii").read_bytes()
    cuts = np.linspace(0, len(data), members + 1).astype(int)
    parts = [gzip.compress(data[a:b]) for a, b in pairwise(cuts)]
    (tmp_path / "x.nii.gz").write_bytes(b"".join(parts))
    for index in range(2):
        item = VolumeItem(tmp_path / "x.nii.gz", index)
        assert np.array_equal(read_scan(item, "x").values, values[..., index])
    flipped = bytearray(b"".join(parts))
    flipped[len(flipped) // 2] ^= 4
    (tmp_path / "x.nii.gz").write_bytes(flipped)
    with pytest.raises(SubjectError, match="x: cannot be read"):
        read_scan(VolumeItem(tmp_path / "x.nii.gz", 0), "x")


def mgh_affine(path):
    """By nibabel; its `load` leaves files open."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".mgz" else data
    return nib.freesurfer.mghformat.MGHHeader.from_fileobj(io.BytesIO(data)).get_best_affine()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("name", ["x.mgz", "x.mgh", "X.MGZ"])
def test_mgh_is_what_nibabel_reads(tmp_path, name, dtype):
    values = (volume() % 250).astype(dtype)
    nib.MGHImage(values, ROTATED.astype(np.float32)).to_filename(tmp_path / name.lower())
    expected = mgh_affine(tmp_path / name.lower())
    (tmp_path / name.lower()).rename(tmp_path / name)
    image = read_scan(tmp_path / name, "x")
    assert np.array_equal(image.values, values)
    np.testing.assert_allclose(image.grid.affine, expected)
    assert image.notes == ()
    grid = read_grid(tmp_path / name, "x", ndim=3)
    assert np.array_equal(grid.affine, image.grid.affine)
    result = prepare(tmp_path, tmp_path / "s", size=8, spacing=2, workers=1)
    assert result.failures == ()


def test_mgh_of_several_frames_without_place_or_cut_off(tmp_path):
    path = tmp_path / "x.mgh"
    nib.MGHImage(np.stack([volume(), volume(1)], -1).astype(np.int32), np.eye(4)).to_filename(path)
    assert np.array_equal(read_scan(VolumeItem(path, 1), "x").values, volume(1))
    with pytest.raises(SubjectError, match="is 4D"):
        read_scan(path, "x")
    data = bytearray(path.read_bytes())
    data[28:30] = b"\0\0"  # goodRASFlag
    path.write_bytes(data)
    image = read_scan(VolumeItem(path, 0), "x")
    np.testing.assert_allclose(image.grid.affine, mgh_affine(path))
    assert "MGH without a position" in image.notes[0]
    path.write_bytes(data[:3000])
    with pytest.raises(SubjectError, match="promises 8640 bytes of voxels, it has 2716"):
        read_scan(VolumeItem(path, 0), "x")
    path.write_bytes(b"hello" * 100)
    with pytest.raises(SubjectError, match="not an MGH file"):
        read_scan(path, "x")


def test_analyze_is_what_nibabel_reads_scale_and_told(tmp_path):
    image = nib.Spm99AnalyzeImage(volume(), np.diag([-2, 1.5, 3, 1.0]))
    image.header.set_slope_inter(0.5)
    image.to_filename(tmp_path / "x.hdr")
    read, theirs = read_scan(tmp_path / "x.hdr", "x"), nib.load(tmp_path / "x.img")
    assert np.array_equal(read.values, np.asanyarray(theirs.dataobj))
    assert "Analyze has no orientation" in read.notes[0]
    assert (".mat" in " ".join(read.notes)) == (tmp_path / "x.mat").is_file()
    assert NO_SIZE not in read.notes
    header = bytearray((tmp_path / "x.hdr").read_bytes())
    header[80:92] = b"\0" * 12  # pixdim[1:4]
    (tmp_path / "x.hdr").write_bytes(header)
    assert NO_SIZE in read_scan(tmp_path / "x.hdr", "x").notes


def test_a_volume_that_begins_within_its_header_is_refused(tmp_path):
    path = written(tmp_path / "x.nii", header_of(ROTATED, ROTATED, (1, 1)))
    data = bytearray(path.read_bytes())
    data[108:112] = b"\0" * 4
    path.write_bytes(data)
    with pytest.raises(SubjectError, match="not a NIfTI"):
        read_scan(path, "x")


def test_farthest_apart_is_the_greatest_distance_in_voxels():
    grid = Grid((3, 4, 5), np.diag([2.0, 2, 2, 1]))
    moved = grid.affine.copy()
    moved[0, 0] = 2.5  # of the last voxel along x, by 1 mm
    assert farthest_apart(grid, moved) == pytest.approx(0.5)
