"""DICOM as it is found: ids that persons share, bad series, odd files, padding, derived images."""

import gzip
import logging
import shutil
import struct
import time
import warnings
from pathlib import PurePosixPath

import numpy as np
import pydicom
import pytest

from tests.ingest.dicom_files import (
    EXPLICIT,
    IMPLICIT,
    MR,
    NAME,
    element,
    file_of,
    item,
    multi_frame,
    one_slice,
    series,
)
from tests.ingest.trees import picture, volume
from vitaepp.data.store import Store
from vitaepp.data.storetable import PARTICIPANT
from vitaepp.errors import SourceError, SubjectError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.layouts.dicom_studies import identity, same_persons
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.dicom import read_series
from vitaepp.ingest.readers.dicom_elements import is_dicom
from vitaepp.ingest.readers.dicom_header import read_dicom_header
from vitaepp.ingest.readers.dicom_values import TABLED
from vitaepp.ingest.readers.pictures import INVERTED, read_picture


def tree(root, folders):
    """Series by folder: description, ids of study and series, and more options of a series."""
    for i, (folder, options) in enumerate(folders.items()):
        options = {"description": "T1", "series": f"1.2.{i + 1}", **options}
        values = options.pop("values", volume(i))
        series(root / folder, values, **options)
    return root


def taken(cohort):
    """The folders of each subject's modalities."""
    return {
        s.subject: {
            m: i.files[0].parent.relative_to(cohort.root).as_posix() for m, i in s.files.items()
        }
        for s in cohort.subjects
    }


# One bad series


def bad(files, how):
    if how == "missing":
        files[4].unlink()
    elif how == "cut":
        files[4].write_bytes(files[4].read_bytes()[:-9])
    elif how == "empty":
        files[4].write_bytes(b"")
    else:
        for file in files:
            one = pydicom.dcmread(file)
            one.PixelData = b"\1" * len(one.PixelData)
            one.save_as(file)


@pytest.mark.parametrize(
    ("how", "told"),
    [("missing", "slices are missing"), ("cut", "damaged"), ("empty", "damaged"),
     ("constant", "damaged")],
)  # fmt: skip
def test_a_bad_series_costs_its_modality(tmp_path, how, told):
    for i, case in enumerate("abc"):
        flair = tmp_path / "in" / case / "flair"
        files = series(
            flair, volume(i), study=f"1.3.{i}", series="1.2.1", description="T2 FLAIR",
            name="{:03d}.dcm",
        )  # fmt: skip
        series(tmp_path / "in" / case / "t1", volume(9), study=f"1.3.{i}", series="1.2.2")
        if case == "b":
            bad(files, how)
    seen = prepare(tmp_path / "in", dry_run=True, workers=1).dry_run.fingerprint
    assert (seen.unreadable, seen.missing) == ((), {"flair": ("b",)})
    result = prepare(tmp_path / "in", tmp_path / "s", workers=1)
    assert (result.prepared, result.failures) == (3, ())
    store = Store(tmp_path / "s")
    assert store.info.modalities == ("flair", "t1")
    assert store.present.tolist() == [[True, True], [False, True], [True, True]]
    a, b, _ = store.read(range(3))
    assert not b[0].any()
    assert np.array_equal(a[1], b[1])
    note = f"flair: zero, because its series cannot be used ({told})"
    assert [list(notes) for notes in store.table.prepare_notes] == [[], [note], []]
    assert result.notes == {note: 1}
    if how != "missing":
        return
    # It fails where that is all that the subject has.
    shutil.rmtree(tmp_path / "in" / "b" / "t1")
    (failure,) = prepare(tmp_path / "in", tmp_path / "t", size=6, spacing=1, workers=1).failures
    assert failure.subject == "b"
    assert "b/flair" in failure.reason
    seen = prepare(tmp_path / "in", dry_run=True, workers=1).dry_run.fingerprint
    assert seen.unreadable == (failure,)


def test_files_with_values_above_the_lowest_bit_are_left_out_by_their_reason(tmp_path, capsys):
    root = tree(tmp_path / "p", {"t1": {}, "t2": {"description": "AX T2"}})
    for file in (root / "t2").iterdir():
        one = pydicom.dcmread(file)
        one.BitsStored, one.HighBit = 12, 15
        one.save_as(file)
    prepare(tmp_path / "p", tmp_path / "s", size=6, spacing=1, workers=1)
    assert Store(tmp_path / "s").info.modalities == ("t1",)
    told = capsys.readouterr().err
    assert "9 left out (t2/IM000: High Bit is not Bits Stored - 1, so that its values" in told


def test_a_slice_with_values_above_the_lowest_bit_does_not_cut_its_volume_short(tmp_path):
    root = tree(tmp_path / "p", {"a": {}, "b": {"study": "1.2.9"}})
    last = max((root / "a").iterdir())
    one = pydicom.dcmread(last)
    one.BitsStored, one.HighBit = 12, 15
    one.save_as(last)
    (failure,) = prepare(root, tmp_path / "s", size=6, spacing=1, workers=1).failures
    assert failure.subject == "a"
    assert "High Bit is not Bits Stored - 1" in failure.reason


def test_a_series_of_several_volumes_leaves_the_others_alone(tmp_path):
    values = volume()
    root = tree(tmp_path / "p", {"t1": {}, "t2": {"description": "AX T2"}})
    for b in range(3):  # b-values of one series, at the same places
        for z in range(9):
            one_slice(
                root / "dwi" / f"{b}_{z}", values[:, :, z].T.copy(), (0, 0, 2 * z),
                series="1.2.9", instance=f"1.9.{b}.{z}", description="ep2d_diff_b1000",
            )  # fmt: skip
    at = 2 * [(0, 0, 2.0 * i) for i in range(9)]
    multi_frame(root / "dwi2.dcm", np.concatenate([values, values], 2), at, description="DTI")
    echo = tree(tmp_path / "p", {"t2 echoes": {"description": "T2 dual", "series": "1.2.8"}})
    for i, file in enumerate(sorted((echo / "t2 echoes").iterdir())):
        one = pydicom.dcmread(file)
        one.SOPInstanceUID = f"1.8.{i}"
        one.save_as(file.with_name(f"{file.name}.echo2"))
    for z in range(9):
        one_slice(
            root / "mosaic" / f"{z}", values[:, :, z].T.copy(), (0, 0, 2 * z), series="1.2.7",
            instance=f"1.7.{z}", description="T1", image_type="ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC",
        )  # fmt: skip
    cohort = recognise(root)
    assert taken(cohort) == {"p": {"t1": "t1", "t2": "t2"}}
    left = dict(cohort.left_out)
    assert all("several volumes" in left[at] for at in ("dwi", "dwi2.dcm"))
    assert "another t2" in left["t2 echoes"]
    assert "mosaic" in left["mosaic/0"]
    result = prepare(root, tmp_path / "s", size=6, spacing=1, workers=1)
    assert (result.prepared, result.failures) == (1, ())


@pytest.mark.parametrize("twice", ["copied", "packed", "other"])
def test_images_of_one_id_are_copies_only_if_their_pixels_are(tmp_path, twice):
    """Some anonymisers give all images one id, so that two echoes look like copies."""
    values = volume()
    tree(tmp_path / "p", {"t2": {"description": "T2", "values": values}})
    for file in sorted((tmp_path / "p" / "t2").iterdir()):
        again = file.with_name(f"{file.name}.again")
        one = pydicom.dcmread(file)
        if twice == "other":
            one.PixelData = (one.pixel_array + 1).tobytes()
        elif twice == "packed":
            one.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        one.save_as(again)
    cohort = recognise(tmp_path / "p")
    (subject,) = cohort.subjects
    files = subject.files["t2"].files
    same = [why for _, why in cohort.left_out if why == "the same image as an earlier file"]
    if twice == "other":
        assert (len(files), same) == (18, [])
        with pytest.raises(SubjectError, match="several volumes in one series"):
            read_series(files, "x")
    else:
        assert len(same) == 9
        assert np.array_equal(read_series(files, "x").values, values)


def turned(degrees):
    """Directions of rows and columns of slices that are tilted by a gantry."""
    angle = np.deg2rad(degrees)
    return (1, 0, 0, 0, np.cos(angle), np.sin(angle))


#: The other part of a series: its values' shape, and options of where it lies.
CORONAL = (1, 0, 0, 0, 0, -1)
PARTS = {
    "tilt": ((10, 12, 6), {"origin": (0, 0, 18), "orientation": turned(-15)}, "differ in dir"),
    "tilt before": ((10, 12, 6), {"origin": (0, 0, -12), "orientation": turned(15)}, "differ in d"),
    "size": ((12, 14, 6), {"origin": (0, 0, 18)}, "have 2 sizes"),
    "spacing": ((10, 12, 6), {"origin": (0, 0, 18), "spacing": (1.2, 1.2)}, "differ in direction"),
    "last": ((12, 14, 1), {"origin": (0, 0, 18)}, "have 2 sizes"),
    "between": ((12, 14, 8), {"origin": (0, 0, 1)}, "have 2 sizes"),
    "coronal": ((10, 12, 6), {"origin": (0, 0, 18), "step": (0, 2, 0), "orientation": CORONAL}, ""),
    "scout": ((12, 14, 1), {"origin": (0, 0, 9)}, ""),
    "field of view": ((12, 14, 6), {"origin": (0, 0, 0)}, ""),
    "far": ((12, 14, 6), {"origin": (0, 0, 60)}, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_a_series_that_changes_on_its_way_is_refused_not_cut_short(tmp_path, name):
    shape, options, told = PARTS[name]
    ids = {"description": "CT", "modality": "CT", "series": "1.2.5"}
    values = volume()
    series(tmp_path / "p", values, **ids)
    more = {"name": "more{}", "instances": "1.7", **options}
    series(tmp_path / "p", volume(3, shape), **ids, **more)
    cohort = recognise(tmp_path)
    files = cohort.subjects[0].files["ct"].files
    if not told:  # a volume by itself
        assert np.array_equal(read_series(files, "x").values, values)
        assert len(cohort.left_out) == 1
        return
    assert len(files) == 9 + shape[2]
    result = prepare(tmp_path, tmp_path / "s", size=6, spacing=1, workers=1)
    assert told in result.failures[0].reason
    # Another whole series is used instead.
    series(tmp_path / "p" / "b", values, **{**ids, "series": "1.2.6"})
    cohort = recognise(tmp_path)
    assert len(cohort.subjects[0].files["ct"].files) == 9
    assert "not a whole volume" in str(cohort.left_out)


def test_directions_that_differ_by_rounding_are_of_one_volume(tmp_path):
    values = volume()
    for z in range(9):
        noise = 1.5e-3 * (z % 2)
        one_slice(
            tmp_path / f"{z}", values[:, :, z].T.copy(), (0, 0, 2 * z), instance=f"1.7.{z}",
            orientation=(1, noise, 0, -noise, 1, 0),
        )  # fmt: skip
    (subject,) = recognise(tmp_path).subjects
    assert np.array_equal(read_series(subject.files["t1"].files, "x").values, values)


def test_frames_of_one_stack_in_several_files_are_one_volume(tmp_path):
    values = volume(shape=(10, 12, 10))
    for i in range(2):
        at = [(0, 0, 2.0 * (5 * i + z)) for z in range(5)]
        multi_frame(tmp_path / f"{i}", values[:, :, 5 * i : 5 * i + 5], at)
    (subject,) = recognise(tmp_path).subjects
    assert np.array_equal(read_series(subject.files["t1"].files, "x").values, values)


def test_a_subject_of_nothing_else_fails_by_name(tmp_path):
    root = tree(tmp_path / "in", {"a/t1": {"study": "1.1"}, "b/t1": {"study": "1.2"}})
    for i, file in enumerate(sorted((root / "b" / "t1").iterdir())):
        one = pydicom.dcmread(file)
        one.SOPInstanceUID = f"1.8.{i}"
        one.save_as(file.with_name(f"{file.name}_"))
    (failure,) = prepare(root, tmp_path / "s", size=6, spacing=1, workers=1).failures
    assert failure.subject == "b"
    assert "have the same position" in failure.reason


# Persons of one id

SAME = {"study": "1.1", "series": "1.2"}
NO_IDS = {"study": "", "series": ""}
B = {**SAME, "description": "DWI", "instances": "1.7"}
T1, T2 = {"study": "1.1"}, {"study": "1.1", "description": "T2"}


@pytest.mark.parametrize(
    ("folders", "subjects"),
    [
        # All ids are the same: of images, too, so that each image has its double.
        ({"p1": SAME, "p2": SAME}, ["p1", "p2"]),
        ({"p1/t1": SAME, "p2/t1": SAME, "p3/t1": SAME}, ["p1", "p2", "p3"]),
        ({"x/p1/t1": SAME, "x/p2/t1": SAME}, ["x/p1", "x/p2"]),
        # That of the study is: persons have the same sequences.
        ({f"p{i}/{m}": o for i in (1, 2) for m, o in {"a": T1, "b": T2}.items()}, ["p1", "p2"]),
        (
            {f"s{j}/p{i}/{m}": o for i in (1, 2) for j in (1, 2) for m, o in
             {"a": T1, "b": T2}.items()},
            ["s1/p1", "s1/p2", "s2/p1", "s2/p2"],
        ),
        # Each has a name of its own.
        ({"p1": {**T1, "patient": "A"}, "p2": {**T1, "patient": "B"}}, ["p1", "p2"]),
        # That of the series is, and studies have their own.
        ({"p1/t1": {"study": "1.1", "series": "1.2"}, "p2/t1": {"study": "1.3", "series": "1.2"}},
         ["p1", "p2"]),
        # None has any.
        ({"p1/t1": NO_IDS, "p2/t1": NO_IDS}, ["p1", "p2"]),
        # One study in folders of its series, also below others.
        ({"5/DICOM": T1, "6/DICOM": T2}, ["root"]),
        ({"a": T1, "b": {**T1, "description": "T1 MPR"}, "c": T2}, ["root"]),
        ({"b0": B, "b1000": {**B, "instances": "1.8"}, "t1": T1, "t2": T2},
         ["root"]),
    ],
)  # fmt: skip
def test_folders_tell_persons_of_one_id_apart(tmp_path, folders, subjects):
    root = tree(tmp_path / "root", folders)
    cohort = recognise(root)
    assert [s.subject for s in cohort.subjects] == subjects
    for subject in cohort.subjects:
        for series_ in subject.files.values():
            assert len(series_.files) == 9
            (folder,) = {file.parent for file in series_.files}
            first = list(folders).index(folder.relative_to(root).as_posix())
            assert np.array_equal(read_series(series_.files, "x").values, volume(first))


def test_one_series_in_two_folders_is_one_volume(tmp_path):
    """As on discs, whose folders hold a hundred files at most."""
    values = volume()
    for folders in (lambda i: f"{i // 5}", lambda i: f"{i % 3}"):
        root = tmp_path / folders.__code__.co_code.hex()[:40]
        for i, file in enumerate(series(tmp_path / "x", values)):
            (root / folders(i)).mkdir(parents=True, exist_ok=True)
            shutil.move(file, root / folders(i))
        (subject,) = recognise(root).subjects
        assert np.array_equal(read_series(subject.files["t1"].files, "x").values, values)


@pytest.mark.parametrize(
    ("folders", "persons", "unsure"),
    [
        (["a/2001", "a/2002", "b/t1"], ["a", "a", "b"], False),
        (["a/2019-03-01", "a/2019-09-12"], ["a", "a"], False),
        (["a/01-02-2003-MR BRAIN-1", "a/05-02-2003-MR BRAIN-2"], ["a", "a"], False),
        (["s/a/baseline", "s/a/followup", "s/b/visit1"], ["s/a", "s/a", "s/b"], False),
        (["a/x", "a/y", "b/t1"], None, True),
        (["s/p1", "s/p2", "t/p3"], None, True),
        (["a", "b"], None, False),
        (["2001", "2002"], None, True),
    ],
)
def test_persons_with_several_studies_are_participants(tmp_path, folders, persons, unsure):
    for i, folder in enumerate(folders):
        series(tmp_path / folder / "t1", volume(i), study=f"1.1.{i}", series=f"1.2.{i}")
    cohort = recognise(tmp_path)
    if persons:
        assert list(cohort.table()[PARTICIPANT]) == persons
    else:
        assert PARTICIPANT not in cohort.table()
    told = [note for note in cohort.notes if note.startswith("participant: ")]
    assert len(told) == int(bool(persons) or unsure)
    assert all("`labels`" in note for note in told)


def test_names_of_patients_decide_where_they_tell(tmp_path):
    who = {"s/x": "A", "s/y": "A", "t/x": "B", "t/y": "C", "u": "D"}
    for i, (folder, patient) in enumerate(who.items()):
        series(
            tmp_path / folder / "t1",
            volume(i),
            study=f"1.1.{i}",
            series=f"1.2.{i}",
            patient=patient,
        )
    cohort = recognise(tmp_path)
    assert list(cohort.table()[PARTICIPANT]) == ["s", "s", "t/x", "t/y", "u"]


@pytest.mark.parametrize(
    ("who", "persons"),
    [
        # Accession folders, also of a split.
        ({"train/a1": "A", "test/a2": "A", "train/a3": "B", "test/a4": "C"},
         {"train/a1": "test/a2", "test/a2": "test/a2", "train/a3": "train/a3",
          "test/a4": "test/a4"}),
        ({"a1": "A", "a2": "B", "a3": "a^"}, {"a1": "a1", "a2": "a2", "a3": "a1"}),
        # A folder of visits and another of the same person.
        ({"bob/2001": "A", "bob/2002": "A", "x": "A", "y": "B"},
         {"bob/2001": "bob", "bob/2002": "bob", "x": "bob", "y": "y"}),
        # What an anonymiser writes tells nothing, and neither does what all or most have.
        ({"a1": "ANON", "a2": "ANON", "a3": "B"}, None),
        ({"a1": "", "a2": "", "a3": "B"}, None),
        ({"a1": "A", "a2": "A"}, None),
        ({"x": "B", **{f"a{i}": "SITE1" for i in range(11)}}, None),
    ],
)  # fmt: skip
def test_one_patient_in_several_folders_is_one_participant(tmp_path, who, persons):
    for i, (folder, patient) in enumerate(who.items()):
        ids = {"study": f"1.1.{i}", "series": f"1.2.{i}"}
        series(tmp_path / "in" / folder, volume(i, (6, 6, 3)), patient=patient, **ids)
    cohort = recognise(tmp_path / "in")
    table = cohort.table()
    if persons is None:
        assert PARTICIPANT not in table
    else:
        assert dict(zip(table.subject, table[PARTICIPANT], strict=True)) == persons
        assert any("by the patients that the headers name" in note for note in cohort.notes)
    # An anonymiser's word that is not known as one is told.
    told = any("name no patient, or one that most" in note for note in cohort.notes)
    assert told == (len(who) > 10)


def test_names_of_groups_and_numbers_that_sites_give_anew_join_nobody():
    arms = {
        PurePosixPath(f"s{i}"): identity(f"{'CASE' if i % 2 else 'CONTROL'}\n\n") for i in range(24)
    }
    assert same_persons(arms, {})[0] == {}
    sites = {
        PurePosixPath(f"{site}/p{i}"): identity(f"Anonymous\n00{i}\n")
        for site in ("train/north", "train/south")
        for i in (1, 2, 3)
    }
    persons, notes = same_persons(sites, {})
    assert persons == {}
    assert "3 numbers of patients occur in several folders" in notes[0]
    # A folder for each study of a patient is no site.
    studies = {
        PurePosixPath(f"test/A{i}"): identity(f"Anonymous\n00{i // 2}\n") for i in range(2, 8)
    }
    assert len(set(same_persons(studies, {})[0].values())) == 3


@pytest.mark.parametrize("named", [True, False])
def test_x_rays_of_one_patient_or_study_are_one_participant(tmp_path, named):
    values = volume(shape=(20, 16, 6)).astype(np.uint16)
    for i in range(6):
        one_slice(
            tmp_path / f"x{i}.dcm", values[:, :, i].T.copy(), None, modality="MG",
            instance=f"1.3.{i}", study=f"1.1.{i if named else i // 2}",
            patient=f"Z{i // 2}" if named else "ANON",
        )  # fmt: skip
    cohort = recognise(tmp_path)
    assert list(cohort.table()[PARTICIPANT]) == ["x0", "x0", "x2", "x2", "x4", "x4"]
    assert "Z" not in str(cohort.notes)


# Which series is which


def test_folders_name_series_without_a_description(tmp_path):
    none = {"study": "1.1", "description": ""}
    root = tree(
        tmp_path / "t2 study",
        {
            "5.0-T1post-123": none,
            "FLAIR/1": none,
            "odd": none,
            "T2": {**none, "description": "what"},
        },
    )
    cohort = recognise(root)
    assert taken(cohort) == {"t2 study": {"t1ce": "5.0-T1post-123", "flair": "FLAIR/1"}}
    assert dict(cohort.left_out).keys() == {"odd", "T2"}
    assert any("without a description" in note for note in cohort.notes)


def test_what_is_derived_is_not_taken_for_the_sequence(tmp_path):
    thick, thin = volume(1, (10, 12, 5)), volume(2, (10, 12, 11))
    root = tree(
        tmp_path / "p",
        {
            "t1": {"values": thick},
            "t1 mpr": {"values": thin, "image_type": "DERIVED\\SECONDARY\\MPR"},
            "t2": {"description": "T2", "image_type": "DERIVED\\SECONDARY"},  # by an archive
            "sub": {"description": "T1 +C", "image_type": "DERIVED\\SECONDARY\\SUBTRACTION"},
            "mip": {"description": "T1 +C", "image_type": "DERIVED\\PRIMARY\\M\\MIP"},
            "adc": {"description": "ep2d_diff", "image_type": "DERIVED\\PRIMARY\\DIFFUSION\\ADC"},
            "trace": {"description": "ep2d", "image_type": "DERIVED\\PRIMARY\\DIFFUSION\\TRACEW"},
            "map": {"description": "AX T1", "image_type": "DERIVED\\PRIMARY\\T1 MAP"},
            "phase": {"description": "SWI", "image_type": "ORIGINAL\\PRIMARY\\P\\ND"},
        },
    )
    cohort = recognise(root)
    expected = {"t1": "t1", "t2": "t2", "adc": "adc", "dwi": "trace"}
    assert taken(cohort) == {"p": expected}
    left = dict(cohort.left_out)
    assert "derived; the original t1" in left["t1 mpr"]
    assert all("ignored" in left[at] for at in ("sub", "mip", "map", "phase"))
    table = tmp_path / "own.csv"
    table.write_text("image_type,pattern,modality\nSUBTRACTION,t1,difference\n")
    assert taken(recognise(root, series=table))["p"]["difference"] == "sub"


# Odd files


def bare(data, how):
    """A DICOM file without its preamble, or without that and what says its syntax."""
    if how == "meta":
        return data[132:]
    return data[144 + struct.unpack("<I", data[140:144])[0] :]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("how", ["meta", "none", "gz", "gz by its bytes", "gz by its name"])
def test_files_without_a_preamble_and_packed_ones_are_read(tmp_path, syntax, how):
    if (how, syntax) == ("meta", IMPLICIT):
        pytest.skip("the same as of explicit ones")
    values = volume()
    name = {"gz": "IM{}.dcm", "gz by its name": "IM{}.dcm.gz"}.get(how, "IM{}")
    for file in series(tmp_path / "p", values, syntax=syntax, name=name):
        data = file.read_bytes()
        if how == "gz":
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(data))
            file.unlink()
        elif how == "gz by its bytes":
            file.write_bytes(gzip.compress(data))
        elif how != "gz by its name":
            file.write_bytes(bare(data, how))
    (subject,) = recognise(tmp_path).subjects
    assert np.array_equal(read_series(subject.files["t1"].files, "x").values, values)
    assert prepare(tmp_path, tmp_path / "s", size=6, spacing=1, workers=1).failures == ()
    for file in subject.files["t1"].files[:1]:
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(SubjectError, match="truncated"):
            read_series(subject.files["t1"].files, "x")


@pytest.mark.parametrize(
    ("content", "dicom"),
    [(b"", False), (b"\x08\0", False), (b"BM\x08\0\0\0\0\0", False), (b"<html>" * 40, False),
     (b"\0" * 200, False), (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", True),
     (b"\x08\0\0\0\x04\0\0\0\x10\0\0\0", True), (b"\0\x08\0\x05CS\0\x0aISO_IR 100", True)],
)  # fmt: skip
def test_a_beginning_without_a_preamble_is_told(tmp_path, content, dicom):
    (tmp_path / "x").write_bytes(content)
    assert is_dicom(tmp_path / "x") == dicom


def test_what_is_no_image_is_named_and_never_no_images_found(tmp_path):
    (tmp_path / "x.dcm.gz").write_bytes(gzip.compress(b"no dicom")[:-3])
    (tmp_path / "y.dcm").write_text("<html>")
    with pytest.raises(SourceError, match=r"holds no subject; x.dcm.gz: .*not a DICOM image"):
        recognise(tmp_path)
    picture(tmp_path / "z.png")
    cohort = recognise(tmp_path)
    assert cohort.kind == "pictures"
    assert "DICOM beside other images" in dict(cohort.left_out)["y.dcm"]
    (tmp_path / "one.dcm").write_bytes(file_of(MR, element(8, 8, "CS", "ORIGINAL")))
    with pytest.raises(SourceError, match="is one DICOM file; give the folder that holds it"):
        recognise(tmp_path / "one.dcm")


def nested(depth):
    data = element(8, 0x60, "CS", "MR")
    for _ in range(depth):
        data = element(0x5200, 0x9230, "SQ", item(data))
    return data


OPEN = b"\xff" * 4

HOSTILE = {
    "deep": nested(3000),
    "deep of no length": (b"\0\x52\x30\x92SQ\0\0" + OPEN + b"\xfe\xff\0\xe0" + OPEN) * 3000,
    "a value of 4 GiB": b"\x08\0\x16\0UN\0\0\xfe\xff\xff\xff" + b"1.2",
    "skipped 4 GiB": b"\x09\0\x16\0UN\0\0\xfe\xff\xff\xff" + b"1.2",
    "no numbers": element(0x28, 8, "IS", "many") + element(0x28, 0x10, "US", "x"),
    "many frames": element(0x28, 8, "IS", "9" * 12) + element(0x7FE0, 0x10, "OW", b"\0" * 8),
    "no kind": b"\x08\0\x16\0\0\0\0\0" * 1000,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_in_a_line(tmp_path, name, caplog):
    data = element(0x10, 0x10, "PN", NAME) + element(8, 0x18, "UI", NAME) + HOSTILE[name]
    (tmp_path / "x.dcm").write_bytes(file_of(MR, data))
    start = time.monotonic()
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        with pytest.raises(SubjectError, match="x: cannot be read: truncated"):
            read_dicom_header(tmp_path / "x.dcm", "x")
    assert time.monotonic() - start < 5
    assert not caplog.records
    assert not logging.getLogger("pydicom").disabled


def test_a_deflated_header_is_refused(tmp_path):
    """Nobody knows how large it gets."""
    tree(tmp_path, {"a": {}, "b": {}})
    (tmp_path / "b" / "x.dcm").write_bytes(file_of(MR, b"", "1.2.840.10008.1.2.1.99"))
    with pytest.raises(SubjectError, match="deflated"):
        read_dicom_header(tmp_path / "b" / "x.dcm", "x")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    for file in (tmp_path / "c").iterdir():
        shutil.copy(tmp_path / "b" / "x.dcm", file)
    reasons = {why for name, why in recognise(tmp_path).left_out if name.startswith("c/")}
    assert reasons == {"is deflated DICOM, which is not read; unpack it (dcmconv +te)"}


@pytest.mark.parametrize(
    ("other", "several"),
    [
        (("ROE^John", "P8"), True),
        (("ROE^John", ""), True),
        (("", "P8"), True),
        (("ROE^John", "P-7"), False),  # married since, or written otherwise
        (("Doe^Jane^^", "8"), False),
        (("ANONYMOUS", "000"), False),
        (("", ""), False),
    ],
)
def test_series_of_several_patients_in_one_folder_are_no_subject(tmp_path, other, several):
    tree(tmp_path, {"a": {}, "b": {"study": "1.2.9"}})
    series(tmp_path / "a", volume(9), description="FLAIR", series="1.2.8", name="flair{}")
    for file in (tmp_path / "a").iterdir():
        one = pydicom.dcmread(file)
        own = other if file.name.startswith("flair") else ("DOE^Jane", "P7")
        one.PatientName, one.PatientID = own
        one.save_as(file)
    cohort = recognise(tmp_path)
    assert [s.subject for s in cohort.subjects] == ["a", "b"][several:]
    why = "its headers name several patients; give each a folder of its own"
    assert (("a", why) in cohort.left_out) == several


# Padding


@pytest.mark.parametrize(
    ("stored", "padding", "scale", "noted"),
    [
        (-2000, (-2000,), (1, -1024), True),
        (-2000, (-2000,), (2.5, 7), True),
        (30000, (30000,), None, True),
        (-1990, (-2000, -1980), None, True),
        (-3024, (), (1, 0), True),  # CT without the tag
        (0, (0,), None, False),  # as low as air is
    ],
)
def test_padding_is_background(tmp_path, stored, padding, scale, noted):
    real = np.random.default_rng(0).integers(1, 1000, (6, 7, 5)).astype(np.int16)
    outside = np.zeros(real.shape, bool)
    outside[0], outside[:, -1] = True, True
    values = np.where(outside, stored, real).astype(np.int16)
    files = series(tmp_path, values, padding=padding, scale=scale, modality="CT")
    image = read_series(files, "x")
    slope, intercept = scale or (1, 0)
    expected = real * slope + intercept
    np.testing.assert_allclose(image.values[~outside], expected[~outside])
    low = expected[~outside].min() if noted else stored
    np.testing.assert_allclose(image.values[outside], low)
    assert len(image.notes) == noted + (scale is None)  # without a scale, not in Hounsfield units


def test_the_padding_of_frames_has_each_ones_scale(tmp_path):
    """pydicom's own reading of stored values, scaled by hand, is the reference."""
    values = np.random.default_rng(0).integers(100, 900, (5, 6, 4)).astype(np.uint16)
    values[0] = 5000
    scales = [(1, 0), (2, 5), (0.5, 0), (1, -7)]
    at = [(0, 0, 2.0 * i) for i in range(4)]
    file = multi_frame(tmp_path / "x", values, at, scales=scales)
    whole = pydicom.dcmread(file)
    whole.add_new(0x00280120, "US", 5000)
    whole.save_as(file)
    stored = pydicom.dcmread(file).pixel_array.transpose(2, 1, 0)
    expected = np.stack(
        [stored[..., i].astype(float) * a + b for i, (a, b) in enumerate(scales)], -1
    )
    padded = stored == 5000
    expected[padded] = expected[~padded].min()
    image = read_series([file], "x")
    np.testing.assert_allclose(image.values, expected)
    assert len(image.notes) == 1


def test_a_value_of_padding_that_occurs_is_kept_and_told(tmp_path):
    values = np.random.default_rng(0).integers(-500, 500, (6, 7, 5)).astype(np.int16)
    values[2] = 0
    image = read_series(series(tmp_path, values, padding=(0,)), "x")
    assert np.array_equal(image.values, values)
    assert image.notes == ("the value of DICOM's padding occurs in the image; kept",)


@pytest.mark.parametrize("scale", [None, (2, -7)])
@pytest.mark.parametrize("how", ["plain", "white", "shape", "both"])
def test_padding_of_an_x_ray_is_background_however_it_is_shown(tmp_path, how, scale):
    """By DICOM, MONOCHROME1 and the shape INVERSE say the same; together they invert once."""
    real = np.random.default_rng(0).integers(1, 1000, (20, 16)).astype(np.uint16)
    outside = np.zeros(real.shape, bool)
    outside[:, -3:] = True
    file = one_slice(
        tmp_path / "x", np.where(outside, 4095, real).astype(np.uint16), None, modality="DX",
        padding=(4095,), photometric=f"MONOCHROME{1 if how in ('white', 'both') else 2}",
        scale=scale,
    )  # fmt: skip
    if how in ("shape", "both"):
        one = pydicom.dcmread(file)
        one.PresentationLUTShape = "INVERSE"
        one.save_as(file)
    image = read_picture(file, "x")
    slope, _ = scale or (1, 0)
    expected = real * float(slope) * (1 if how == "plain" else -1)
    got = image.values.astype(float)
    np.testing.assert_allclose(
        got[~outside] - got[~outside].min(), expected[~outside] - expected[~outside].min()
    )
    assert (got[outside] == got[~outside].min()).all()
    assert image.notes == ((INVERTED,) if how == "shape" else ()) + (
        "DICOM's padding counts as background",
    )


def test_a_table_of_values_that_is_not_applied_is_told(tmp_path):
    values = volume(shape=(20, 16, 3)).astype(np.uint16)
    files = series(tmp_path / "a", values)
    x_ray = one_slice(tmp_path / "x", values[:, :, 0].T.copy(), None, modality="CR")
    for file in (files[0], x_ray):
        one = pydicom.dcmread(file)
        table = pydicom.Dataset()
        table.LUTDescriptor, table.LUTData = [2, 0, 16], struct.pack("<2H", 0, 10)
        one.ModalityLUTSequence = [table]
        one.save_as(file)
    assert read_picture(x_ray, "x").notes == (TABLED,)
    assert read_series(files, "x").notes == (TABLED,)
    assert read_series(files[1:], "x").notes == ()


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (["train/NORMAL/a", "train/SICK/b", "test/NORMAL/c", "test/SICK/d"],
         ["NORMAL", "SICK", "NORMAL", "SICK"]),
        (["a", "b", "c"], None),
        (["x/a", "x/b", "x/c"], None),
        # Folders of patients or studies are no classes.
        (["p1/a=1", "p1/b=1", "p2/c=2", "p2/d=2"], None),
        (["p1/a", "p2/b", "p3/c"], None),
        ([f"p{i:02d}/{view}" for i in (1, 2) for view in "abc"], None),
    ],
)  # fmt: skip
def test_folders_of_x_rays_are_classes_as_those_of_pictures(tmp_path, files, labels):
    values = volume(shape=(20, 16, 6)).astype(np.uint16)
    for i, file in enumerate(files):
        path, _, patient = file.partition("=")
        one_slice(
            tmp_path / f"{path}.dcm", values[:, :, i].T.copy(), None, modality="DX",
            study=f"1.1.{i}", instance=f"1.3.{i}", patient=patient,
        )  # fmt: skip
    cohort = recognise(tmp_path)
    of = {s.subject: s.labels.get("label") for s in cohort.subjects}
    assert of == {f.partition("=")[0]: labels[i] if labels else None for i, f in enumerate(files)}
    assert cohort.classes == (("NORMAL", "SICK") if labels else ())
    assert any(note.startswith("label: ") for note in cohort.notes) == bool(labels)
