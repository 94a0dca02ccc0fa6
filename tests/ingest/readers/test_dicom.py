"""DICOM: slices go where they say they are, series become modalities, nothing else gets out."""

import locale
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ingest.dicom_files import AXIAL, IMPLICIT, NAME, multi_frame, no_image, one_slice, series
from tests.ingest.trees import scan, volume
from vitaepp.data.geometry import Grid, crop_grid, resample
from vitaepp.data.store import Store
from vitaepp.errors import RecipeError, SourceError, SubjectError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.layouts.series import modality_of, series_rules
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.dicom import read_series, series_grid
from vitaepp.ingest.readers.image import quiet
from vitaepp.ingest.readers.pictures import read_picture

OBLIQUE = (0.8, 0.6, 0, -0.48, 0.64, 0.6)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])

LPS = np.diag([-1, -1, 1])


def refused(files, message):
    with pytest.raises(SubjectError, match=message) as caught:
        read_series(files, "case/t1")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("case/t1: ")


def world(point):
    """A DICOM position in this library's world."""
    return LPS @ np.asarray(point, float)


def test_a_series_is_what_simpleitk_makes_of_it(tmp_path):
    values = volume()
    files = series(
        tmp_path, values, origin=(-3, 7, 5), step=2.5 * NORMAL, orientation=OBLIQUE,
        spacing=(1.5, 0.7),
    )  # fmt: skip
    image = read_series(sorted(files), "x")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    theirs = reader.Execute()
    assert np.array_equal(image.values, sitk.GetArrayFromImage(theirs).T)
    assert np.array_equal(series_grid(files, "x").affine, image.grid.affine)
    index = np.random.default_rng(0).uniform(0, np.array(image.grid.size) - 1, (50, 3))
    points = [theirs.TransformContinuousIndexToPhysicalPoint(i) for i in index.tolist()]
    np.testing.assert_allclose(image.grid.to_world(index), points @ LPS, atol=1e-4)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    gaps=st.floats(0.4, 9),
    spacing=st.tuples(st.floats(0.3, 4), st.floats(0.3, 4)),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    tilt=st.floats(-0.4, 0.4),
    backwards=st.booleans(),
)
def test_every_voxel_keeps_its_place(tmp_path, angles, gaps, spacing, origin, tilt, backwards):
    rotation = np.reshape(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix(), (3, 3))
    rows, columns, normal = rotation.T
    step = gaps * (normal + tilt * columns) * (-1 if backwards else 1)
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    values = volume(shape=(4, 5, 6))
    files = series(
        tmp_path / "s", values, origin=origin, step=step, spacing=spacing,
        orientation=(*rows, *columns),
    )  # fmt: skip
    image = read_series(files, "x")
    for index in np.ndindex(values.shape):
        at = origin + rows * spacing[1] * index[0] + columns * spacing[0] * index[1]
        found = image.grid.to_index(world(at + step * index[2]))
        np.testing.assert_allclose(found, np.rint(found), atol=0.01)
        assert image.values[tuple(np.rint(found).astype(int))] == values[index]


def test_gantry_tilt_is_straightened_by_resampling(tmp_path):
    """A linear ramp in space stays that ramp in a straight crop, however the slices are sheared."""
    tilt = np.tan(np.deg2rad(18))
    step = np.array([0, 3 * tilt, 3.0])
    slope = np.array([2.0, 3.0, 5.0])
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(40), np.arange(20), indexing="ij"), -1)
    points = grid[..., :2] @ np.eye(2, 3) + grid[..., 2:] * step
    files = series(tmp_path, (points @ slope).round().astype(np.int16), step=step)
    image = read_series(files, "x")
    crop = crop_grid(image.grid, (1, 1, 1), (12, 12, 12), image.grid.center)
    direction = crop.affine[:3, :3]
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    made = resample(image.values, image.grid, crop, 0.0)
    there = crop.to_world(np.stack(np.indices(crop.size), -1)) @ LPS
    np.testing.assert_allclose(made, there @ slope, atol=0.6)


def test_slices_that_are_missing_repeated_or_uneven_are_named(tmp_path):
    files = series(tmp_path / "a", volume(), step=(0, 0, 6.5))
    refused(files[:3] + files[4:], r"between slices 3 and 4 of 8, .* gap of 13 mm.* 6.5 mm apart")
    copy = shutil.copy(files[4], tmp_path / "copy.dcm")
    refused([*files, Path(copy)], "slices 5 and 6 of 10, by position, have the same position")
    moved = one_slice(tmp_path / "moved", volume()[:, :, 4].T.copy(), (0, 0, 6.5 * 4 + 1.4))
    refused([*files[:4], moved, *files[5:]], "not evenly spaced")
    aside = one_slice(tmp_path / "aside", volume()[:, :, 4].T.copy(), (0.6, 0, 6.5 * 4))
    refused([*files[:4], aside, *files[5:]], "not evenly spaced")
    refused(files[:1], "one slice")


def test_slices_that_do_not_belong_together_are_refused(tmp_path):
    files = series(tmp_path / "a", volume())
    turned = series(tmp_path / "b", volume(), origin=(0, 0, 50), orientation=OBLIQUE)
    larger = series(tmp_path / "c", volume(shape=(8, 8, 3)), origin=(0, 0, 50))
    other = series(tmp_path / "d", volume(), origin=(0, 0, 18), series="1.2.99")
    refused(files + turned, "differ in direction")
    refused(files + larger, "have 2 sizes")
    refused(files + other, "holds 2 series")
    nowhere = [one_slice(tmp_path / f"{i}", volume()[:, :, 0].T.copy(), None) for i in range(2)]
    refused(nowhere, "lacks the position of its slices")
    crooked = series(tmp_path / "e", volume(), orientation=(1, 0, 0, 0.5, 0.8, 0))
    refused(crooked, "not perpendicular")


@pytest.mark.parametrize("cut", [2, 100, 300])
def test_a_damaged_slice_is_named(tmp_path, capfd, cut):
    files = series(tmp_path, volume())
    files[3].write_bytes(files[3].read_bytes()[:-cut])
    refused(files, rf"{files[3].name}: cannot be read: truncated")
    assert capfd.readouterr() == ("", "")


def test_each_slice_has_its_own_slope_and_intercept(tmp_path):
    values = volume(shape=(4, 5, 3))
    scales = [(2, -1000), (0.5, 3), (1, 0)]
    for i, scale in enumerate(scales):
        one_slice(tmp_path / f"{i}.dcm", values[:, :, i].T.copy(), (0, 0, i), scale=scale)
    image = read_series(sorted(tmp_path.iterdir()), "x")
    expected = np.stack([values[:, :, i] * s + b for i, (s, b) in enumerate(scales)], -1)
    np.testing.assert_allclose(image.values, expected)


def test_inverted_grey_is_turned_round(tmp_path):
    values = volume(shape=(4, 5, 2)).astype(np.uint16)
    for i in range(2):
        one_slice(tmp_path / f"{i}", values[:, :, i].T.copy(), (0, 0, i), photometric="MONOCHROME1")
    image = read_series(sorted(tmp_path.iterdir()), "x")
    np.testing.assert_allclose(np.asarray(image.values, float) + values, 65535)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", "JPEGLS", "RLE"])
def test_compressed_slices_are_unpacked(tmp_path, compressor):
    spoken = locale.setlocale(locale.LC_ALL)
    values = volume(shape=(16, 12, 3)).astype(np.uint16)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    for i in range(3):
        image = sitk.GetImageFromArray(values[:, :, i].T[None])
        tags = {"0008|0018": f"1.2.{i + 1}", "0020|000e": "1.2.20", "0020|000d": "1.2.10"}
        tags |= {"0020|0032": f"0\\0\\{i * 2}", "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0060": "MR"}
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        image.SetOrigin((0, 0, 2.0 * i))
        writer.SetFileName(str(tmp_path / f"{i}.dcm"))
        with quiet():
            writer.Execute(image)
    files = sorted(tmp_path.iterdir())
    assert any(f.stat().st_size != files[0].stat().st_size for f in files) or compressor == "RLE"
    assert np.array_equal(read_series(files, "x").values, values)
    assert locale.setlocale(locale.LC_ALL) == spoken  # the image library changes it


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT])
def test_frames_of_one_file_go_where_each_says(tmp_path, syntax):
    values = volume(shape=(4, 5, 4)).astype(np.uint16)
    at = [14.0, 6.0, 10.0, 2.0]
    scales = [(1, 0), (2, 5), (0.5, 0), (1, -7)]
    file = multi_frame(
        tmp_path / "x", values, [(1, 2, z) for z in at], scales=scales, spacing=(3, 2),
        syntax=syntax,
    )  # fmt: skip
    image = read_series([file], "x")
    order = np.argsort(at)
    expected = [values[:, :, i].astype(float) * scales[i][0] + scales[i][1] for i in order]
    np.testing.assert_allclose(image.values, np.stack(expected, -1))
    np.testing.assert_allclose(image.grid.affine[:3, :3], np.diag([-2, -3, 4]))
    np.testing.assert_allclose(image.grid.affine[:3, 3], world((1, 2, 2)))
    refused([multi_frame(tmp_path / "y", values, [(0, 0, z) for z in (0, 1, 2, 5)])], "missing")


def test_a_study_is_recognised_with_reasons_for_what_is_left_out(tmp_path):
    root = tmp_path / "ada"
    names = {"T1": "T1post", "T1pre": "sag T1 mprage", "fl": "AX T2 FLAIR", "t2": "t2_tse_tra"}
    for i, (folder, description) in enumerate(names.items()):
        series(root / folder, volume(i), series=f"1.2.4{i}", description=description)
    series(root / "coarse", volume(9, (10, 12, 5)), series="1.2.50", description="T2 ax")
    series(root / "odd", volume(), series="1.2.51", description=f"{NAME} what")
    series(root / "perf", volume(), series="1.2.52", description="PERFUSION T2")
    one_slice(
        root / "loc" / "1", volume()[:, :, 0].copy(), (0, 0, 0), image_type="ORIGINAL\\LOCALIZER",
        instance="1.9.1",
    )  # fmt: skip
    one_slice(root / "cap" / "1", volume()[:, :, 0].copy(), None, instance="1.9.2")
    one_slice(root / "alone" / "1", volume()[:, :, 0].copy(), (0, 0, 0), instance="1.9.3")
    no_image(root / "SR" / "1", "1.2.840.10008.5.1.4.1.1.88.22")
    no_image(root / "RT" / "1", "1.2.840.10008.5.1.4.1.1.481.3")
    no_image(root / "DICOMDIR", "1.2.840.10008.1.3.10")
    shutil.copytree(root / "fl", root / "fl_again")
    (root / "notes.dcm").write_text(NAME)
    cohort = recognise(root)
    (subject,) = cohort.subjects
    assert subject.subject == "ada"
    assert cohort.modalities == ("flair", "t1", "t1ce", "t2")
    taken = {m: {f.parent.name for f in i.files} for m, i in subject.files.items()}
    assert taken == {"t1ce": {"T1"}, "t1": {"T1pre"}, "flair": {"fl"}, "t2": {"t2"}}
    reasons = dict(cohort.left_out)
    assert "another t2" in reasons["coarse"]
    assert "unknown series" in reasons["odd"]
    assert "ignored" in reasons["perf"]
    assert "localizer" in reasons["loc/1"]
    assert "has no slice positions" in reasons["cap/1"]
    assert "single slice" in reasons["alone/1"]
    assert "structured report" in reasons["SR/1"]
    assert "radiotherapy" in reasons["RT/1"]
    assert "DICOMDIR" in reasons["DICOMDIR"]
    assert "not a DICOM image" in reasons["notes.dcm"]
    assert sum("same image" in reason for reason in reasons.values()) == 9
    assert "Quill" not in str(cohort)


def study(folder, study="1.2.10", uid=1, description="T1"):
    series(folder, volume(uid), study=study, series=f"1.2.{uid}", description=description)


@pytest.mark.parametrize(
    ("tree", "subjects"),
    [
        ({"t1": "1", "t2": "1"}, ["root"]),
        ({"": "1"}, ["root"]),
        ({"a/t1": "1", "b/t1": "2"}, ["a", "b"]),
        ({"a": "1", "b": "2"}, ["a", "b"]),
        ({"a/deep/t1": "1"}, ["a"]),
        ({"a/2001/t1": "1", "a/2002/t1": "2", "b/t1": "3"}, ["a/2001", "a/2002", "b"]),
        ({"a/t1": "", "b/t1": ""}, ["a", "b"]),
    ],
)
def test_subjects_are_folders_as_studies_divide_them(tmp_path, tree, subjects):
    for i, (folder, uid) in enumerate(tree.items()):
        study(tmp_path / "root" / folder, f"1.2.10.{uid}" if uid else "", i)
    cohort = recognise(tmp_path / "root")
    assert [s.subject for s in cohort.subjects] == subjects
    assert all(list(s.files) == ["t1"] for s in cohort.subjects)


def test_unknown_descriptions_are_shown_on_request_and_kept_nowhere(tmp_path, capsys):
    root = tmp_path / "ada"
    series(root / "a", volume(), series="1.2.41", description="AX T2 FLAIR")
    for i in (2, 3):
        series(root / f"b{i}", volume(i), series=f"1.2.4{i}", description=f"{NAME} what")
    shown = prepare(root, dry_run=True, show_series=True, size=8)
    assert re.search(rf"\n  {re.escape(NAME)} what +2 series\n", f"{shown}\n")
    assert NAME not in str(prepare(root, dry_run=True, size=8)) + repr(shown)
    with pytest.raises(RecipeError, match="`show_series` goes with `dry_run` alone"):
        prepare(root, tmp_path / "store", size=8, show_series=True)
    prepare(root, tmp_path / "store", size=8)
    out = capsys.readouterr()
    assert NAME not in out.out + out.err
    written = [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    assert not [p for p in written if NAME.encode() in p.read_bytes()]
    (tmp_path / "t.csv").write_text("pattern,modality\nwhat,t1\n")
    every = prepare(root, dry_run=True, show_series=True, size=8, series=tmp_path / "t.csv")
    assert "none; `series=TABLE` is not needed" in str(every)


def test_where_no_series_is_known_their_descriptions_are_shown_too(tmp_path):
    series(tmp_path / "x" / "a", volume(), description=f"{NAME} what")
    with pytest.raises(SourceError) as caught:
        prepare(tmp_path / "x", dry_run=True, size=8)
    assert NAME not in str(caught.value)
    assert "`show_series`" in str(caught.value)
    with pytest.raises(SourceError, match=f"{re.escape(NAME)} what"):
        prepare(tmp_path / "x", dry_run=True, show_series=True, size=8)


def test_studies_mixed_in_one_folder_are_left_out_by_name(tmp_path):
    study(tmp_path / "a" / "x", "1.2.10.1", 1)
    series(tmp_path / "a" / "x", volume(), study="1.2.10.2", series="1.2.7", name="other{}")
    study(tmp_path / "b" / "t1", "1.2.10.3", 3)
    cohort = recognise(tmp_path)
    assert [s.subject for s in cohort.subjects] == ["b"]
    assert ("a", "2 studies lie in one folder; give each a folder of its own") in cohort.left_out


@pytest.mark.parametrize("keep", [0, 100, 200, -9])
def test_a_volume_with_a_damaged_file_is_refused_not_cut_short(tmp_path, keep):
    study(tmp_path / "a" / "t1", "1.2.10.1", 1)
    study(tmp_path / "a" / "t2", "1.2.10.1", 2, "T2")
    files = series(tmp_path / "b", volume(), study="1.2.10.2")
    files[-1].write_bytes(files[-1].read_bytes()[:keep])  # the last slice: none is missing between
    shutil.move(files[-1], tmp_path / "b" / "last.dcm")
    result = prepare(tmp_path, tmp_path / "s", modalities="t1", size=8, workers=1)
    (failure,) = result.failures
    assert failure.subject == "b"
    assert "last.dcm: " in failure.reason


def test_x_rays_are_pictures_each_a_subject(tmp_path):
    values = volume(shape=(20, 16, 2)).astype(np.uint16)
    for i, name in enumerate(("a/one.dcm", "b/two")):
        one_slice(
            tmp_path / "in" / name, values[:, :, i].T.copy(), None, modality="DX",
            instance=f"1.2.{i}", photometric="MONOCHROME1",
        )  # fmt: skip
    cohort = recognise(tmp_path / "in")
    assert cohort.kind == "pictures"
    assert [s.subject for s in cohort.subjects] == ["a/one", "b/two"]
    assert prepare(tmp_path / "in", tmp_path / "s", size=(16, 20), workers=1).failures == ()
    made = Store(tmp_path / "s").read([0])[0, 0].astype(float)
    dark = values[:, :, 0].T.max() - values[:, :, 0].T.astype(float)
    np.testing.assert_allclose(made, dark / np.ptp(values[:, :, 0]) * 255, atol=0.13)
    series(tmp_path / "in" / "a" / "t1", volume())
    cohort = recognise(tmp_path / "in")
    assert cohort.kind == "scans"
    assert "2D image" in dict(cohort.left_out)["b/two"]


def test_a_folder_of_more_scans_than_series_is_one_of_scans(tmp_path):
    series(tmp_path / "dicom", volume())
    scan(tmp_path / "a.nii.gz")
    assert recognise(tmp_path).layout == "DICOM series"
    scan(tmp_path / "b.nii.gz")
    assert recognise(tmp_path).layout != "DICOM series"


def test_patterns_of_a_user_come_first(tmp_path):
    study(tmp_path / "p" / "x", description="my special scan", uid=1)
    study(tmp_path / "p" / "y", description="T1", uid=2)
    table = tmp_path / "series.tsv"
    table.write_text("pattern\tmodality\nspecial\tmagic\n\\bt1\\b\tignore\n")
    assert recognise(tmp_path / "p", series=table).modalities == ("magic",)
    table.write_text("pattern\tmodality\n(\tmagic\n")
    with pytest.raises(SourceError, match=r"series.tsv: line 2: \( is not a regular expression"):
        recognise(tmp_path / "p", series=table)
    table.write_text("pattern\nt1\n")
    with pytest.raises(SourceError, match="needs the columns pattern and modality"):
        recognise(tmp_path / "p", series=table)


@pytest.mark.parametrize(
    ("description", "modality"),
    [
        ("AX T1", "t1"),
        ("T1_MPRAGE_SAG_P2_ISO", "t1"),
        ("T1pre_reg", "t1"),
        ("t1_tse_tra_km", "t1ce"),
        ("Ax T1 +C", "t1ce"),
        ("POST AX T1", "t1ce"),
        ("T1W 3D TFE Gd", "t1ce"),
        ("t1ce", "t1ce"),
        ("MPRAGE post contrast", "t1ce"),
        ("T1 without contrast", "t1"),
        ("C-SPINE T1 SAG", "t1"),
        ("AX T2 FLAIR", "flair"),
        ("T2W_TSE", "t2"),
        ("t2_space_dark-fluid", "flair"),
        ("ep2d_diff_3scan_trace_p2", "dwi"),
        ("ep2d_diff_3scan_trace_p2_ADC", "adc"),
        ("T2*_GRE", "swi"),
        ("3-plane localizer", "ignore"),
        ("DSC perfusion", "ignore"),
        ("TOF MIP", "ignore"),
        ("HippoCrop", ""),
        ("", ""),
    ],
)
def test_descriptions_in_use_are_told(description, modality):
    assert modality_of(description, "MR", series_rules()) == modality


def test_ct_and_pet_are_told_by_the_scanner():
    assert modality_of("T2 vertebra", "CT", series_rules()) == "ct"
    assert modality_of("", "PT", series_rules()) == "pet"
    assert modality_of("scout", "CT", series_rules()) == "ignore"


def test_a_manifest_may_name_folders_and_files_of_dicom(tmp_path):
    series(tmp_path / "x", volume())
    (tmp_path / "good").mkdir()  # a label that is also a folder
    multi_frame(tmp_path / "y.dcm", volume(), [(0, 0, 2.0 * i) for i in range(9)])
    table = pd.DataFrame({"subject": ["a", "b"], "t1": ["x", "y.dcm"], "label": ["good", "bad"]})
    table.to_csv(tmp_path / "m.csv", index=False)
    result = prepare(tmp_path / "m.csv", tmp_path / "s", size=8, workers=1)
    assert result.failures == ()
    store = Store(tmp_path / "s")
    assert list(store.table.label) == ["good", "bad"]
    assert np.array_equal(store.read([0]), store.read([1]))


def test_nothing_of_a_header_but_geometry_is_written(tmp_path, capfd):
    for i, case in enumerate(("ada", "bob")):
        study(tmp_path / "in" / case / "t1", f"1.2.{i}", i, f"T1 {NAME}")
    broken = next((tmp_path / "in" / "bob" / "t1").iterdir())
    broken.write_bytes(broken.read_bytes()[:-9])
    result = prepare(tmp_path / "in", tmp_path / "s", size=8, workers=1)
    assert [f.subject for f in result.failures] == ["bob"]
    said = "".join(capfd.readouterr()) + str(result)
    written = [file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file()]
    for secret in (NAME, "1.2.20", "Quill"):
        assert secret not in said
        assert not any(secret.encode() in data for data in written)


def test_the_real_study(data, tmp_path):
    archive = data / "glioma_dicom_3.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive.name} in the folder of real data")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "in", filter="data")
    source = tmp_path / "in" / "glioma_dicom"
    modalities = ("t1ce", "t1", "flair", "t2")
    assert prepare(source, tmp_path / "s", modalities=modalities, workers=1).failures == ()
    assert dict(recognise(source).left_out).keys() == {"11_HCropVolume"}
    store = Store(tmp_path / "s")
    (row,) = store.table.itertuples()
    assert store.info.size == (104, 112, 72)  # without a mask the whole scan
    crop = Grid(store.info.size, np.reshape(row.affine, (4, 4)))
    np.testing.assert_allclose(crop.spacing, store.info.spacing)
    image = store.read([0])[0].astype(float)
    for channel, folder in enumerate(row.source):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(source / folder))
        scan = sitk.ReadImage(files)
        direction = (LPS @ crop.direction).ravel().tolist()
        origin = world(crop.affine[:3, 3]).tolist()
        theirs = sitk.Resample(
            scan, crop.size, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, origin,
            crop.spacing.tolist(), direction, 0.0, sitk.sitkFloat64,
        )  # fmt: skip
        values = sitk.GetArrayViewFromImage(scan)
        expected = (sitk.GetArrayFromImage(theirs).T - values.min()) / np.ptp(values) * 255
        np.testing.assert_allclose(image[channel], expected.clip(0, 255), atol=0.13)
        mine = read_series(sorted((source / folder).iterdir()), "x").grid
        index = np.random.default_rng(0).uniform(0, np.array(mine.size) - 1, (100, 3))
        points = mine.to_world(index) @ LPS
        found = [scan.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()]
        assert np.abs(found - index).max() < 0.1


def test_axes_of_the_slices_are_kept_straight(tmp_path):
    files = series(tmp_path, volume(), step=(0, 0, 4), orientation=AXIAL)
    grid = read_series(files, "x").grid
    np.testing.assert_allclose(grid.affine[:3, :3], np.diag([-1, -1, 4]))


@pytest.mark.parametrize(
    ("scale", "unit", "told"),
    [
        ((1, -1024), None, False),
        ((1, -1024), "HU", False),
        ((1, 0), None, False),
        (None, None, True),
        ((1, -1024), "US", False),  # unspecified: GDCM writes it into every CT
        ((1, -1024), "ED", True),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_ct_whose_unit_the_header_does_not_say_is_noted_and_not_windowed(
    tmp_path, scale, unit, told, enhanced
):
    values = (volume()[:9, :8, :6] % 1000).astype(np.uint16) + 900
    if enhanced:
        at = [(0, 0, 2.0 * i) for i in range(6)]
        scales = None if scale is None else [scale] * 6
        files = [multi_frame(tmp_path / "p" / "x", values, at, scales=scales)]
    else:
        files = series(tmp_path / "p", values, scale=scale)
    for file in files:
        header = pydicom.dcmread(file)
        header.Modality = "CT"
        if unit and enhanced:
            for frame in header.PerFrameFunctionalGroupsSequence:
                frame.PixelValueTransformationSequence[0].RescaleType = unit
        elif unit:
            header.RescaleType = unit
        header.save_as(file)
    how = {"size": 8, "spacing": 1, "workers": 1}
    made = prepare(tmp_path / "p", tmp_path / "s", **how)
    note = "ct: its header does not say that its values are Hounsfield units"
    assert made.notes.get(note, 0) == told
    made = prepare(tmp_path / "p", tmp_path / "w", window="ct=-200,2000", **how)
    reasons = [f.reason for f in made.failures]
    assert any(note[4:] in reason for reason in reasons) == told
    looked = prepare(tmp_path / "p", window="ct=-200,2000", dry_run=True, **how)
    assert looked.failures == made.failures


@pytest.mark.parametrize(
    "tag", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"]
)
@pytest.mark.parametrize("spacing", [None, 2])
def test_pixels_of_an_x_ray_that_are_not_square_are_stretched(tmp_path, tag, spacing):
    """One object, sampled with square pixels and with pixels twice as high, looks the same."""
    rows, columns = np.mgrid[:64, :48] + 0.5
    seen = 2000 * np.exp(-(((rows - 30) / 14) ** 2) - ((columns - 20) / 9) ** 2)
    high = seen.reshape(32, 2, 48).mean(axis=1)
    one_slice(tmp_path / "a" / "x.dcm", seen.astype(np.uint16), None, modality="DX")
    file = one_slice(tmp_path / "b" / "x.dcm", high.astype(np.uint16), None, modality="DX")
    header = pydicom.dcmread(file)
    del header.PixelSpacing
    setattr(header, tag, [2, 1])
    header.save_as(file)
    proposed = [prepare(tmp_path / n, spacing=spacing, dry_run=True).dry_run.spec for n in "ab"]
    assert proposed[0].info.size == proposed[1].info.size
    made = {n: prepare(tmp_path / n, tmp_path / f"{n}.s", size=24, spacing=spacing) for n in "ab"}
    square, stretched = (Store(one.store) for one in made.values())
    assert list(made["a"].notes) == []
    assert [note for note in made["b"].notes if "not squares" in note]
    difference = np.abs(square.images[0] - stretched.images[0].astype(float))
    assert difference.max() < 0.1 * np.ptp(square.images[0])
    # Both affines lead back to the indices of their own picture, at the middle of its pixels.
    grids = [Grid((24, 24), s.table["affine"].iloc[0].reshape(3, 3)) for s in (square, stretched)]
    (row, column), at = (grid.to_world([5, 7]) for grid in grids)
    atol = 1e-6 if spacing is None else 0.51  # crops lie on the lattice of the first pixel
    np.testing.assert_allclose(at, [(row + 0.5) / 2 - 0.5, column], atol=atol)


def test_values_above_the_lowest_bit_are_refused(tmp_path):
    for i in range(3):
        file = one_slice(tmp_path / "s" / f"{i}.dcm", volume()[:, :, 0].copy(), (0, 0, i))
        header = pydicom.dcmread(file)
        header.BitsStored, header.HighBit = 12, 15
        header.save_as(file)
    for read in (
        lambda: read_series([*(tmp_path / "s").iterdir()], "x"),
        lambda: read_picture(file, "x"),
    ):
        with pytest.raises(SubjectError, match="High Bit is not Bits Stored - 1"):
            read()


def test_signed_inverted_values_of_12_bits_say_what_they_are(tmp_path):
    file = one_slice(
        tmp_path / "x.dcm", volume()[:, :, 0].astype(np.int16), None, photometric="MONOCHROME1"
    )
    header = pydicom.dcmread(file)
    header.BitsStored, header.HighBit = 12, 11
    header.save_as(file)
    with pytest.raises(SubjectError, match="MONOCHROME1 with signed values of 12 bits is not supp"):
        read_picture(file, "x")
