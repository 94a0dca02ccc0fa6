"""Of a header nothing but geometry gets out: a known name is in every field, and nowhere after."""

import base64
import contextlib
import gzip
import re
import struct
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import PIL
import pytest
import SimpleITK as sitk
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from tests.conftest import LIGHT
from tests.ingest import dicom_files
from tests.processes import Forked, command_line
from vitaepp.data.suffixes import SCAN_SUFFIXES

SHAPE = (16, 16, 12)

#: Short enough for the shortest field, and no word of any language.
NAME = "Qzxvjk"
BORN = "19010203"


def volume(seed: int) -> np.ndarray:
    ramp = np.add.outer(np.add.outer(np.arange(16), np.arange(16)), np.arange(12))
    return (ramp * 20 + np.random.default_rng(seed).integers(0, 99, SHAPE)).astype(np.int16)


def fill(header: np.ndarray, *fields: str) -> None:
    for field in fields:
        header[field] = NAME.encode()[: header[field].dtype.itemsize]


def nifti1(path: Path, seed: int) -> None:
    image = nib.Nifti1Image(volume(seed), np.eye(4))
    fill(image.header, "descrip", "aux_file", "intent_name", "db_name", "data_type")
    for code in (2, 4, 6):  # DICOM, AFNI's XML, a comment
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, NAME.encode()))
    image.to_filename(path)


def nifti2(path: Path, seed: int) -> None:
    image = nib.Nifti2Image(volume(seed), np.eye(4))
    fill(image.header, "descrip", "aux_file", "intent_name")
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, NAME.encode()))
    image.to_filename(path)


def analyze(path: Path, seed: int) -> None:
    nib.AnalyzeImage(volume(seed), np.diag([-1, 1, 1, 1])).to_filename(path)
    data = bytearray(path.read_bytes())
    # data_type, db_name; then vox_units, cal_units; descrip to aux_file; orient to views.
    for start, end in ((4, 14), (14, 32), (56, 60), (60, 68), (148, 228), (228, 252), (262, 322)):
        field = NAME.encode()[: end - start]
        data[start : start + len(field)] = field
    path.write_bytes(data)


def nrrd(path: Path, seed: int) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(volume(seed).T), str(path))
    head, _, body = path.read_bytes().partition(b"\n\n")
    own = f"\n# {NAME}\ncontent: {NAME}\nsample units: {NAME}\nPatient:={NAME}\n{NAME}:={NAME}"
    path.write_bytes(head + own.encode() + b"\n\n" + body)


def meta(path: Path, seed: int) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(volume(seed).T), str(path))
    data = path.read_bytes()
    fields = ("Comment", "Name", "PatientName", "PatientID", "TransferSyntaxUID", "StudyDate", NAME)
    own = "".join(f"{field} = {NAME}\n" for field in fields).encode()
    path.write_bytes(data.replace(b"NDims = 3\n", b"NDims = 3\n" + own))


def mgh(path: Path, seed: int) -> None:
    nib.MGHImage(volume(seed).astype(np.float32), np.eye(4)).to_filename(path)
    opened = gzip.open if path.suffix == ".mgz" else open
    with opened(path, "ab") as file:  # FreeSurfer's tags: type, length, text
        file.write(struct.pack(">iq", 3, len(NAME)) + NAME.encode())


def npy(path: Path, seed: int) -> None:
    np.save(path, volume(seed))


SCANS = {
    ".nii": nifti1,
    ".nii.gz": nifti1,
    ".hdr": analyze,
    ".nrrd": nrrd,
    ".nhdr": nrrd,
    ".mha": meta,
    ".mhd": meta,
    ".mgh": mgh,
    ".mgz": mgh,
    ".npy": npy,
}


def dicom(folder: Path, seed: int) -> None:
    """A series with the name in every element of text that the standard knows, and private ones."""
    values = volume(seed)
    for z in range(SHAPE[2]):
        tags: dict[tuple[int, int], bytes] = {}
        for tag, kind in known_elements():
            tags[tag] = put(*tag, kind, NAME.upper() if kind == "CS" else NAME)
        for number in (0x10, 0x1001, 0x1002):
            tags[0x9, number] = put(0x9, number, "LO", NAME)
            tags[0x29, number] = put(0x29, number, "UN", NAME)
        tags[0x40, 0x275] = put(
            0x40, 0x275, "SQ", dicom_files.item(put(0x40, 7, "LO", NAME), put(0x40, 9, "SH", NAME))
        )
        for group, number, kind, value in (
            *((8, 0x16, "UI", dicom_files.MR), (8, 0x18, "UI", f"1.2.{seed}.{z}")),
            *(
                (8, 0x20, "DA", "19700101"),
                (8, 0x60, "CS", "MR"),
                (8, 8, "CS", f"ORIGINAL\\{NAME}"),
            ),
            *((8, 0x103E, "LO", f"T1 {NAME}"), (0x10, 0x30, "DA", BORN)),
            *((0x20, 0xD, "UI", f"1.2.{seed}.1"), (0x20, 0xE, "UI", f"1.2.{seed}.2")),
            *((0x20, 0x13, "IS", str(z)), (0x20, 0x32, "DS", f"0\\0\\{z}")),
            (0x20, 0x37, "DS", "1\\0\\0\\0\\1\\0"),
        ):
            tags[group, number] = put(group, number, kind, value)
        for tag in [t for t in tags if t[0] == 0x28]:
            del tags[tag]
        before = b"".join(tags[t] for t in sorted(tags) if t[0] < 0x28)
        after = b"".join(tags[t] for t in sorted(tags) if t[0] > 0x28)
        shown = np.ascontiguousarray(values[:, :, z].T)
        body = before + dicom_files.pixels(put, shown, spacing=(1, 1)) + after
        body += put(0x7FE0, 0x10, "OW", shown.tobytes())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{z:03d}.dcm").write_bytes(dicom_files.file_of(dicom_files.MR, body))


def put(group: int, number: int, kind: str, value) -> bytes:
    if kind in ("UT", "UC"):  # of a length in four bytes
        return dicom_files.element(group, number, "UN", value).replace(b"UN", kind.encode(), 1)
    return dicom_files.element(group, number, kind, value)


def known_elements() -> list[tuple[tuple[int, int], str]]:
    """Elements of text, of patient, study, series, equipment, image, request and visit."""
    texts = {
        "LO": [(8, 0x70), (8, 0x80), (8, 0x1040), (8, 0x1090), (8, 0x1030), (0x10, 0x20)],
        "PN": [(8, 0x90), (8, 0x1050), (8, 0x1060), (8, 0x1070), (0x10, 0x10), (0x10, 0x1005)],
        "SH": [(8, 0x50), (8, 0x1010), (0x10, 0x2160), (0x20, 0x10), (0x18, 0x24)],
        "ST": [(8, 0x81), (8, 0x115)],
        "LT": [(0x10, 0x4000), (0x20, 0x4000), (0x10, 0x21B0), (0x40, 0x2400)],
        "CS": [(0x10, 0x40), (0x18, 0x15), (0x18, 0x20), (0x18, 0x5100)],
        "UC": [(8, 0x119)],
    }
    more = {
        "LO": [(0x10, 0x21), (0x10, 0x1000), (0x10, 0x1040), (0x10, 0x1090), (0x18, 0x1000)],
        "PN": [(0x10, 0x1060), (0x32, 0x1032), (0x40, 6), (0x40, 0xA123)],
        "SH": [(0x40, 0x1001), (0x40, 0x2016), (0x40, 0x253), (0x10, 0x2180)],
        "LT": [(0x32, 0x4000), (0x40, 0x254), (0x38, 0x4000), (0x18, 0x4000)],
        "AS": [(0x10, 0x1010)],
        "AE": [(8, 0x54)],
        "UT": [(0x40, 0xA160)],
    }
    return [(t, kind) for part in (texts, more) for kind, tags in part.items() for t in tags]


def exif() -> Image.Exif:
    tags = Image.Exif()
    for tag in ("ImageDescription", "Artist", "Make", "Model", "Software", "Copyright"):
        tags[ExifTags.Base[tag]] = NAME
    tags[ExifTags.Base.UserComment] = NAME.encode()
    tags[ExifTags.Base.XPComment] = NAME.encode("utf-16-le")
    return tags


def picture(path: Path, seed: int) -> None:
    shown = Image.fromarray((volume(seed)[:, :, 0] % 256).astype(np.uint8))
    if path.suffix == ".png":
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", NAME)
        info.add_text("Comment", NAME * 50, zip=True)
        info.add_itxt("XML:com.adobe.xmp", NAME)
        shown.save(path, pnginfo=info, exif=exif())
    elif path.suffix == ".jpg":
        shown.save(path, exif=exif(), comment=NAME)
    elif path.suffix == ".tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        for tag in (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432, 65000):
            tags[tag] = NAME
            tags.tagtype[tag] = 2
        shown.save(path, tiffinfo=tags)
    else:
        shown.save(path)


def break_off(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])


def scribble(path: Path) -> None:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    data = bytearray(data)
    for at in range(38, min(len(data), 110), 7):
        data[at] ^= 0x55
    path.write_bytes(gzip.compress(bytes(data)) if path.suffix == ".gz" else bytes(data))


def rename_head(path: Path) -> None:
    """A file that begins with the name: what it is not, a library may say."""
    path.write_bytes(f"{NAME}\n{NAME} = {NAME}\n".encode() * 40)


BREAKS = (None, break_off, scribble, rename_head)


def scans(folder: Path) -> Path:
    """Scans in every format, each sound and broken in some ways; formats not read are there too."""
    folder.mkdir()
    for seed, (suffix, write) in enumerate(SCANS.items()):
        for i, damage in enumerate(BREAKS):
            path = folder / f"{suffix.replace('.', '')}{i}{suffix}"
            write(path, seed)
            if damage is not None:
                damage(path)
    for i, damage in enumerate(BREAKS):
        path = folder / f"second{i}.nii"
        nifti2(path, 50)
        if damage is not None:
            damage(path)
    return folder


def studies(folder: Path) -> Path:
    for i, damage in enumerate(BREAKS):
        dicom(folder / f"case{i}" / "t1", i)
        if damage is not None:
            damage(folder / f"case{i}" / "t1" / "003.dcm")
    return folder


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for suffix in (".png", ".jpg", ".tif", ".bmp"):
        for i, damage in enumerate(BREAKS):
            path = folder / f"{suffix[1:]}{i}{suffix}"
            picture(path, i)
            if damage is not None:
                damage(path)
    return folder


def leaks(*parts: bytes) -> list[bytes]:
    """Where the name is in some bytes, as it is or as files write text, with what is around it."""
    raw = NAME.encode()
    forms = {
        raw,
        raw.upper(),
        raw[:5],
        NAME.encode("utf-16-le"),
        base64.b64encode(raw)[:7],
        b"19010203",
    }
    forms |= {str(list(raw))[1:-1].encode()}
    return [
        data[max(found.start() - 60, 0) : found.end() + 60]
        for data in parts
        for form in forms
        for found in re.finditer(re.escape(form), data, re.IGNORECASE)
    ]


def written(folder: Path) -> list[bytes]:
    """All that is below a folder: names, bytes, and what is compressed in them."""
    parts = []
    for path in folder.rglob("*"):
        parts.append(path.name.encode())
        if not path.is_file():
            continue
        parts.append(path.read_bytes())
        if path.suffix == ".parquet":
            parts.append(pd.read_parquet(path).to_csv().encode())
        elif path.suffix == ".png":
            with contextlib.suppress(PIL.UnidentifiedImageError), Image.open(path) as shown:
                parts.append(repr(shown.info).encode())
        elif path.name.endswith(".nii.gz"):
            with contextlib.suppress(gzip.BadGzipFile, EOFError):
                parts.append(gzip.decompress(path.read_bytes()))
    return parts


def command(*arguments: object, cwd: Path, allowed: tuple[int, ...] = (0, 1)) -> list[bytes]:
    """What a verb prints; the whole as a user runs it."""
    process = Forked(command_line, *map(str, arguments), cwd=cwd)
    out, err = process.communicate(timeout=300)
    assert process.returncode in allowed, err[-2000:]
    assert "Traceback" not in err
    return [out.encode(), err.encode()]


@pytest.mark.parametrize(
    ("make", "options", "sound"),
    [(scans, ("--spacing", 1), len(SCANS) + 1), (studies, ("--spacing", 1), 1), (pictures, (), 4)],
)
def test_a_name_in_every_header_is_nowhere_in_what_prepare_writes_and_says(
    tmp_path, make, options, sound
):
    source, store = make(tmp_path / "in"), tmp_path / "out" / "s"
    assert leaks(*written(source))
    said = command("prepare", source, store, "--size", "16", "--debug", *options, cwd=tmp_path)
    said += command("inspect", store, cwd=tmp_path)
    assert leaks(*said, *written(tmp_path / "out")) == []
    table = pd.read_parquet(store / "table.parquet")
    assert sum(name.endswith("0") for name in table["subject"]) == sound
    failures = pd.read_csv(store / "failures.csv")
    assert len(failures) >= 2
    assert not failures["reason"].str.contains(r"Error|Exception|\n").any()


def test_every_format_of_scans_is_among_those_with_a_name():
    assert set(SCAN_SUFFIXES) == set(SCANS)


def test_a_series_that_is_named_by_the_patient_is_not_named_so_in_an_error(tmp_path):
    """DICOM whose descriptions tell no modality: they are asked for, but not shown."""
    dicom(tmp_path / "in" / "case", 1)
    for path in (tmp_path / "in" / "case").iterdir():
        path.write_bytes(path.read_bytes().replace(f"T1 {NAME}".encode(), NAME.encode() + b"   "))
    assert leaks(*command("prepare", "in", "s", cwd=tmp_path, allowed=(0, 1, 2))) == []


@pytest.mark.slow
def test_nor_in_anything_that_training_embedding_evaluation_and_reports_write(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(12):
        nifti1(source / f"s{i:02d}.nii.gz", i)
    rows = "".join(f"s{i:02d},{i % 2}\n" for i in range(12))
    (tmp_path / "l.csv").write_text(f"subject,grade\n{rows}")
    out = tmp_path / "out"
    out.mkdir()
    settings = [part for setting in LIGHT for part in ("--set", setting)]
    said = []
    for line in (
        ("prepare", source, "s", "--size", 16, "--labels", tmp_path / "l.csv"),
        ("inspect", "s"),
        ("pretrain", "s", "r", *settings),
        ("embed", "r", "s", "r/e.parquet"),
        ("evaluate", "r/e.parquet", "--label", "grade", "--out", "r/evaluation"),
        ("reconstruct", "r", "s", "r/reconstruction", "--subjects", 2),
        ("report", "r", "--out", "report.html"),
    ):
        said += command(*line, cwd=out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert leaks(*said, *written(out)) == []
    assert (out / "report.html").is_file()
