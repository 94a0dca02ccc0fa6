"""download: what arrives is the published file or nothing, whatever the server does."""

import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from tests.ingest.trees import mask, scan
from vitaepp.datasets import download as module
from vitaepp.datasets.download import DOWNLOADS, ON_REQUEST, Download, download, extract, fetch
from vitaepp.errors import SourceError
from vitaepp.ingest.layouts import recognise

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `ranges` and `breaks` say how well."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.breaks, self.status = CONTENT, True, 0, 200
        self.asked: list[str | None] = []

    def wanted(self, **changes) -> Download:
        url = f"http://127.0.0.1:{self.server_address[1]}/data.bin"
        return replace(Download(url=url, file="data.bin", sha256=SHA256), **changes)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.status != 200:
            self.send_error(server.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        total = len(server.content)
        if start >= total:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server, tmp_path):
    file = fetch(server.wanted(), tmp_path)
    assert file.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]
    assert fetch(server.wanted(), tmp_path) == file
    assert server.asked == [None]
    md5 = server.wanted(sha256="", md5=hashlib.md5(CONTENT).hexdigest())
    assert fetch(md5, tmp_path) == file


@pytest.mark.parametrize("ranges", [True, False])
def test_a_partial_file_is_resumed_where_the_server_can(server, tmp_path, ranges):
    server.ranges = ranges
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:100_000])
    assert fetch(server.wanted(), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=100000-"]


def test_a_part_that_is_whole_already_is_taken(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(server.wanted(), tmp_path).read_bytes() == CONTENT


def test_a_connection_that_breaks_off_is_taken_up_again(server, tmp_path):
    server.breaks = 3
    assert fetch(server.wanted(), tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=150000-", "bytes=225000-", "bytes=262500-"]


def test_what_came_is_kept_for_the_next_run_when_the_server_is_gone(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.breaks, server.ranges = 1, True
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(SourceError, match=r"503 .*1000 bytes are kept; run the command again"):
        fetch(server.wanted(), tmp_path)
    server.status = 200
    assert fetch(server.wanted(), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={1000 + (len(CONTENT) - 1000) // 2}-"


def test_a_file_that_is_gone_is_not_asked_for_again(server, tmp_path):
    server.status = 404
    with pytest.raises(SourceError, match=r"404 .*put it into"):
        fetch(server.wanted(), tmp_path)
    assert len(server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_removed_and_named(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(SourceError, match=r"not the published file \(SHA-256 .*it was removed"):
        fetch(server.wanted(), tmp_path)
    assert not list(tmp_path.iterdir())
    # A part of something else cannot be resumed into the right file either; the next run can.
    server.content = CONTENT
    (tmp_path / "data.bin.part").write_bytes(b"else")
    with pytest.raises(SourceError, match="was removed"):
        fetch(server.wanted(), tmp_path)
    assert fetch(server.wanted(), tmp_path).read_bytes() == CONTENT


def test_a_file_of_ones_own_is_not_overwritten(server, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(SourceError, match="not the published file"):
        fetch(server.wanted(), tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"
    assert server.asked == []


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_an_archive_is_extracted_beside_and_not_twice(server, tmp_path, monkeypatch):
    server.content = zipped(
        {"set/a/1.txt": b"one", "set/2.txt": b"two", "__MACOSX/set/._2.txt": b"junk", "readme": b""}
    )
    digest = hashlib.sha256(server.content).hexdigest()
    wanted = server.wanted(file="set.zip", folder="set", sha256=digest)
    monkeypatch.setitem(DOWNLOADS, "chest_xray", wanted)
    target = download("chest_xray", tmp_path / "new")
    assert target == tmp_path / "new" / "set"
    files = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert files == {"a/1.txt": b"one", "2.txt": b"two"}
    assert download("chest_xray", tmp_path / "new") == target
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/evil", "set\\..\\evil"])
def test_a_path_that_leads_outside_is_refused_and_nothing_is_left(tmp_path, name):
    (tmp_path / "in").mkdir()
    archive = tmp_path / "in" / "set.zip"
    archive.write_bytes(zipped({"set/ok": b"x", name: b"x"}))
    with pytest.raises(SourceError, match="leads outside"):
        extract(archive, tmp_path / "in" / "set")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "set.zip"]


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("set/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        info = tarfile.TarInfo("set/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    for name in ("set.zip", "set.tar"):
        with pytest.raises(SourceError, match="is a link or a device"):
            extract(tmp_path / name, tmp_path / "set")
    assert sorted(os.listdir(tmp_path)) == ["set.tar", "set.zip"]


def test_broken_and_foreign_archives_are_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    (tmp_path / "b.tar").write_bytes(b"nothing")
    (tmp_path / "c.zip").write_bytes(zipped({"other/x": b""}))
    for name, message in (("a.zip", "extracted"), ("b.tar", "extracted"), ("c.zip", "no folder")):
        with pytest.raises(SourceError, match=message) as caught:
            extract(tmp_path / name, tmp_path / "set")
        assert "\n" not in str(caught.value)


def test_the_decathlon_is_extracted_and_recognised(tmp_path):
    root = tmp_path / "made" / "Task04_Hippocampus"
    for i in range(2):
        scan(root / "imagesTr" / f"hippocampus_{i:03d}.nii.gz")
        mask(root / "labelsTr" / f"hippocampus_{i:03d}.nii.gz")
    scan(root / "imagesTs" / "hippocampus_009.nii.gz")
    (root / "imagesTr" / "._hippocampus_000.nii.gz").write_bytes(b"junk")
    with tarfile.open(tmp_path / "Task04_Hippocampus.tar", "w") as archive:
        archive.add(root, "./Task04_Hippocampus")
    extract(tmp_path / "Task04_Hippocampus.tar", tmp_path / "Task04_Hippocampus")
    cohort = recognise(tmp_path / "Task04_Hippocampus")
    assert [s.subject for s in cohort.subjects] == ["hippocampus_000", "hippocampus_001"]
    assert cohort.has_masks


@pytest.mark.parametrize("name", sorted(ON_REQUEST))
def test_what_needs_registration_is_explained(tmp_path, name, capsys):
    assert download(name, tmp_path / "d") is None
    out = capsys.readouterr().out
    assert "https://" in out
    assert f"vitaepp prepare {tmp_path / 'd'}" in out
    assert f"--recipe {name}" in out
    assert not (tmp_path / "d").exists()


def test_an_unknown_name_and_a_file_for_a_folder_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"no data set 'cifar-10' .*did you mean cifar10\?"):
        download("cifar-10", tmp_path)
    (tmp_path / "f").write_text("")
    with pytest.raises(SourceError, match="is a file"):
        download("cifar10", tmp_path / "f")


def test_every_download_has_a_digest_and_terms():
    for wanted in DOWNLOADS.values():
        assert len(wanted.sha256) == 64 or len(wanted.md5) == 32
        assert wanted.licence
        assert wanted.url.startswith("http")
