"""Downloads of public data sets, resumed and checked; instructions for those with registration."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any

from vitaepp.errors import SourceError, nearest, one_line
from vitaepp.ingest.sources.archives import damage_named, members, write_member
from vitaepp.system.files import atomic_path, make_folder
from vitaepp.system.progress import say, track

BLOCK = 1 << 20
TIMEOUT = 60.0

#: A download ends with an error after this many connections in a row that brought no data.
ATTEMPTS = 5

#: Unit of the wait before the next connection, which grows with each that brought no data.
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Download:
    """A file that anyone may download.

    Attributes:
        url: address at which the owner publishes it.
        file: its name.
        sha256: its SHA-256 digest, or empty if only the MD5 is published.
        md5: its MD5 digest, used if there is no SHA-256.
        folder: the folder in the archive; empty if `prepare` reads the file without extracting.
        licence: its terms, and where they are published.
    """

    url: str
    file: str
    sha256: str = ""
    md5: str = ""
    folder: str = ""
    licence: str = ""


DOWNLOADS = {
    "chest_xray": Download(
        url="https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
        "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded",
        file="ChestXRay2017.zip",
        sha256="13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36",
        folder="chest_xray",
        licence="CC BY 4.0, Kermany et al. 2018, doi:10.17632/rscbjbr9sj.2",
    ),
    "cifar10": Download(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        file="cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        licence="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": Download(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        file="cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        licence="Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "hippocampus": Download(
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        file="Task04_Hippocampus.tar",
        md5="9d24dba78a72977dbd1d2e110310f31b",
        folder="Task04_Hippocampus",
        licence="CC BY-SA 4.0, Medical Segmentation Decathlon, http://medicaldecathlon.com",
    ),
    "tiny_imagenet": Download(
        url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        file="tiny-imagenet-200.zip",
        md5="90528d7ca1a48142e341f4ef8d21d0de",
        folder="tiny-imagenet-200",
        licence="for research, as ImageNet, https://www.image-net.org/download",
    ),
}

#: Data sets that need registration, and the steps to get them.
ON_REQUEST = {
    "brats": """BraTS needs registration; vitaepp cannot download it for you.
  1. 2018, 2019, 2020: create an account at the CBICA Image Processing Portal,
     https://ipp.cbica.upenn.edu, and ask there for the BraTS data of the year. Since 2021: join the
     challenge at https://www.synapse.org (search for BraTS) and accept its terms.
  2. Download the training data (MICCAI_BraTS_2018_Data_Training.zip, or the one of another year)
     and extract it with its CSV files: name_mapping.csv holds the grade in 2020.
  3. vitaepp prepare {folder}/MICCAI_BraTS2020_TrainingData STORE --recipe brats
The label is grade (HGG or LGG), in 2018, 2019 and 2020; later years do not publish it.""",
    "egd": """EGD needs registration and its licence; vitaepp cannot download it for you.
  1. Create an account at https://xnat.bmia.nl, open the project EGD
     (https://xnat.bmia.nl/data/archive/projects/egd), and request access.
  2. When it is granted, download all sessions with their NIFTI files from the project's page, or
     use the authors' egd-downloader (https://zenodo.org/record/4761089). Put the table
     Genetic_and_Histological_labels.xlsx, of the same project, beside them.
  3. vitaepp prepare {folder} STORE --recipe egd
The labels are IDH, 1p19q and Grade; -1 there means unlabelled.""",
}


def download(name: str, folder: str | os.PathLike[str]) -> Path | None:
    """Download a public data set, or print how to obtain one that needs registration.

    An interrupted download continues where it stopped, also in a later call. The file gets its
    name only after its digest is checked. Archives that `prepare` cannot read directly are
    extracted into the same folder.

    Args:
        name: `chest_xray`, `cifar10`, `cifar100`, `hippocampus`, `tiny_imagenet`; `brats` or `egd`.
        folder: folder for the data set.

    Returns:
        The path to give to `prepare`, or None if registration is needed.

    Raises:
        SourceError: the name is unknown, the server does not answer, the digest is wrong, or the
            archive is damaged.
    """
    folder = Path(folder)
    if name in ON_REQUEST:
        print(ON_REQUEST[name].format(folder=folder))
        return None
    if name not in DOWNLOADS:
        known = [*DOWNLOADS, *ON_REQUEST]
        raise SourceError(f"no data set {name!r} to download; {nearest(name, known)}")
    wanted = DOWNLOADS[name]
    if folder.exists() and not folder.is_dir():
        raise SourceError(f"{folder}: is a file; give a folder to download to")
    make_folder(folder)
    target = folder / wanted.folder
    if wanted.folder and target.is_dir():
        say(f"{target}: is there already")
        return target
    file = fetch(wanted, folder)
    say(f"{wanted.file}: {wanted.licence}")
    if not wanted.folder:
        return file
    extract(file, target)
    return target


def fetch(wanted: Download, folder: Path) -> Path:
    """Download a file and check its digest; if it is already there, only check it.

    Raises:
        SourceError: the server does not answer, or the digest is wrong.
    """
    target, part = folder / wanted.file, folder / f"{wanted.file}.part"
    if target.is_file():
        if _digest(wanted, target) == (wanted.sha256 or wanted.md5):
            say(f"{target}: is there already")
            return target
        raise SourceError(
            f"{target}: exists, but is not the published file (its checksum differs); move or "
            "remove it to download the published file"
        )
    _complete(wanted, part)
    digest = _digest(wanted, part)
    if digest != (wanted.sha256 or wanted.md5):
        part.unlink()
        kind = "SHA-256" if wanted.sha256 else "MD5"
        raise SourceError(
            f"{wanted.url}: the download is not the published file ({kind} {digest}, expected "
            f"{wanted.sha256 or wanted.md5}); it was removed, run the command again"
        )
    with open(part, "rb") as complete:
        os.fsync(complete.fileno())
    os.replace(part, target)
    return target


def _complete(wanted: Download, part: Path) -> None:
    """Complete a partial file, over several connections if one breaks off."""
    idle = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            if _transfer(wanted, part, before):
                return
            problem = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise SourceError(
                    f"{wanted.url}: {error.code} {error.reason}; get {wanted.file} from its owner "
                    f"({wanted.licence}) and put it into {part.parent}"
                ) from None
            problem = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            problem = one_line(error)
        after = part.stat().st_size if part.is_file() else 0
        idle = 0 if after > before else idle + 1
        if idle >= ATTEMPTS:
            kept = f"; {after} bytes are kept" if after else ""
            raise SourceError(
                f"{wanted.url}: no answer ({problem}){kept}; run the command again to continue, or "
                f"put {wanted.file} into {part.parent} yourself"
            )
        say(f"{wanted.file}: {problem}; trying again")
        time.sleep(min(2.0**idle - 1, 30.0) * RETRY_SECONDS)


def _transfer(wanted: Download, part: Path, start: int) -> bool:
    """Append the data of one connection from `start` on; return whether the file is complete."""
    headers = {"User-Agent": "vitaepp", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(wanted.url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            # There is no more data: the part is the whole file, or longer.
            error.close()
            return True
        raise
    with answer:
        resumed = answer.status == 206 and _range_start(answer) == start
        if start and not resumed:
            say(f"{wanted.file}: the server cannot resume; starting again")
            start = 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        with open(part, "ab" if resumed else "wb") as file:
            blocks = _blocks(answer)
            if total is not None:
                left = -(-(total - start) // BLOCK)
                blocks = track(blocks, f"downloading {wanted.file}", left, unit="MiB")
            for block in blocks:
                file.write(block)
    return total is None or part.stat().st_size >= total


def _range_start(answer: Any) -> int:
    """The offset of a partial answer, from its `Content-Range: bytes 100-199/200`."""
    text = str(answer.headers.get("Content-Range", ""))
    first = text.removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else -1


def _blocks(file: Any) -> Iterator[bytes]:
    """Yield the content in blocks of 1 MiB; if the connection breaks off, stop early."""
    while True:
        try:
            block = file.read(BLOCK)
        except IncompleteRead as error:
            yield error.partial
            return
        if not block:
            return
        yield block


def _digest(wanted: Download, path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256" if wanted.sha256 else "md5").hexdigest()


def extract(archive: Path, target: Path) -> None:
    """Extract the folder in an archive, completely or not at all.

    Only files and folders below `target` are written. An archive with paths outside of it, links or
    devices is refused. Hidden files of macOS are skipped.

    Args:
        archive: `.zip` or `.tar`.
        target: the folder to create; the folder in the archive must have the same name.

    Raises:
        SourceError: the archive is damaged, lacks the folder, or has a path outside of it.
    """
    with damage_named(archive), atomic_path(target) as temporary:
        temporary.mkdir()
        entries = members(archive, lambda _: None)
        for member in track(entries, f"extracting {archive.name}", None, "files"):
            if member.content is None:
                raise SourceError(
                    f"{archive.name}: {member.name} is a link or a device; it was not extracted"
                )
            if member.name.parts[:1] == (target.name,):
                write_member(member, temporary.joinpath(*member.name.parts[1:]))
        if not any(temporary.iterdir()):
            raise SourceError(f"{archive.name}: holds no folder {target.name}")
