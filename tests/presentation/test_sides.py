"""Left is left: a marker on the patient's left is where a radiologist looks for it, and marked.

A phantom carries one bright blob to the left, front and top of the middle. It is written by nibabel
in each of the 48 orders and directions of axes; every picture that the library makes of it must
show the blob on the same side.
"""

import base64
import io
from html.parser import HTMLParser
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import zarr
from PIL import Image, ImageDraw, ImageFont

from tests.conftest import LIGHT
from vitaepp.data.inspection import ContactSheet, inspect
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.data.storetable import Record
from vitaepp.data.storewriter import StoreWriter, stage
from vitaepp.errors import StoreError
from vitaepp.evaluation.reconstruction import draw_panel, reconstruct, write_volumes
from vitaepp.experiments.reconstructions import reconstruction_figure
from vitaepp.ingest.prepare import prepare
from vitaepp.presentation.drawing import Label, Picture
from vitaepp.presentation.planes import GAP, LINE, MARK, OUTLINE, Marks, framed, planes, tile
from vitaepp.reporting import report
from vitaepp.reporting.images import KINDS, sheets
from vitaepp.training.pretrain import pretrain

#: Axis codes of the input, from RAS to IPL.
CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("LR", "PA", "IS"))
    for signs in product((0, 1), repeat=3)
]

#: Where the marker is, in mm from the middle: to the left, front and top (RAS).
MARKER = np.array([-10.0, 6.0, 8.0])

AXIAL, CORONAL, SAGITTAL = planes(3, directed=True)

#: On which side of the screen's middle the marker is: right and up are positive.
EXPECTED = {"axial": (1, 1), "coronal": (1, 1), "sagittal": (-1, 1)}


def phantom(codes, spacing=(1.0, 1.5, 2.0)):
    """A dim head with a marker on the patient's left, as a NIfTI image of these axis codes."""
    affine = np.diag([*spacing, 1.0])
    shape = [round(48 / s) for s in spacing]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    values = 60.0 * (np.linalg.norm(world / [20, 22, 20], axis=-1) < 1)
    # Wide enough to be met by the slices through the middle.
    values += 180 * np.exp(-(((world - MARKER) / 7) ** 2).sum(-1))
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    wanted = nib.orientations.axcodes2ornt(codes)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), wanted)
    )
    assert "".join(nib.aff2axcodes(turned.affine)) == codes
    return turned


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All 48, prepared at a spacing that differs by axis."""
    folder = tmp_path_factory.mktemp("sides")
    for codes in CODES:
        nib.save(phantom(codes), folder / f"{codes}.nii.gz")
    table = pd.DataFrame({"subject": CODES, "t1": [f"{codes}.nii.gz" for codes in CODES]})
    table.to_csv(folder / "m.csv", index=False)
    prepare(
        folder / "m.csv", folder / "s", size="40,24,16", spacing="1,2,3", center="image", workers=1
    )
    return Store(folder / "s")


def grey(picture):
    """Intensities of anatomy: marks, outlines and texts, which are coloured, count for nothing."""
    pixels = np.asarray(picture.convert("RGB")).astype(float)
    return np.where(np.ptp(pixels, axis=-1) < 3, pixels.mean(-1), 0.0)


def side(values):
    """Where the brightest part of a picture is: right and up of its middle are positive."""
    rows, columns = np.nonzero(values > 0.8 * values.max())
    height, width = values.shape
    return np.sign([columns.mean() - (width - 1) / 2, (height - 1) / 2 - rows.mean()]).tolist()


def tiles_of(info):
    """Left edge, width and height of the tiles that a contact sheet has of a subject."""
    extents = [plane.extent(info.size, info.spacing) for plane in planes(info.ndim, info.directed)]
    scale = 96 / max(max(extent) for extent in extents)
    sizes = [framed((round(w * scale), round(h * scale))) for w, h in extents]
    lefts = np.cumsum([0, *(w + GAP for w, _ in sizes)])
    return [(int(left), w, h) for left, (w, h) in zip(lefts, sizes, strict=False)]


def test_there_are_48_orientations():
    assert len(set(CODES)) == 48
    assert {"LPS", "RAS", "PIR"} <= set(CODES)


@pytest.mark.parametrize("codes", CODES)
def test_planes_show_the_marker_on_its_side(codes):
    values = nib.as_closest_canonical(phantom(codes)).get_fdata()
    for plane in (AXIAL, CORONAL, SAGITTAL):
        assert tuple(side(plane.cut(values))) == EXPECTED[plane.name]


def test_marks_are_what_lies_there():
    assert AXIAL.marks == Marks(left="R", right="L", top="A", bottom="P")
    assert CORONAL.marks == Marks(left="R", right="L", top="S", bottom="I")
    assert SAGITTAL.marks == Marks(left="A", right="P", top="S", bottom="I")
    # As values: a volume that holds each voxel's own distance to the right, front and top.
    places = np.indices((5, 6, 7))
    for plane in (AXIAL, CORONAL, SAGITTAL):
        for ends, pick in (
            ((plane.marks.left, plane.marks.right), lambda x: (x[2, 0], x[2, -1])),
            ((plane.marks.top, plane.marks.bottom), lambda x: (x[0, 2], x[-1, 2])),
        ):
            axis = next(i for i, pair in enumerate(("RL", "AP", "SI")) if ends[0] in pair)
            first, last = pick(plane.cut(places[axis]))
            assert (first > last) == (ends[0] in "RAS")
            assert {first, last} == {0, places.shape[1 + axis] - 1}


@pytest.mark.parametrize("row", range(48))
def test_panel_report_nifti_and_sheet_have_the_marker_on_the_patients_left(store, tmp_path, row):
    info, image = store.info, store.read([row])[0]
    arrays = dict.fromkeys(KINDS, image.astype(np.uint8))

    draw_panel(arrays, tmp_path / "p.png", info.modalities, [True], info)
    panel = Image.open(tmp_path / "p.png")
    scale = 4  # the shortest side, 40 mm, becomes 160 pixels
    top = LINE  # below the heads
    for plane in (AXIAL, CORONAL, SAGITTAL):
        width, height = (round(v * scale) for v in plane.extent(info.size, info.spacing))
        for k in range(3):
            left = k * (width + GAP)
            shown = panel.crop((left, top + LINE, left + width, top + LINE + height))
            assert tuple(side(grey(shown))) == EXPECTED[plane.name]
        top += LINE + height + GAP

    np.savez(tmp_path / "a.npz", channels=np.array(["t1"]), **arrays)
    (sheet,), _ = sheets({"a": tmp_path / "a.npz"}, info.spacing, True, 10**7)
    content = Image.open(io.BytesIO(base64.b64decode(sheet.source.partition(",")[2])))
    slices = np.asarray(content.convert("L")).astype(float).reshape(sheet.slices, 24, 3, 40)
    for k in range(3):
        assert tuple(side(slices[sheet.slices // 2, :, k])) == EXPECTED["axial"]
    assert sheet.plane == AXIAL

    write_volumes({"t1": image[0].astype(np.float32)}, store, row, tmp_path / "r")
    written = nib.load(tmp_path / "r_t1.nii.gz")
    brightest = np.unravel_index(written.get_fdata().argmax(), written.shape)
    assert np.abs(nib.affines.apply_affine(written.affine, brightest) - MARKER).max() <= 3

    (page,) = ContactSheet(store, [row])
    for (left, width, height), plane in zip(
        tiles_of(info), (AXIAL, CORONAL, SAGITTAL), strict=True
    ):
        x, y = 14 + left, 3 * LINE + LINE
        assert tuple(side(grey(page.crop((x, y, x + width, y + height))))) == EXPECTED[plane.name]


def coloured(picture):
    """Pixels that are rather yellow, as marks are and nothing else is."""
    values = np.asarray(picture).astype(int)
    return values[..., 0] - values[..., 2] > 60


def ink(picture):
    """Pixels of the colour of marks, cut to what is there."""
    found = coloured(picture)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    assert len(rows), "no mark is drawn"
    return found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def letter(text, size):
    """A letter of Pillow's own font in the colour of marks."""
    picture = Image.new("RGB", (40, 40))
    ImageDraw.Draw(picture).text(
        (20, 20), text, MARK, ImageFont.load_default(size), "mm", stroke_width=1, stroke_fill=0
    )
    return ink(picture)


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL], ids=lambda p: p.name)
def test_each_mark_is_drawn_at_its_side(plane):
    drawn = tile(np.zeros((100, 100)), (100, 100), plane.marks)
    places = {"left": (0, 30, 25, 70), "right": (75, 30, 100, 70)}
    places |= {"top": (30, 0, 70, 25), "bottom": (30, 75, 70, 100)}
    for name, box in places.items():
        found = ink(drawn.crop(box))
        wanted = getattr(plane.marks, name)
        alike = {other: difference(found, letter(other, 12)) for other in "RLAPSI"}
        assert min(alike, key=alike.get) == wanted, alike


def difference(found, wanted):
    """Pixels in which two letters differ, at the best place."""
    shape = np.maximum(found.shape, wanted.shape) + 2
    first = np.zeros(shape, bool)
    first[1 : 1 + found.shape[0], 1 : 1 + found.shape[1]] = found
    moved = []
    for y, x in product(
        range(shape[0] - wanted.shape[0] + 1), range(shape[1] - wanted.shape[1] + 1)
    ):
        second = np.zeros(shape, bool)
        second[y : y + wanted.shape[0], x : x + wanted.shape[1]] = wanted
        moved.append(int((first ^ second).sum()))
    return min(moved)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 4.0), (0.5, 0.5, 3.0)])
def test_a_cube_is_square_whatever_the_voxels(tmp_path, spacing):
    size = tuple(round(60 / s) for s in spacing)
    world = (np.moveaxis(np.indices(size), 0, -1) + 0.5) * spacing
    cube = (250 * (np.abs(world - 30).max(-1) < 18)).astype(np.uint8)[None]
    info = StoreInfo(("t1",), size, spacing, "uint8", "image")
    record = Record("a", tuple(np.eye(4).ravel()), (0.0,), (255.0,), ("t1",), "x")
    with StoreWriter(tmp_path / "s", info) as writer:
        stage(writer.path, info, cube, record)
        writer.commit(pd.DataFrame({"subject": ["a"], "split": ""}), [])
    (page,) = ContactSheet(Store(tmp_path / "s"), [0])
    boxes = [(14 + x, 4 * LINE, 14 + x + w, 4 * LINE + h) for x, w, h in tiles_of(info)]
    pictures = [page.crop(box) for box in boxes]
    draw_panel({"original": cube}, tmp_path / "p.png", ["t1"], [True], info)
    panel = Image.open(tmp_path / "p.png")
    assert (panel.height + GAP - LINE) % 3 == 0
    height = (panel.height + GAP - LINE) // 3
    tops = [LINE + k * height + LINE for k in range(3)]
    pictures += [panel.crop((0, top, panel.width, top + height - LINE - GAP)) for top in tops]
    for picture in pictures:
        bright = grey(picture) > 125
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=2)
        # 36 of 60 mm; marks lie outside of the cube.
        assert np.ptp(rows) + 1 == pytest.approx(picture.height * 0.6, abs=2)


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 16)])
def test_what_has_no_directions_has_no_marks(tmp_path, size):
    """Pictures and volumes of bare arrays are shown as they are stored."""
    images = np.zeros((4, *size), np.uint8)
    images[:, :5, 3:9] = np.arange(20, 220, 30)[:4].reshape(-1, *[1] * len(size)) + 30
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=np.arange(4)[:, None] % 2)
    for spacing in (None, 1.0):
        prepared = prepare(tmp_path / "a.npz", tmp_path / f"s{spacing}", spacing=spacing)
        opened = Store(prepared.store)
        assert not opened.info.directed
        view = planes(len(size), opened.info.directed)[0]
        shown = view.cut(opened.read([3])[0, 0])
        assert (shown[:5, 3:9] > 100).all()
        assert shown[6:].max() == 0
        (page,) = ContactSheet(opened, [3])
        assert not coloured(page).any()
    assert "spacing 1×1" + "×1" * (len(size) - 2) + " pixels" in inspect(prepared.store)


class Words(HTMLParser):
    """The letters of the marks, by the class that places them."""

    def __init__(self, text):
        super().__init__()
        self.inside, self.found, self.text = "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = dict(attributes).get("class", "") if tag == "i" else ""

    def handle_data(self, data):
        self.text.append(data)
        if self.inside in ("left", "right", "top", "bottom"):
            self.found.append((self.inside, data))
            self.inside = ""


def test_a_run_draws_what_it_was_trained_on_and_its_report_is_marked(make_store, tmp_path):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=(*LIGHT, "optim.epochs=1"))
    reconstruct(run, store.path, run / "reconstruction", subjects=2)
    with Image.open(run / "prepared.png") as picture:
        assert coloured(picture).any()
        assert picture.width <= 960
    assert coloured(Image.open(run / "reconstruction" / "s000.png")).any()
    page = Words(report(run, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert (
        page.found[:12]
        == [
            ("left", "R"),
            ("right", "L"),
            ("top", "A"),
            ("bottom", "P"),
        ]
        * 3
    )
    words = " ".join(" ".join(page.text).split())
    assert "What was prepared" in words
    assert "Axial slice" in words
    (run / "prepared.png").unlink()
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    command = f"inspect STORE --pictures {run}/prepared.png --subjects 6"
    assert command in page
    inspect(store.path, pictures=run / "prepared.png", subjects=6)
    assert command not in report(run, tmp_path / "r.html").read_text(encoding="utf-8")


def test_figures_of_experiments_are_marked_and_in_proportion():
    volume = np.zeros((10, 20, 5), np.uint8)
    volume[1:4, 12:18] = 200
    panels = [("a", {"original": AXIAL.cut(volume), "ViT-AE++": AXIAL.cut(volume)})]
    drawing = reconstruction_figure(panels, AXIAL, AXIAL.extent(volume.shape, (2.0, 1.0, 5.0)))
    shown = [shape for shape in drawing.shapes if isinstance(shape, Picture)]
    assert len(shown) == 2
    for picture in shown:
        assert picture.width == picture.height  # 10 voxels of 2 mm by 20 of 1 mm
        assert picture.image.width == picture.image.height
        assert side(grey(picture.image)) == [1, 1]
        assert coloured(picture.image).any()  # the marks
    words = [shape.text for shape in drawing.shapes if isinstance(shape, Label)]
    assert words == ["original", "ViT-AE++", "a, axial"]


def test_pages_hold_all_subjects_or_some(store, tmp_path):
    told = inspect(store.path, pictures=tmp_path / "all.png")
    assert told.endswith(f"pictures of 48 subjects in {tmp_path / 'all.png'}")
    assert told.startswith(inspect(store.path))
    few = ContactSheet(store, store.spread(5))
    assert few.rows == [0, 12, 24, 35, 47]
    pages = list(ContactSheet(store, store.spread(), page=(700, 500)))
    assert len(pages) == len(ContactSheet(store, store.spread(), page=(700, 500))) > 3
    assert all(page.width <= 700 and page.height <= 500 for page in pages)
    for many, message in (("x.jpg", "needs a PNG file"), (".", "needs a PNG file")):
        with pytest.raises(StoreError, match=message):
            inspect(store.path, pictures=tmp_path / many)
    with pytest.raises(StoreError, match="needs `pictures`"):
        inspect(store.path, subjects=3)


def test_many_pages_are_numbered(store, tmp_path, monkeypatch):
    monkeypatch.setattr("vitaepp.data.inspection.PAGE", (700, 500))
    told = inspect(store.path, pictures=tmp_path / "sheet.png", subjects=13)
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == [f"sheet_{k:03d}.png" for k in range(1, len(files) + 1)]
    assert len(files) > 1
    assert told.endswith(f"13 subjects in {tmp_path / files[0]} to {files[-1]}")


def test_masks_are_outlined_and_seen_where_they_are_largest(tmp_path):
    info = StoreInfo(("t1",), (16, 16, 16), (1.0, 1.0, 1.0), "float16", "image", masks=True)
    mask = np.zeros(info.size, np.uint8)
    mask[2:6, 3:6, 11:14] = 1  # away from the middle
    with StoreWriter(tmp_path / "s", info) as writer:
        for subject, inside in (("a", mask), ("b", None)):
            record = Record(subject, tuple(np.eye(4).ravel()), (0.0,), (255.0,), ("t1",), "x")
            stage(tmp_path / "s", info, np.full(info.shape, 60.0, np.float32), record, inside)
        writer.commit(pd.DataFrame({"subject": ["a", "b"], "split": ""}), [])
    opened = Store(tmp_path / "s")
    (page,) = ContactSheet(opened, [0, 1])
    red = (np.asarray(page) == OUTLINE).all(-1)
    width = tiles_of(opened.info)[0][1]
    rows, columns = np.nonzero(red[4 * LINE :, 14 : 14 + width])
    # 6 pixels a voxel; x from 2 to 6 and y from 3 to 6, both from the far end.
    assert (columns.min(), columns.max()) == (60, 83)
    assert (rows.min(), rows.max()) == (60, 77)
    assert not red[:, 14 + 3 * (width + GAP) :].any()  # the other subject's mask is empty
    zarr.create_array(opened.path / "masks.zarr", shape=(2, 4, 4, 4), dtype="uint8", overwrite=True)
    with pytest.raises(StoreError, match=r"masks\.zarr holds"):
        list(ContactSheet(Store(opened.path), [0]))
