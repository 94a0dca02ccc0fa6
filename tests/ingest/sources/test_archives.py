"""An archive is as good as the folder in it, and no archive does harm."""

import io
import lzma
import os
import shutil
import signal
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from tests.ingest import official
from tests.ingest.trees import brats, scan
from tests.ingest.workers.test_killed import files_of
from tests.processes import Forked
from vitaepp.data.store import Store
from vitaepp.data.suffixes import ARCHIVE_SUFFIXES
from vitaepp.errors import RecipeError, SourceError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.sources import archives
from vitaepp.ingest.sources.archives import opened
from vitaepp.recipe.sections import PrepareSettings

ANY = PrepareSettings()


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    """A folder of temporary files of the test's own, which must be empty in the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert os.listdir(folder) == []


def pack(folder: Path, archive: Path, below: str = "") -> Path:
    """An archive of what is in a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as made:
            for file in files:
                made.write(file, Path(below, file.relative_to(folder)))
        return archive
    ends = {".gz": "gz", ".tgz": "gz", ".xz": "xz", ".txz": "xz", ".bz2": "bz2", ".tbz2": "bz2"}
    with tarfile.open(archive, f"w:{ends.get(archive.suffix, '')}") as made:
        made.add(folder, below or ".")
    return archive


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, f"w:{'gz' if path.suffix == '.gz' else ''}") as made:
        for info, data in entries:
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def refusal(archive: Path, **settings) -> str:
    with pytest.raises(SourceError) as caught, opened(archive, PrepareSettings(**settings)):
        pass
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{archive.name}: ")
    return str(caught.value)


@pytest.mark.parametrize("below", ["", "cohort"])
@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_the_store_is_the_one_of_the_extracted_folder(tmp_path, suffix, below):
    source = brats(tmp_path / "cohort", subjects="ab", names=("t1", "t2"))
    (source / "a" / "a_t2.nii.gz").write_bytes(b"broken")
    archive = pack(source, tmp_path / f"cohort{suffix}", below)
    plain = prepare(source, tmp_path / "folder", size=6)
    result = prepare(archive, tmp_path / "store", size=6)
    assert result.failures == plain.failures
    assert result.prepared == 1
    assert files_of(tmp_path / "store") == files_of(tmp_path / "folder")
    assert list(Store(tmp_path / "store").table.source[0]) == ["b/b_t1.nii.gz", "b/b_t2.nii.gz"]
    again = prepare(archive, tmp_path / "store", size=6)
    assert (again.prepared, again.skipped) == (0, 1)


def test_a_real_archive_gives_the_store_of_its_folder(tmp_path, data):
    source = tmp_path / "few"
    with zipfile.ZipFile(data / "hippocampus.zip") as archive:
        for name in archive.namelist():
            if "_00" in name:
                archive.extract(name, source)
    few = pack(source, tmp_path / "few.zip")
    assert prepare(few, tmp_path / "zip", size=16).prepared > 3
    prepare(source / "hippocampus", tmp_path / "folder", size=16)
    assert files_of(tmp_path / "zip") == files_of(tmp_path / "folder")


def test_labels_may_be_a_table_inside_the_archive(tmp_path, capsys, monkeypatch):
    source = brats(tmp_path / "cohort", subjects="ab", names=("t1",))
    (source / "tables").mkdir()
    (source / "tables" / "grades.csv").write_text("subject,grade\na,2\nb,4\n")
    archive = pack(source, tmp_path / "cohort.tar.gz", "cohort")
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("tables/grades.csv", "cohort/tables/grades.csv")):
        prepare(archive, tmp_path / f"store{i}", size=6, labels=name)
        assert Store(tmp_path / f"store{i}").table.grade.tolist() == [2, 4]
    prepare("cohort.tar.gz", tmp_path / "own", size=6, labels="cohort.tar.gz/tables/grades.csv")
    assert Store(tmp_path / "own").table.grade.tolist() == [2, 4]
    # A table on disk goes before one of the same name inside.
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "grades.csv").write_text("subject,grade\na,1\nb,1\n")
    prepare(archive, tmp_path / "disk", size=6, labels="tables/grades.csv")
    assert Store(tmp_path / "disk").table.grade.tolist() == [1, 1]
    for name in ("other.csv", "../tables/other.csv"):
        with pytest.raises(SourceError, match=r"nor in cohort.tar.gz, which holds tables/grades.c"):
            prepare(archive, tmp_path / "none", size=6, labels=name)
    assert not (tmp_path / "none").exists()
    capsys.readouterr()
    prepare(archive, tmp_path / "plain", size=6)
    assert "`labels=tables/grades.csv` takes its columns as labels" in capsys.readouterr().err


def test_cifar_and_npz_are_read_as_they_are(tmp_path, scratch):
    for source in (official.cifar10(tmp_path), official.cifar100(tmp_path)):
        with opened(source, ANY) as place:
            assert place == source
            assert os.listdir(scratch) == []
    zipped(tmp_path / "x.npz", {})
    with opened(tmp_path / "x.npz", ANY) as place:
        assert place == tmp_path / "x.npz"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\evil"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_a_name_that_leads_outside_is_refused_and_named(tmp_path, name, suffix):
    archive = tmp_path / f"x.{suffix}"
    if suffix == "zip":
        zipped(archive, {"ok.nii": b"x", name: b"x"})
    else:
        tar(archive, (tarfile.TarInfo("ok.nii"), b"x"), (tarfile.TarInfo(name), b"x"))
    told = refusal(archive)
    assert repr(name) in told
    assert "leads outside" in told
    assert list(tmp_path.rglob("evil")) == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_left_out_and_said(tmp_path, capsys, kind):
    (tmp_path / "secret.nii").write_bytes(b"secret")
    info = tarfile.TarInfo("cohort/b.nii")
    info.type, info.linkname = kind, str(tmp_path / "secret.nii")
    through = tarfile.TarInfo("cohort/out")
    through.type, through.linkname = tarfile.SYMTYPE, str(tmp_path)
    data = scan(tmp_path / "a.nii").read_bytes()
    file = (tarfile.TarInfo("cohort/a.nii"), data)
    archive = tar(tmp_path / "x.tar", (info, b""), (through, b""), file)
    with opened(archive, ANY) as place:
        assert [p.name for p in place.rglob("*")] == ["a.nii"]
    assert "x.tar: 2 links or devices are left out (cohort/b.nii, " in capsys.readouterr().err
    # A file that would be written through a link gets a folder of its own.
    through_file = (tarfile.TarInfo("cohort/out/evil"), b"x")
    with opened(tar(tmp_path / "y.tar", (through, b""), file, through_file), ANY) as place:
        assert (place / "out" / "evil").is_file()
    assert not (tmp_path / "evil").exists()


def test_links_in_a_zip_are_left_out(tmp_path, capsys):
    link = zipfile.ZipInfo("link.nii")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
        made.writestr("a.nii", b"x")
    with opened(tmp_path / "x.zip", ANY) as place:
        assert os.listdir(place) == ["a.nii"]
    assert "1 links or devices are left out (link.nii)" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_a_bomb_is_stopped_before_it_is_written_unless_it_is_wanted(
    tmp_path, scratch, monkeypatch, suffix
):
    monkeypatch.setattr(archives, "GIB", 1 << 20)  # all is a thousandth of its size
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zeros").write_bytes(b"\0" * (8 << 20))
    archive = pack(tmp_path / "x", tmp_path / f"x.{suffix}")
    if suffix == "zip":
        zipped(archive, {"zeros": b"\0" * (8 << 20)})
    written = []
    monkeypatch.setattr(archives, "write_member", lambda *a: written.append(a))
    told = refusal(archive)
    assert "decompression bomb" in told
    assert "`archive_gib`" in told
    assert "GiB" not in told.partition("that hold")[0]
    assert written == []
    monkeypatch.undo()
    monkeypatch.setattr(archives, "GIB", 1 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert "decompression bomb" in refusal(archive, archive_gib=7.9)
    with opened(archive, PrepareSettings(archive_gib=8.1)) as place:
        assert (place / "zeros").stat().st_size == 8 << 20


def test_too_many_files_are_refused_and_the_option_named(tmp_path):
    files = {f"{i}.txt": b"" for i in range(11)}
    archive = zipped(tmp_path / "x.zip", files)
    told = refusal(archive, archive_files=10)
    assert "more than 10 files" in told
    assert "`archive_files`" in told
    with opened(archive, PrepareSettings(archive_files=11)) as place:
        assert len(os.listdir(place)) == 11
    with pytest.raises(RecipeError, match="archive_gib"):
        prepare(archive, tmp_path / "s", archive_gib=-1)


def test_an_archive_without_room_is_refused_before_it_is_written(tmp_path, monkeypatch):
    archive = zipped(tmp_path / "x.zip", {"a": os.urandom(1000)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999))
    assert "name another folder in TMPDIR" in refusal(archive)


def test_an_encrypted_zip_says_what_to_do(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"a.nii": b"abc"}, zipfile.ZIP_STORED)
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # of the file's own header, and of the directory at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(data)
    assert "'a.nii' is encrypted; extract it yourself" in refusal(archive)


def test_a_zip_of_an_unknown_method_says_what_to_do(tmp_path):
    archive = zipped(tmp_path / "x.zip", {"a.nii": b"abc"}, zipfile.ZIP_STORED)
    data = bytearray(archive.read_bytes())
    data[8] = data[data.index(b"PK\1\2") + 10] = 9  # Deflate64, of large files from Windows
    archive.write_bytes(data)
    assert "in a way that is not read" in refusal(archive)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz", "tar.bz2"])
def test_an_archive_cut_off_anywhere_is_refused(tmp_path, suffix):
    folder = tmp_path / "x"
    for i in range(3):
        scan(folder / f"{i}.nii", seed=i)
    archive = pack(folder, tmp_path / f"x.{suffix}")
    data = archive.read_bytes()
    blocks = range(0, len(data) - 10240, 512) if suffix == "tar" else ()
    for length in sorted({0, 1, 100, *range(500, len(data) - 10, 997), *blocks, len(data) - 9}):
        if suffix == "tar" and length >= len(data.rstrip(b"\0")) // 512 * 512 + 1024:
            continue  # only zeros are missing
        archive.write_bytes(data[:length])
        assert "truncated, corrupt" in refusal(archive) or "no files" in refusal(archive)
    archive.write_bytes(b"no archive at all" * 100)
    assert "truncated, corrupt" in refusal(archive)


def header(kind: bytes, size: int) -> bytes:
    """A tar header of any size, also one below zero, as GNU writes large ones."""
    info = tarfile.TarInfo("a")
    info.type = kind
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    data[124:136] = (size % 256**12).to_bytes(12, "big") if size < 0 else b"%011o\0" % size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(header(tarfile.REGTYPE, -512), id="round for ever"),
        pytest.param(header(tarfile.XHDTYPE, -512), id="all at once"),
        pytest.param(header(tarfile.GNUTYPE_LONGNAME, 4 << 30), id="a name of 4 GiB"),
        pytest.param(header(tarfile.XHDTYPE, 0) * 5000, id="headers of headers"),
    ],
)
def test_a_tar_whose_headers_lie_ends_soon(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data + b"\0" * 10240)
    start = time.monotonic()
    assert "truncated, corrupt" in refusal(tmp_path / "x.tar")
    assert time.monotonic() - start < 5


def test_archives_inside_are_not_opened(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"a.nii": scan(tmp_path / "a.nii").read_bytes()})
    outer = zipped(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    with pytest.raises(SourceError) as caught:
        prepare(outer, tmp_path / "s")
    # What the user named is named, not where it was for the time being.
    assert str(caught.value).startswith(f"{outer}: no images found")


def test_two_entries_of_one_name_are_refused(tmp_path):
    entries = [(tarfile.TarInfo("a.nii"), b"1"), (tarfile.TarInfo("a.nii"), b"2")]
    assert "'a.nii' is there twice" in refusal(tar(tmp_path / "x.tar", *entries))


def test_much_after_the_end_of_an_archive_is_not_read_on(tmp_path):
    inside = tar(tmp_path / "x.tar", (tarfile.TarInfo("a.nii"), b"1")).read_bytes()
    (tmp_path / "x.tar.xz").write_bytes(lzma.compress(inside + b"\0" * (20 << 20)))
    assert "truncated, corrupt" in refusal(tmp_path / "x.tar.xz")


def hold_open(archive, folder):
    tempfile.tempdir = folder
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by jobs in the background
    with opened(archive, ANY) as place:
        print(place, flush=True)
        while True:  # a signal that comes just before a sleep is noticed after it
            time.sleep(0.1)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_by_ctrl_c_and_by_a_kill_only_until_the_next_run(tmp_path, scratch, how):
    archive = zipped(tmp_path / "x.zip", {"a.nii": b"x"})
    process = Forked(hold_open, archive, str(scratch))
    place = Path(process.stdout.readline().strip())
    assert (place / "a.nii").is_file()
    with opened(archive, ANY) as other:  # the other is in use
        assert (place / "a.nii").is_file()
        assert other != place
    process.send_signal(how)
    process.communicate()
    assert place.exists() == (how == signal.SIGKILL)
    with opened(archive, ANY):
        assert not place.exists()
