"""What a source holds ends where the source ends, and what may run code is not opened."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.ingest.trees import picture, scan
from vitaepp.data.store import Store
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise
from vitaepp.ingest.layouts.cohort import SINGLE, Cohort, Source, SubjectFiles
from vitaepp.ingest.prepare import prepare


def test_links_that_lead_out_are_left_out_and_said_and_those_inside_are_followed(tmp_path, capsys):
    source = tmp_path / "x"
    scan(source / "a.nii.gz")
    scan(source / ".hidden" / "h.nii.gz", seed=1)
    scan(tmp_path / "elsewhere" / "secret.nii.gz", seed=2)
    (source / "file.nii.gz").symlink_to(tmp_path / "elsewhere" / "secret.nii.gz")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "above").symlink_to("..")
    # The beginning of the name is the source's, the folder is not.
    scan(tmp_path / "x-beside" / "b.nii.gz")
    (source / "beside").symlink_to("../x-beside")
    (source / "inside.nii.gz").symlink_to("a.nii.gz")
    (source / "again").symlink_to(".hidden")
    (source / "loop").symlink_to(".")
    (source / "broken.nii.gz").symlink_to("nowhere.nii.gz")
    result = prepare(source, tmp_path / "s", size=6)
    assert list(Store(tmp_path / "s").table.subject) == ["a", "inside", "again/h"]
    assert [f.subject for f in result.failures] == ["broken"]
    told = dict(recognise(source).left_out)
    assert sorted(told) == ["above", "beside", "file.nii.gz", "folder"]
    assert set(told.values()) == {"is a link that leads out of the source; copy what it points to"}
    assert "left out (above: is a link that leads out" in capsys.readouterr().err


def test_a_source_that_is_a_link_itself_is_what_it_points_to(tmp_path):
    scan(tmp_path / "real" / "a.nii.gz")
    (tmp_path / "link").symlink_to("real")
    assert [s.subject for s in recognise(tmp_path / "link").subjects] == ["a"]
    assert recognise(tmp_path / "link").left_out == ()


def test_a_source_of_nothing_but_links_says_so(tmp_path):
    scan(tmp_path / "a.nii.gz")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.nii.gz").symlink_to(tmp_path / "a.nii.gz")
    with pytest.raises(SourceError, match=r"no images found; a.nii.gz: is a link that leads out"):
        recognise(tmp_path / "x")


def test_what_is_no_file_and_names_that_are_no_text_are_left_out(tmp_path):
    scan(tmp_path / "x" / "a.nii.gz")
    os.mkfifo(tmp_path / "x" / "pipe.nii.gz")
    scan(tmp_path / "b.nii.gz").rename(tmp_path / "x" / os.fsdecode(b"b\xff.nii.gz"))
    cohort = recognise(tmp_path / "x")
    assert [s.subject for s in cohort.subjects] == ["a"]
    assert dict(cohort.left_out) == {
        "pipe.nii.gz": "is not a file but a device, a pipe or a socket",
        "b\ufffd.nii.gz": "its name is not UTF-8; rename it",
    }


def test_a_layout_cannot_name_a_file_outside(tmp_path, monkeypatch):
    scan(tmp_path / "x" / "a.nii.gz")
    outside = scan(tmp_path / "elsewhere" / "secret.nii.gz")
    (tmp_path / "x" / "link").symlink_to(tmp_path / "elsewhere")

    def layout(source: Source) -> Cohort:
        files = {SINGLE: source.path / named[0]}
        return Cohort("a table", "scans", source.path, (SubjectFiles("s", files),))

    monkeypatch.setattr("vitaepp.ingest.layouts.LAYOUTS", (("table", "a table", layout),))
    named: list[Path | str] = []
    for path in (outside, Path("..", "elsewhere", "secret.nii.gz"), "link/secret.nii.gz"):
        named[:] = [path]
        with pytest.raises(SourceError, match="s has a file that is not in this folder"):
            recognise(tmp_path / "x")
    named[:] = ["missing.nii.gz"]  # its turn comes
    assert len(recognise(tmp_path / "x").subjects) == 1


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("name", ["x.pt", "x.pkl", "x.npz", "train_images.npz"])
def test_pickles_are_refused_in_one_line_and_not_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name.endswith(".npz"):
        np.savez(name, train_images=np.array([Bomb(), 1], object))
    else:
        Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(SourceError, match="pickle, which may run code") as caught:
        prepare(name, "s")
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()
    assert not Path("s").exists()


def test_pickles_among_pictures_are_no_pictures(tmp_path):
    picture(tmp_path / "x" / "a.png")
    (tmp_path / "x" / "b.pt").write_bytes(pickle.dumps(Bomb()))
    assert [s.subject for s in recognise(tmp_path / "x").subjects] == ["a"]
