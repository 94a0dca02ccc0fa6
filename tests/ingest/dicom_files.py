"""DICOM files, written byte by byte, so that each can be wrong in its own way."""

import struct
from pathlib import Path

import numpy as np

MR, CT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
AXIAL = (1, 0, 0, 0, 1, 0)

#: What identifies a patient; must never be seen outside of the files.
NAME = "Zzyzx^Quillfeather"


def element(group, number, kind, value, implicit=False):
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    if isinstance(value, str):
        value = value.encode()
        value += (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    tag = struct.pack("<2H", group, number)
    if implicit:
        return tag + struct.pack("<I", len(value)) + value
    if kind in ("OB", "OW", "SQ", "UN"):
        return tag + kind.encode() + struct.pack("<HI", 0, len(value)) + value
    return tag + kind.encode() + struct.pack("<H", len(value)) + value


def item(*elements):
    data = b"".join(elements)
    return struct.pack("<2HI", 0xFFFE, 0xE000, len(data)) + data


def numbers(values):
    return "\\".join(f"{v:.10g}"[:16] for v in values)


def file_of(sop_class, dataset, syntax=EXPLICIT):
    meta = element(2, 1, "OB", b"\0\1") + element(2, 2, "UI", sop_class)
    meta += element(2, 3, "UI", "1.2.3") + element(2, 0x10, "UI", syntax)
    return b"\0" * 128 + b"DICM" + element(2, 0, "UL", len(meta)) + meta + dataset


def head(put, sop_class, instance, study, series, description, modality, image_type, patient=NAME):
    return b"".join(
        [
            put(8, 8, "CS", image_type),
            put(8, 0x16, "UI", sop_class),
            put(8, 0x18, "UI", instance),
            put(8, 0x60, "CS", modality),
            put(8, 0x103E, "LO", description),
            put(0x10, 0x10, "PN", patient),
            put(0x18, 0x50, "DS", "99"),  # slice thickness, which must not count
            put(0x20, 0xD, "UI", study),
            put(0x20, 0xE, "UI", series),
        ]
    )


def pixels(put, values, photometric="MONOCHROME2", frames=None, spacing=None):
    rows, columns = values.shape[-2:]
    signed = int(values.dtype.kind == "i")
    bits = values.dtype.itemsize * 8
    elements = [put(0x28, 2, "US", 1), put(0x28, 4, "CS", photometric)]
    if frames:
        elements.append(put(0x28, 8, "IS", str(frames)))
    elements += [put(0x28, 0x10, "US", rows), put(0x28, 0x11, "US", columns)]
    if spacing:
        elements.append(put(0x28, 0x30, "DS", numbers(spacing)))
    elements += [put(0x28, 0x100, "US", bits), put(0x28, 0x101, "US", bits)]
    elements += [put(0x28, 0x102, "US", bits - 1), put(0x28, 0x103, "US", signed)]
    return b"".join(elements)


def one_slice(
    path: Path,
    values,
    position,
    *,
    orientation=AXIAL,
    spacing=(1, 1),
    instance="1.2.3",
    study="1.2.10",
    series="1.2.20",
    description="AX T1",
    modality="MR",
    image_type="ORIGINAL\\PRIMARY",
    number=1,
    scale=None,
    photometric="MONOCHROME2",
    syntax=EXPLICIT,
    patient=NAME,
    padding=(),
):
    """One slice `(row, column)`; `scale` is slope and intercept; `padding` value and limit."""

    def put(group, number, kind, value):
        return element(group, number, kind, value, implicit=syntax == IMPLICIT)

    dataset = head(put, MR, instance, study, series, description, modality, image_type, patient)
    dataset += put(0x20, 0x13, "IS", str(number))
    if position is not None:
        dataset += put(0x20, 0x32, "DS", numbers(position))
        dataset += put(0x20, 0x37, "DS", numbers(orientation))
    dataset += pixels(put, values, photometric, spacing=spacing)
    for i, stored in enumerate(padding):
        dataset += put(0x28, 0x120 + i, "US", stored % (1 << 16))
    if scale:
        dataset += put(0x28, 0x1052, "DS", numbers(scale[1:]))
        dataset += put(0x28, 0x1053, "DS", numbers(scale[:1]))
    dataset += put(0x7FE0, 0x10, "OW", values.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(MR, dataset, syntax))
    return path


def series(folder: Path, volume, *, origin=(0, 0, 0), step=(0, 0, 2), name="IM{:03d}", **options):
    """A volume `(x, y, z)` as a slice a file, names and numbers in no order of position."""
    uid = options.pop("instances", options.setdefault("series", "1.2.20"))
    shuffled = np.random.default_rng(0).permutation(volume.shape[2])
    files = []
    for i, at in enumerate(shuffled):
        position = np.add(origin, np.multiply(at, step))
        values = np.ascontiguousarray(volume[:, :, at].T)
        path = folder / name.format(i)
        files.append(
            one_slice(path, values, position, instance=f"{uid}.{at + 1}", number=i, **options)
        )
    return [files[i] for i in np.argsort(shuffled)]


def multi_frame(
    path: Path, volume, positions, *, scales=None, spacing=(1, 1), orientation=AXIAL,
    description="AX T1", syntax=EXPLICIT, study="1.2.10", series="1.2.30",
):  # fmt: skip
    """An enhanced MR file of frames `(x, y, frame)` at these positions."""

    def put(group, number, kind, value):
        return element(group, number, kind, value, implicit=syntax == IMPLICIT)

    dataset = head(
        put, ENHANCED_MR, f"{series}.1", study, series, description, "MR", "ORIGINAL\\PRIMARY"
    )
    dataset += pixels(put, volume.transpose(2, 1, 0), frames=volume.shape[2])
    shared = put(0x20, 0x9116, "SQ", item(put(0x20, 0x37, "DS", numbers(orientation))))
    shared += put(0x28, 0x9110, "SQ", item(put(0x28, 0x30, "DS", numbers(spacing))))
    dataset += put(0x5200, 0x9229, "SQ", item(shared))
    frames = []
    for i, position in enumerate(positions):
        own = put(0x20, 0x9113, "SQ", item(put(0x20, 0x32, "DS", numbers(position))))
        if scales is not None:
            values = put(0x28, 0x1052, "DS", numbers(scales[i][1:]))
            values += put(0x28, 0x1053, "DS", numbers(scales[i][:1]))
            own += put(0x28, 0x9145, "SQ", item(values))
        frames.append(item(own))
    dataset += put(0x5200, 0x9230, "SQ", b"".join(frames))
    dataset += put(0x7FE0, 0x10, "OW", np.ascontiguousarray(volume.transpose(2, 1, 0)).tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(ENHANCED_MR, dataset, syntax))
    return path


def no_image(path: Path, sop_class):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(sop_class, element(8, 0x16, "UI", sop_class)))
    return path
