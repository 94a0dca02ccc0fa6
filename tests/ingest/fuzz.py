"""Mutated files of every kind that a source may hold, and what `prepare` may make of them.

    python -m tests.ingest.fuzz 2000        cases over all formats, and what was found

Each case is a source of two subjects, one of which (or the archive, or the table) is damaged: bits
flipped, cut off, fields of its header set to anything. `prepare` must neither crash nor hang, show
no traceback and let out no header's text; what it takes must be what an independent reader reads.

Cases run in a process of their own, so that a crash of a C library or an endless loop costs one. A
case is made from its format and number alone, so that it can be made again.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import SimpleITK as sitk
from PIL import Image

SHAPE = (6, 7, 5)
PICTURE = (12, 10)
SECRET = "DOE^JANE"

nib.imageglobals.logger.disabled = True

#: What one case may take: a machine of two cores that others use, too, is slow.
SECONDS = 60.0
SECONDS_TO_START = 60.0
MEMORY = 8 << 30


def volume(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, SHAPE).astype(np.int16)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, PICTURE).astype(np.uint8)


def itk(seed: int) -> sitk.Image:
    image = sitk.GetImageFromArray(volume(seed).T)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # RAS
    image.SetMetaData("PatientName", SECRET)
    return image


def write_nifti(path: Path, seed: int) -> None:
    image = nib.Nifti1Image(volume(seed), np.eye(4))
    image.header["descrip"] = image.header["aux_file"] = SECRET.encode()
    image.to_filename(path)


def write_itk(path: Path, seed: int) -> None:
    sitk.WriteImage(itk(seed), str(path), useCompression=seed % 2 == 0)


def write_analyze(path: Path, seed: int) -> None:
    image = nib.AnalyzeImage(volume(seed), np.diag([-1, 1, 1, 1]))
    image.header["descrip"] = SECRET.encode()
    image.to_filename(path)


def write_mgh(path: Path, seed: int) -> None:
    nib.MGHImage(volume(seed).astype(np.int32), np.eye(4)).to_filename(path)


def write_npy(path: Path, seed: int) -> None:
    np.save(path, volume(seed))


def write_picture(path: Path, seed: int) -> None:
    Image.fromarray(pixels(seed)).save(path)


def write_webp(path: Path, seed: int) -> None:
    Image.fromarray(pixels(seed)).save(path, lossless=True)


def write_dicom(path: Path, seed: int) -> None:
    """A series of slices in a folder."""
    path.mkdir()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    whole = itk(seed)
    for z in range(SHAPE[2]):
        part = whole[:, :, z]
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0060": "MR",
            "0008|103e": "T1",
            "0010|0010": SECRET,
            "0010|0020": f"{seed}",
            "0020|000d": f"1.2.3.{seed}",
            "0020|000e": f"1.2.3.{seed}.1",
            "0008|0018": f"1.2.3.{seed}.1.{z}",
            "0020|0013": f"{z}",
            "0020|0032": f"0\\0\\{z}",
            "0020|0037": "-1\\0\\0\\0\\-1\\0",
        }.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(path / f"{z:03d}.dcm"))
        writer.Execute(part)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        write: makes a sound one of a seed at a path.
        suffix: of its name.
        header: how many bytes at its beginning are fields.
        text: whether the header is text.
        arguments: of `prepare`, so that a sound image is stored as it is.
    """

    write: Callable[[Path, int], None]
    suffix: str
    header: int
    text: bool = False
    picture: bool = False

    @property
    def arguments(self) -> dict[str, str | int]:
        size = PICTURE if self.picture else SHAPE
        spacing = {} if self.picture else {"spacing": 1, "center": "image"}
        return {"size": ",".join(map(str, size)), "workers": 1, **spacing}


FORMATS = {
    "nii": Format(write_nifti, ".nii", 352),
    "nii.gz": Format(write_nifti, ".nii.gz", 352),
    "mgz": Format(write_mgh, ".mgz", 284),
    "nrrd": Format(write_itk, ".nrrd", 400, text=True),
    "mha": Format(write_itk, ".mha", 400, text=True),
    "mhd": Format(write_itk, ".mhd", 400, text=True),
    "hdr": Format(write_analyze, ".hdr", 348),
    "npy": Format(write_npy, ".npy", 128, text=True),
    "dcm": Format(write_dicom, "", 800),
    "png": Format(write_picture, ".png", 60, picture=True),
    "jpg": Format(write_picture, ".jpg", 600, picture=True),
    "tif": Format(write_picture, ".tif", 200, picture=True),
    "bmp": Format(write_picture, ".bmp", 60, picture=True),
    "gif": Format(write_picture, ".gif", 60, picture=True),
    "webp": Format(write_webp, ".webp", 60, picture=True),
    "npz": Format(write_npy, ".npz", 300, picture=True),
    "zip": Format(write_nifti, ".zip", 100),
    "tar": Format(write_nifti, ".tar", 512),
    "tar.gz": Format(write_nifti, ".tar.gz", 512),
    "csv": Format(write_nifti, ".csv", 200, text=True),
    "tsv": Format(write_nifti, ".tsv", 200, text=True),
    "xlsx": Format(write_nifti, ".xlsx", 100),
}


def make(name: str, number: int, folder: Path) -> Path:
    """Write the source of a case; its damage follows from the format and the number."""
    kind, chance = FORMATS[name], random.Random(f"{name} {number}")
    folder.mkdir(parents=True)
    if name in ("zip", "tar", "tar.gz"):
        return make_archive(name, chance, folder)
    if name in ("csv", "tsv", "xlsx"):
        return make_table(name, chance, folder)
    if name == "npz":
        path = folder / "x.npz"
        images = np.stack([pixels(seed) for seed in range(4)])
        np.savez(path, train_images=images, train_labels=np.arange(4)[:, None])
        path.write_bytes(mutated(path.read_bytes(), kind, chance))
        return path
    kind.write(folder / f"good{kind.suffix}", 1)
    kind.write(folder / f"victim{kind.suffix}", 2 + number % 2)
    if name == "dcm":
        victim = chance.choice(sorted((folder / "victim").iterdir()))
    else:
        files = [folder / f"victim{kind.suffix}", *folder.glob("victim.*")]
        victim = chance.choice(files[:3])
    victim.write_bytes(mutated(victim.read_bytes(), kind, chance))
    return folder


def make_archive(name: str, chance: random.Random, folder: Path) -> Path:
    path = folder / f"x.{name}"
    inside = {}
    for seed, key in ((1, "a/a.nii"), (2, "b/b.nii.gz")):
        file = folder / Path(key).name
        write_nifti(file, seed)
        inside[key] = file.read_bytes()
        file.unlink()
    if name == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, data in inside.items():
                archive.writestr(key, data)
    else:
        with tarfile.open(path, f"w:{'gz' if name == 'tar.gz' else ''}") as archive:
            for key, data in inside.items():
                info = tarfile.TarInfo(key)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    path.write_bytes(mutated(path.read_bytes(), FORMATS[name], chance))
    return path


def make_table(name: str, chance: random.Random, folder: Path) -> Path:
    for seed, subject in ((1, "a"), (2, "b")):
        write_nifti(folder / f"{subject}.nii.gz", seed)
    rows = {"subject": ["a", "b"], "t1": ["a.nii.gz", "b.nii.gz"], "grade": [0, 1]}
    table, path = pd.DataFrame(rows), folder / f"x.{name}"
    if name == "xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="," if name == "csv" else "\t")
    path.write_bytes(mutated(path.read_bytes(), FORMATS[name], chance))
    return path


ODD = (0, 1, -1, 2, 7, 8, 255, 256, 1000, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1)
ODD_TEXT = (b"0", b"-1", b"1", b"3", b"1e308", b"nan", b"inf", b"99999999999", b"", b"\xff", b"a b")


def mutated(data: bytes, kind: Format, chance: random.Random) -> bytes:
    """A damaged copy; half of what is compressed is damaged below the compression."""
    if kind.suffix.endswith(("gz", ".mgz")) and chance.random() < 0.7:
        return gzip.compress(damaged(gzip.decompress(data), kind, chance), 1)
    if kind.suffix in (".zip", ".xlsx", ".npz") and chance.random() < 0.5:
        return rezipped(data, kind, chance)
    out = damaged(data, kind, chance)
    if kind.suffix == ".png" and chance.random() < 0.8:
        return with_png_checksums(out)
    return out


def damaged(data: bytes, kind: Format, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        header = min(kind.header, len(out))
        place = chance.randrange(header if chance.random() < 0.7 else len(out))
        what = chance.randrange(9 if not kind.text else 12)
        if what == 0:
            out[place] ^= 1 << chance.randrange(8)
        elif what == 1:
            out[place] = chance.randrange(256)
        elif what == 2:
            length = chance.randrange(1, 40)
            out[place : place + length] = chance.randbytes(length)
        elif what == 3 and chance.random() < 0.5:
            del out[chance.randrange(len(out)) :]
        elif what == 4:
            del out[place : place + chance.randrange(1, 20)]
        elif what == 5:
            out[place:place] = chance.randbytes(chance.randrange(1, 20))
        elif what in (6, 7):
            form = chance.choice(["<h", "<i", ">h", ">i", "<q"])
            place -= place % 2
            size = struct.calcsize(form)
            value = chance.choice(ODD) % (1 << 8 * size)
            out[place : place + size] = value.to_bytes(size, "little" if "<" in form else "big")
        elif what == 8:
            odd = chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 0.5, 3.0))
            place -= place % 4
            out[place : place + 4] = struct.pack("<f", odd)
        else:
            numbers = list(re.finditer(rb"[\w.+-]+", bytes(out[:header])))
            if numbers:
                word = chance.choice(numbers)
                out[word.start() : word.end()] = chance.choice(ODD_TEXT)
    return bytes(out)


def rezipped(data: bytes, kind: Format, chance: random.Random) -> bytes:
    """A sound zip around a damaged member."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        victim = chance.choice(names)
        for name in names:
            content = old.read(name)
            new.writestr(name, damaged(content, kind, chance) if name == victim else content)
    return out.getvalue()


def with_png_checksums(data: bytes) -> bytes:
    """The same chunks with checksums that are right, so that what is in them is looked at."""
    out, place = bytearray(data), 8
    while place + 12 <= len(out):
        (length,) = struct.unpack_from(">I", out, place)
        if place + 12 + length > len(out):
            break
        checksum = zlib.crc32(out[place + 4 : place + 8 + length])
        struct.pack_into(">I", out, place + 8 + length, checksum)
        place += 12 + length
    return bytes(out)


# An independent reading: nibabel, Pillow, and a few lines for the formats that they do not know.


def independent(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Values `(x, y, z)` or `(row, column)`, and the affine where that is told as well."""
    name = path.name.lower()
    if path.is_dir() or name.endswith(".dcm"):
        raise NotImplementedError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".mgz")):
            image = nib.load(path)
            return np.asarray(image.dataobj).squeeze(), image.affine
        if name.endswith((".png", ".jpg", ".tif", ".bmp", ".gif", ".webp")):
            with Image.open(path) as picture:
                if name.endswith(".tif") and 262 not in picture.tag_v2:
                    raise NotImplementedError  # black or white is zero: readers differ
                grey = picture.mode in ("L", "1", "I", "F", "I;16", "I;16B")
                values = np.asarray(picture if grey else picture.convert("RGB"))
                values = values * 255 if picture.mode == "1" else values
                if name.endswith(".jpg") and np.isin(values, (0, 255)).mean() > 0.2:
                    raise NotImplementedError  # beyond what is sensible decoders differ
                return values, None
        if name.endswith(".npy"):
            return np.load(path, allow_pickle=False), None
        if name.endswith(".nrrd"):
            return read_nrrd(path), None
        if name.endswith((".mha", ".mhd")):
            return read_meta(path), None
    raise NotImplementedError


NRRD_TYPES = {"short": "i2", "int": "i4", "float": "f4", "double": "f8", "unsigned char": "u1"}
META_TYPES = {"MET_SHORT": "i2", "MET_INT": "i4", "MET_FLOAT": "f4", "MET_UCHAR": "u1"}


TRUE = ("T", "t", "1")


def read_nrrd(path: Path) -> np.ndarray:
    head, _, body = path.read_bytes().partition(b"\n\n")
    lines = [line.partition(":") for line in head.decode("latin-1").splitlines()]
    told = {key.strip(): value.strip() for key, _, value in lines}
    sizes = [int(n) for n in told["sizes"].split()]
    body = body if told["encoding"] == "raw" else zlib.decompress(body, 31)
    return typed(body, NRRD_TYPES[told["type"]], told.get("endian") == "big", sizes)


def read_meta(path: Path) -> np.ndarray:
    head, found, body = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    lines = [line.partition("=") for line in head.decode("latin-1").splitlines()]
    told = {key.strip(): value.strip() for key, _, value in lines}
    if not found:
        body = (path.parent / told["ElementDataFile"]).read_bytes()
    sizes = [int(n) for n in told["DimSize"].split()]
    body = zlib.decompress(body) if told.get("CompressedData", "")[:1] in TRUE else body
    big = told.get("BinaryDataByteOrderMSB", "")[:1] in TRUE
    return typed(body, META_TYPES[told["ElementType"]], big, sizes)


def typed(body: bytes, kind: str, big: bool, sizes: list[int]) -> np.ndarray:
    values = np.frombuffer(body, (">" if big else "<") + kind, int(np.prod(sizes)))
    return values.reshape(sizes, order="F").squeeze()


def check(name: str, source: Path, store: Path) -> Iterator[str]:
    """What is wrong with a store that was made, in a word and a line each."""
    from vitaepp.data.store import Store
    from vitaepp.errors import StoreError

    if store.is_dir():
        for file in store.rglob("*"):
            if file.is_file() and SECRET.encode() in file.read_bytes():
                yield f"leak: in {file.relative_to(store)}"
    if (store / "failures.csv").is_file():
        for subject, reason in pd.read_csv(store / "failures.csv", dtype=str).values:
            if re.match(r"\w*(Error|Exception|Interrupt|Warning)\b", str(reason)):
                yield f"unforeseen: {subject}: {reason}"
    try:
        opened = Store(store)
    except StoreError:
        return
    for row in range(len(opened)):
        yield from wrong(name, source, opened, row)


def wrong(name: str, source: Path, store: object, row: int) -> Iterator[str]:
    """Whether a stored image is another than an independent reader reads."""
    record = store.table.iloc[row]
    where = record["source"][0]
    try:
        values, affine = sound_of(name, source, where)
    except Exception as error:
        yield f"unverified: {where}: {type(error).__name__}"
        return
    values = values.astype(float)
    image = store.read([row])[0].astype(float)
    low, high = record["intensity_min"][0], record["intensity_max"][0]
    told = [values.min(), values.max()]
    if (low, high) != (0, 255) and not np.allclose([low, high], told, rtol=1e-5):
        yield f"wrong: {where}: {low:g} to {high:g}, not {told[0]:g} to {told[1]:g}"
        return
    stored = np.reshape(record["affine"], (image.ndim, image.ndim))
    placed = np.allclose(stored, np.eye(image.ndim) if affine is None else affine)
    space = values.shape[: image.ndim - 1]
    if placed and space == image.shape[1:]:
        expected = (values - low) / (high - low) * 255
        channels = np.moveaxis(expected.reshape(*space, -1), -1, 0)
        if len(channels) == len(image) or np.ptp(channels, axis=0).max() == 0:
            difference = np.abs(image - channels)
            # Decoders of JPEG round in their own ways.
            difference = np.quantile(difference, 0.8) / 8 if name == "jpg" else difference.max()
            if difference > 0.26:
                yield f"wrong: {where}: by up to {difference:g} from an independent reader's"


def sound_of(name: str, source: Path, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The independent reading of what a store names as the source of an image."""
    if name == "npz":
        key, index = re.fullmatch(r"x\.npz:(\w+)\[(\d+)\]", where).groups()
        return np.load(source)[key][int(index)], None
    if name in ("zip", "tar", "tar.gz"):
        # Their contents have checksums or not; whichever it was, the file says what is right.
        with tempfile.TemporaryDirectory() as folder:
            shutil.unpack_archive(source, folder, {"tar.gz": "gztar"}.get(name, name))
            inside = next(p for p in Path(folder).rglob("*") if str(p).endswith(where))
            values, affine = independent(inside)
            return np.array(values), affine
    return independent((source if source.is_dir() else source.parent) / where)


def run_case(name: str, number: int, folder: Path) -> list[str]:
    """What was found wrong in one case; `taken` and `refused` say how it ended otherwise."""
    from vitaepp.errors import VitaeppError
    from vitaepp.ingest.prepare import prepare

    shutil.rmtree(folder, ignore_errors=True)
    source, store = make(name, number, folder / "x"), folder / "store"
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), warnings.catch_warnings():
            warnings.simplefilter("error")
            result = prepare(source, store, **FORMATS[name].arguments)
        ended = f"taken {result.prepared}"
        said = " ".join(f.reason for f in result.failures)
    except VitaeppError as error:
        ended, said = "refused", str(error)
    except Exception as error:
        return [f"traceback: {type(error).__name__}: {error}"]
    found = [ended, *check(name, source, store)]
    if "\n" in said:
        found.append("lines: an error of more than one line")
    if SECRET in said + told.getvalue():
        found.append("leak: in an error or a log")
    return found


def child(start: list[tuple[str, int]], folder: Path) -> None:
    """Run cases, telling of each when it begins and what it gave."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what C libraries print is to be seen
    for name, number in start:
        print(json.dumps(["start", name, number]), file=talk, flush=True)
        print(json.dumps(["done", name, number, run_case(name, number, folder)]), file=talk)
        talk.flush()


#: Runs `child` on the cases that it reads.
CHILD = (sys.executable, "-m", "tests.ingest.fuzz", "--child")

Outcome = dict[tuple[str, int], list[str]]


def run(cases: list[tuple[str, int]], folder: Path) -> Outcome:
    """Every case's outcome: how it ended, and what is wrong, crashes and hangs included."""
    outcomes: Outcome = {}
    left = list(cases)
    while left:
        outcomes |= run_until_it_dies(left, folder)
        left = [case for case in left if case not in outcomes]
    return outcomes


def run_until_it_dies(cases: list[tuple[str, int]], folder: Path) -> Outcome:
    outcomes: Outcome = {}
    errors = folder / "stderr"
    with open(errors, "wb") as stderr:
        process = subprocess.Popen(
            [*CHILD, str(folder / "case")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    process.stdin.write(json.dumps(cases).encode())
    process.stdin.close()
    case: tuple[str, int] = cases[0]
    deadline = time.monotonic() + SECONDS_TO_START + SECONDS
    rest = b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            outcomes[case] = [f"hang: over {SECONDS:g} s"]
            break
        data = os.read(process.stdout.fileno(), 1 << 16)
        if not data:
            if process.wait() != 0:
                outcomes[case] = [f"crash: {signal_name(process.returncode)}"]
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            word, name, number, *found = json.loads(line)
            case = (name, number)
            deadline = time.monotonic() + SECONDS
            if word == "done":
                outcomes[case] = found[0]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    if text := errors.read_text(errors="replace").strip():
        outcomes.setdefault(case, []).append(f"stderr: {text[-300:]}")
    return outcomes


def signal_name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def spread(number: int, first: int = 0) -> list[tuple[str, int]]:
    """So many cases, evenly over all formats."""
    names = list(FORMATS)
    return [(names[i % len(names)], first + i // len(names)) for i in range(number)]


def problems(outcomes: Outcome) -> list[str]:
    """What must not be, one line each; a sound image that no other reader reads is no such."""
    return [
        f"{name} {number}: {line}"
        for (name, number), found in outcomes.items()
        for line in found
        if not line.startswith(("taken", "refused", "unverified"))
    ]


def summary(outcomes: Outcome) -> str:
    """How many cases of each format ended how."""
    counts = Counter()
    for (name, _), found in outcomes.items():
        for line in found:
            counts[name, line.partition(":")[0]] += 1
    table = pd.Series(counts).unstack(fill_value=0)
    return f"{table.to_string()}\n{len(outcomes)} cases, {len(problems(outcomes))} problems"


def main() -> None:
    if sys.argv[1] == "--child":
        cases = [tuple(case) for case in json.loads(sys.stdin.read())]
        child(cases, Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        if ":" in sys.argv[1]:
            cases = [(c.rpartition(":")[0], int(c.rpartition(":")[2])) for c in sys.argv[1:]]
        else:
            cases = spread(int(sys.argv[1]), *map(int, sys.argv[2:]))
        outcomes = run(cases, Path(folder))
    print("\n".join(problems(outcomes)))
    print(summary(outcomes))


if __name__ == "__main__":
    main()
