"""A picture is upright, opaque and of its own bits, or refused by what it is."""

import io
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageOps

from vitaepp.data.store import Store
from vitaepp.errors import SubjectError
from vitaepp.ingest.prepare import prepare
from vitaepp.ingest.readers.pictures import TRANSPARENT, TURNED, UNEVEN, read_picture
from vitaepp.ingest.readers.scans import read_grid

SHAPE = (11, 7)
GREY, ALPHA = np.random.default_rng(0).integers(1, 255, (2, *SHAPE)).astype(np.uint8)
RGB = np.random.default_rng(1).integers(1, 255, (*SHAPE, 3)).astype(np.uint8)
GREY16 = np.random.default_rng(2).integers(1, 65535, SHAPE).astype(np.uint16)

#: By the values of the tag: how the stored rows and columns become upright ones (TIFF 6.0).
UPRIGHT = {
    1: lambda v: v,
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: np.rot90(v, -1),
    7: lambda v: v.swapaxes(0, 1)[::-1, ::-1],
    8: lambda v: np.rot90(v),
}


def stored_with(path, values, orientation):
    tags = Image.Exif()
    tags[274] = orientation
    image = Image.fromarray(values)
    if path.suffix == ".tif":
        image.save(path, tiffinfo={274: orientation})
    else:
        image.save(path, exif=tags.tobytes(), lossless=True, subsampling=0, quality=95)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("values", [GREY, RGB, GREY16], ids=["grey", "rgb", "16 bits"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_picture_is_upright_whatever_its_orientation_tag(tmp_path, suffix, values, orientation):
    if values.dtype == np.uint16 and suffix in (".jpg", ".webp"):
        return
    path = tmp_path / f"x{suffix}"
    stored_with(path, values, orientation)
    image = read_picture(path, "x")
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        theirs = np.asarray(ImageOps.exif_transpose(picture))
    # Decoders of colour in JPEG round in their own ways.
    assert np.abs(image.values - theirs.astype(int)).max() <= 2 * (suffix == ".jpg")
    if suffix in (".png", ".tif"):
        assert np.array_equal(image.values, UPRIGHT[orientation](values))
        assert image.values.dtype == values.dtype
    assert image.notes == ((TURNED,) if orientation > 1 else ())
    grid = read_grid(path, "x", ndim=2)
    assert (grid or image.grid).size == image.grid.size == theirs.shape[:2]
    assert grid is not None or (suffix == ".tif" and orientation > 4)


def test_a_turned_picture_is_prepared_upright(tmp_path):
    stored_with(tmp_path / "x.jpg", RGB, 6)
    assert prepare(tmp_path, tmp_path / "s", size=(7, 11), workers=1).failures == ()
    with Image.open(tmp_path / "x.jpg") as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
    made = Store(tmp_path / "s").read([0])[0].astype(float)
    assert np.abs(made - np.moveaxis(upright, -1, 0)).max() <= 2


def test_colours_that_a_grey_store_drops_are_told(tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    coloured = np.dstack([grey, grey // 2, grey // 3])
    for name, values in (("a", grey), ("b", np.dstack([grey] * 3)), ("c", coloured)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    told = ["image: in colour, and kept as grey"]
    for channels, notes in (("grey", [[], [], told]), ("rgb", [[], [], []])):
        prepare(tmp_path, out := tmp_path.parent / channels, modalities=channels, workers=1)
        assert [[*row] for row in Store(out).table.prepare_notes] == notes


def on_black(colours, alpha):
    """By Pillow; to one grey level."""
    laid = np.dstack([colours, alpha]) if colours.ndim == 3 else np.dstack([*[colours] * 3, alpha])
    picture = Image.fromarray(laid)
    made = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return np.asarray(made)[..., :3] if colours.ndim == 3 else np.asarray(made)[..., 0]


@pytest.mark.parametrize("values", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_what_is_transparent_is_laid_on_black_and_one_alpha_is_dropped(tmp_path, suffix, values):
    if values.ndim == 2 and suffix == ".webp":
        return
    for alpha in (ALPHA, np.full(SHAPE, 255, np.uint8), np.zeros(SHAPE, np.uint8)):
        Image.fromarray(np.dstack([values, alpha])).save(
            tmp_path / f"x{suffix}", lossless=True, exact=True
        )
        image = read_picture(tmp_path / f"x{suffix}", "x")
        if np.ptp(alpha):
            expected = on_black(values, alpha).astype(int)
            assert np.abs(image.values - expected).max() <= 1
            assert image.notes == (TRANSPARENT,)
        else:
            assert np.array_equal(image.values, values)
            assert image.notes == ()


def palette():
    return Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE)


TRNS = {
    "grey": (Image.fromarray(GREY), int(GREY[2, 3])),
    "16 bits": (Image.fromarray(GREY16), int(GREY16[2, 3])),
    "1 bit": (Image.fromarray(GREY).convert("1"), 1),
    "rgb": (Image.fromarray(RGB), tuple(int(v) for v in RGB[2, 3])),
    "palette": (palette(), 3),
    "palette of shares": (palette(), bytes(range(0, 250, 3))),
}


@pytest.mark.parametrize("kind", TRNS)
def test_trns_makes_black_what_it_names(tmp_path, kind):
    picture, clear = TRNS[kind]
    picture.save(tmp_path / "x.png", transparency=clear)
    image = read_picture(tmp_path / "x.png", "x", constant=True)
    assert image.notes == (TRANSPARENT,)
    if kind == "16 bits":
        assert image.values.dtype == np.uint16
        assert np.array_equal(image.values, np.where(clear == GREY16, 0, GREY16))
        return
    with Image.open(tmp_path / "x.png") as opened:
        rgba = np.asarray(opened.convert("RGBA"))
    expected = on_black(rgba[..., :3], rgba[..., 3]).astype(int)
    values = image.values if image.is_colour else np.dstack([image.values] * 3)
    assert np.abs(values - expected).max() <= 1


def png(depth, colour, rows, *chunks):
    """A PNG of bytes by row."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    width = len(rows[0]) * 8 // depth
    head = struct.pack(">2I5B", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("depth", "level", "shown"), [(2, 1, 85), (4, 3, 51)])
def test_trns_of_few_bits_is_on_the_scale_of_the_file(tmp_path, depth, level, shown):
    row = bytes([0b00011011, 0b11100100] if depth == 2 else [0x03, 0x69, 0xF3])
    (tmp_path / "x.png").write_bytes(png(depth, 0, [row, row], (b"tRNS", struct.pack(">H", level))))
    (tmp_path / "y.png").write_bytes(png(depth, 0, [row, row]))
    image = read_picture(tmp_path / "x.png", "x")
    whole = read_picture(tmp_path / "y.png", "y").values
    assert (whole == shown).any()
    assert np.array_equal(image.values, np.where(whole == shown, 0, whole))


def test_16_bit_png_of_every_kind_is_read_and_fewer_bits_are_told(tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (*SHAPE, 4)).astype(np.uint16)
    values[..., 3] = 65535
    for channels in (3, 4):
        image = sitk.GetImageFromArray(values[..., :channels], isVector=True)
        sitk.WriteImage(image, str(tmp_path / "x.png"))
        assert np.array_equal(read_picture(tmp_path / "x.png", "x").values, values[..., :3])
    sitk.WriteImage(sitk.GetImageFromArray(values[..., 2:], isVector=True), str(tmp_path / "x.png"))
    image = read_picture(tmp_path / "x.png", "x")
    grey = image.values[..., 0] if image.is_colour else image.values
    assert np.array_equal(grey, values[..., 2] >> 8)
    assert "read in 8 bits" in image.notes[0]


def tiff(values, sample_format, tags=()):
    """An uncompressed TIFF of any type of values."""
    rows, columns, samples = (*values.shape, 1)[:3]
    bits = values.dtype.itemsize * 8
    told = {256: columns, 257: rows, 258: bits, 259: 1, 262: 1 if samples < 3 else 2, 273: 0}
    told |= {277: samples, 278: rows, 279: values.nbytes, 339: sample_format, **dict(tags)}
    beyond = b""
    start = 8 + 2 + 12 * len(told) + 4
    entries = b""
    for tag, value in sorted(told.items()):
        many = [value] * samples if tag in (258, 339) else [value]
        packed = struct.pack(f"<{len(many)}H", *many) if len(many) > 1 else struct.pack("<I", value)
        if tag == 273:
            packed = struct.pack("<I", start + (16 if samples > 2 else 0))
        if len(packed) > 4:
            beyond, packed = beyond + packed.ljust(8, b"\0"), struct.pack("<I", start + len(beyond))
        kind = 3 if len(many) > 1 else 4
        entries += struct.pack("<HHI", tag, kind, len(many)) + packed.ljust(4, b"\0")
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(told))
        + entries
        + b"\0" * 4
        + beyond
        + values.tobytes()
    )


UNSIGNED, SIGNED, FLOAT = 1, 2, 3


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        *(("u1", UNSIGNED), ("u2", UNSIGNED), ("u4", UNSIGNED), ("i1", SIGNED)),
        *(("i2", SIGNED), ("i4", SIGNED), ("f4", FLOAT)),
    ],
)
def test_a_tiff_of_any_type_of_up_to_32_bits_keeps_its_values(tmp_path, dtype, code, white_is_zero):
    values = (np.random.default_rng(0).random(SHAPE) * 100).astype(dtype)
    (tmp_path / "x.tif").write_bytes(tiff(values, code, {262: int(not white_is_zero)}.items()))
    if white_is_zero:
        values = np.iinfo(dtype).max - values if code == UNSIGNED else -values
    image = read_picture(tmp_path / "x.tif", "x")
    assert np.array_equal(image.values, values)
    assert image.values.dtype.kind == values.dtype.kind


@pytest.mark.parametrize(("dtype", "code"), [("u2", UNSIGNED), ("f4", FLOAT)])
def test_a_tiff_of_wide_colours_keeps_them(tmp_path, dtype, code):
    values = (np.random.default_rng(0).random((*SHAPE, 3)) * 30000).astype(dtype)
    (tmp_path / "x.tif").write_bytes(tiff(values, code))
    assert np.array_equal(read_picture(tmp_path / "x.tif", "x").values, values)


@pytest.mark.parametrize(
    ("dtype", "code", "what"),
    [
        ("f8", FLOAT, "64-bit floats"),
        ("i8", SIGNED, "64-bit integers"),
        ("u8", UNSIGNED, "64-bit integers"),
        ("f2", FLOAT, "16-bit floats"),
    ],
)
def test_a_tiff_that_no_reader_here_reads_is_named(tmp_path, dtype, code, what):
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(np.random.default_rng(0).random(SHAPE).astype(dtype), code))
    with pytest.raises(SubjectError, match=f"x: a TIFF of {what} cannot be read; save it as"):
        read_picture(path, "x")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_tiff_of_8_bits_is_what_pillow_reads(tmp_path, mode, compression):
    alpha = np.full(SHAPE, 255, np.uint8)
    picture = Image.fromarray(np.dstack([GREY, alpha]) if mode == "LA" else RGB).convert(mode)
    picture.save(tmp_path / "x.tif", compression=compression)
    found = read_picture(tmp_path / "x.tif", "x").values
    expected = np.asarray(picture.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".webp"])
def test_pages_and_frames_are_counted_in_the_refusal(tmp_path, suffix):
    frames = [Image.fromarray(np.roll(GREY, i)[: 11 - i * (suffix == ".tif")]) for i in range(3)]
    path = tmp_path / f"x{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(SubjectError, match=r"x: has 3 (pages|frames); one picture per file"):
        read_picture(path, "x")


def test_a_thumbnail_is_no_page(tmp_path):
    small = Image.fromarray(GREY[::2, ::2])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(GREY).save(tmp_path / "x.tif", save_all=True, append_images=[small])
    assert np.array_equal(read_picture(tmp_path / "x.tif", "x").values, GREY)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_gif_or_webp_of_one_frame_is_a_picture(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"x{suffix}", lossless=True)
    values = read_picture(tmp_path / f"x{suffix}", "x").values
    assert np.array_equal(values[..., 0] if values.ndim == 3 else values, GREY)
    assert prepare(tmp_path, tmp_path / "s", size=SHAPE, workers=1).failures == ()


def test_a_jpeg_of_inks_is_what_pillow_shows(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    with Image.open(tmp_path / "x.jpg") as picture:
        expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(read_picture(tmp_path / "x.jpg", "x").values - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_orientation_is_none(tmp_path, suffix):
    tags = Image.Exif()
    tags[274] = 6
    for data in (
        b"Exif\0\0garbage",
        tags.tobytes()[:-8],
        tags.tobytes().replace(b"\6\0", b"\x63\0"),
    ):
        Image.fromarray(GREY).save(tmp_path / f"x{suffix}", exif=data)
        assert read_picture(tmp_path / f"x{suffix}", "x").grid.size == SHAPE


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_a_resolution_that_differs_between_axes_is_noted(tmp_path, suffix):
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    for dpi, told in (((204, 98), True), ((72, 72), False), (None, False)):
        picture.save(tmp_path / f"x.{suffix}", **({} if dpi is None else {"dpi": dpi}))
        assert (UNEVEN in read_picture(tmp_path / f"x.{suffix}", "x").notes) == told
