"""A phantom cohort to try things on: synthetic brain tumours of two grades as NIfTI files.

Each subject has FLAIR, T1, T1c and T2 and a tumour mask in BraTS naming. The grades differ in the
arrangement of tissue:

- high grade: an irregular, often broken rim, which enhances on T1c, around a necrotic core; wide
  oedema;
- low grade: some enhancing patches anywhere in the tumour; often a cyst, which looks like necrosis;
  little oedema.

Both grades vary in the same way in size, position, shape and orientation of the tumour, anatomy,
enhancing vessels, contrast, gain, gamma, bias field, noise, resolution and field of view. So the
intensity at one position says little. Much of this variation (gamma, noise, rotation, scale) is
what ViT-AE++ learns to ignore by its second view. The difficulty was chosen so that a demo of some
minutes shows this: the cohort demonstrates the method and is not evidence for it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.geometry import Grid, Vectors
from vitaepp.data.nifti import write_scan
from vitaepp.errors import SourceError
from vitaepp.ingest.workers.pool import run_each
from vitaepp.system.files import atomic_path, read_json, write_json
from vitaepp.system.progress import track

MODALITIES = ("flair", "t1", "t1ce", "t2")
GRADES = ("low", "high")
SITES = ("A", "B", "C")

#: Labels of the mask, as in BraTS: core, oedema, enhancing.
CORE, OEDEMA, ENHANCING = 1, 2, 4

#: Fields have single precision, which halves the time.
Volume = npt.NDArray[np.float32]

#: Mean intensity of each tissue per modality; white matter on T1 has about 0.75.
TISSUES = {
    #            FLAIR   T1    T1c   T2
    "scalp": (0.50, 0.80, 0.80, 0.55),
    "skull": (0.07, 0.09, 0.09, 0.06),
    "csf": (0.10, 0.15, 0.15, 0.95),
    "grey matter": (0.60, 0.52, 0.54, 0.58),
    "white matter": (0.46, 0.74, 0.76, 0.40),
    "deep grey matter": (0.55, 0.60, 0.62, 0.46),
    "vessel": (0.25, 0.35, 1.00, 0.15),
    "oedema": (0.88, 0.50, 0.52, 0.80),
    "tumour": (0.75, 0.45, 0.50, 0.70),
    "enhancing": (0.72, 0.50, 1.00, 0.66),
    "necrosis": (0.45, 0.27, 0.27, 0.88),
    "cyst": (0.30, 0.22, 0.22, 0.95),
}


@dataclass(frozen=True)
class PhantomSettings:
    """The difficulty of the phantoms; lengths are in mm, fractions and rates in [0, 1].

    Attributes:
        enhancement: range of the brightness of enhancing tissue, as a fraction of the step from
            tumour to vessel on T1c. Lower hides the rim.
        rim_width: range of the rim's thickness in high grades.
        rim_cover: range of the fraction of the surface that the rim covers.
        patchy: range of the fraction of a low-grade tumour that enhances in patches.
        core: range of the necrotic fraction of a high grade's radius inside the rim.
        cyst_rate: share of low grades with a cyst.
        oedema_low: range of the oedema's reach around low grades.
        oedema_high: the same around high grades. With equal ranges, only the arrangement of tissue
            differs between grades.
        radius: range of the tumour's mean radius, in both grades.
        eccentricity: range of the tumour's distance from the brain's middle, 1 at its surface.
        irregularity: deviation of the surface from an ellipsoid, as a fraction of the radius.
        vessels: range of the number of enhancing vessels near the tumour.
        contrast: standard deviation of each tissue's intensity between subjects.
        gain: range of the overall factor of a modality; drawn on a logarithmic scale.
        log_gamma: each modality's intensities are raised to exp(u), with u within ± this value,
            because scanners and protocols differ in more than gain.
        bias: standard deviation of the logarithm of the bias field.
        noise: range of the noise's standard deviation (Rician).
        artefact: range of the artefact's intensity, in units of the brightest tissue's. There is
            one small spot per modality, at the brain's surface. Intensities that are rescaled by
            their range then differ between subjects by the same factor.
        skull_stripped: whether everything outside the brain is 0, as in BraTS.
    """

    enhancement: tuple[float, float] = (0.6, 1.0)
    rim_width: tuple[float, float] = (2.5, 4.0)
    rim_cover: tuple[float, float] = (0.75, 1.0)
    patchy: tuple[float, float] = (0.05, 0.15)
    core: tuple[float, float] = (0.6, 1.0)
    cyst_rate: float = 0.5
    oedema_low: tuple[float, float] = (0.0, 4.0)
    oedema_high: tuple[float, float] = (6.0, 12.0)
    radius: tuple[float, float] = (8.0, 13.0)
    eccentricity: tuple[float, float] = (0.05, 0.35)
    irregularity: float = 0.18
    vessels: tuple[int, int] = (2, 5)
    contrast: float = 0.05
    gain: tuple[float, float] = (0.5, 2.0)
    log_gamma: float = 0.6
    bias: float = 0.15
    noise: tuple[float, float] = (0.01, 0.12)
    artefact: tuple[float, float] = (1.0, 3.0)
    skull_stripped: bool = True


def write_phantoms(
    folder: str | os.PathLike[str],
    subjects: int = 48,
    seed: int = 0,
    settings: PhantomSettings | None = None,
    workers: int | None = None,
) -> Path:
    """Write a phantom cohort: `<subject>/<subject>_flair.nii.gz` and so on, and `labels.csv`.

    The same seed gives the same files. An interrupted call continues where it stopped. `labels.csv`
    has `subject`, `high_grade` (0 and 1, half each) and `site`, which influences resolution and
    noise but is independent of the grade.

    Args:
        folder: a folder that is new, empty, or from an earlier call with the same arguments.
        subjects: number of subjects.
        seed: seed of all random numbers.
        settings: difficulty.
        workers: number of processes. Unset: one per core.

    Returns:
        The label file.

    Raises:
        SourceError: the folder holds something else.
    """
    folder = Path(folder)
    settings = settings or PhantomSettings()
    marker = folder / "phantoms.json"
    made_by = json.loads(json.dumps({"subjects": subjects, "seed": seed} | asdict(settings)))
    if marker.is_file():
        if read_json(marker) != made_by:
            raise SourceError(f"{folder}: holds phantoms of other settings; choose another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"{folder}: is not empty; choose another folder for the phantoms")
    write_json(marker, made_by)

    names = [f"phantom_{i + 1:03d}" for i in range(subjects)]
    rng = np.random.default_rng(seed)
    grades = rng.permutation(np.resize(GRADES[::-1], subjects)).tolist()
    sites = rng.permutation(np.resize(SITES, subjects)).tolist()
    wanted = [
        (name, grade, site, index)
        for index, (name, grade, site) in enumerate(zip(names, grades, sites, strict=True))
        if not (folder / name).is_dir()
    ]
    written = run_each(
        partial(_write_subject, folder, seed, settings),
        wanted,
        len(wanted),
        died=_died,
        workers=workers,
    )
    for _ in track(written, "writing phantoms", len(wanted)):
        pass
    labels = folder / "labels.csv"
    with atomic_path(labels) as temporary:
        high = [int(grade == "high") for grade in grades]
        table = pd.DataFrame({"subject": names, "high_grade": high, "site": sites})
        table.to_csv(temporary, index=False)
    return labels


def _died(task: tuple[str, str, str, int]) -> None:
    raise SourceError(f"{task[0]}: the process that made it died; free some memory and try again")


def _write_subject(
    folder: Path, seed: int, settings: PhantomSettings, task: tuple[str, str, str, int]
) -> None:
    name, grade, site, index = task
    grid, images, mask = phantom(np.random.default_rng([seed, index]), grade, site, settings)
    with atomic_path(folder / name) as temporary:
        temporary.mkdir()
        for modality, image in zip(MODALITIES, images, strict=True):
            write_scan(temporary / f"{name}_{modality}.nii.gz", image, grid.affine)
        write_scan(temporary / f"{name}_seg.nii.gz", mask, grid.affine)


def phantom(
    rng: np.random.Generator, grade: str, site: str = "A", settings: PhantomSettings | None = None
) -> tuple[Grid, npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Generate one subject.

    Args:
        rng: source of all random numbers.
        grade: `low` or `high`.
        site: `A`, `B` or `C`, which sets resolution and noise.
        settings: difficulty.

    Returns:
        Its grid (RAS+ mm), images `(modality, x, y, z)` in the order FLAIR, T1, T1c, T2, and the
        mask: 1 core, 2 oedema, 4 enhancing.
    """
    settings = settings or PhantomSettings()
    grid = _scanner_grid(rng, site)
    canvas = _Canvas(rng, grid, settings.contrast)
    semi_axes = np.array([33.0, 39.0, 31.0]) * rng.uniform(0.94, 1.06, 3)
    depth = _paint_head(canvas, rng, semi_axes)
    mask = _paint_tumour(canvas, rng, grade, semi_axes, depth, settings)
    images = _scan(canvas, rng, site, settings)
    if settings.skull_stripped:
        images *= depth < 1.05
    _add_artefacts(images, rng, np.abs(depth - 1) < 0.05, settings.artefact)
    return grid, images, mask


class _Canvas:
    """Images of all modalities, on which tissues are painted over each other with soft borders.

    Attributes:
        grid: grid of the voxels.
        points: head coordinates of the voxels in mm, `(3, x, y, z)`: right, anterior, superior.
        images: `(modality, x, y, z)`.
    """

    def __init__(self, rng: np.random.Generator, grid: Grid, contrast: float) -> None:
        self.grid = grid
        tilt = _rotation(rng, 8.0)
        # Head coordinates are shifted and tilted world coordinates, as of a patient in a scanner.
        self.affine = np.eye(4)
        self.affine[:3, :3] = tilt @ grid.affine[:3, :3]
        self.affine[:3, 3] = tilt @ (grid.affine[:3, 3] - grid.center - rng.uniform(-3, 3, 3))
        index = np.indices(grid.size, np.float32).reshape(3, -1)
        points = self.affine[:3, :3].astype(np.float32) @ index
        points += self.affine[:3, 3:].astype(np.float32)
        self.points: Volume = points.reshape(3, *grid.size)
        self.images: Volume = np.zeros((len(MODALITIES), *grid.size), np.float32)
        self.values = {
            name: np.clip(np.array(mean) + rng.normal(0, contrast, 4), 0.02, 1.2)
            for name, mean in TISSUES.items()
        }

    def paint(self, tissue: str, share: npt.NDArray[np.floating[Any]]) -> None:
        """Cover a share in [0, 1] of each voxel with a tissue."""
        for image, value in zip(self.images, self.values[tissue], strict=True):
            image += share * (np.float32(value) - image)

    def waves(self, rng: np.random.Generator, wavelength: float, count: int = 24) -> Volume:
        """A smooth random field with zero mean, unit variance and one wavelength, in mm.

        It is a sum of plane waves. On a lattice each wave is a product of three vectors, so that
        the field is one matrix product.
        """
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        vectors = directions * (2 * np.pi / wavelength * rng.uniform(0.6, 1.4, (count, 1)))
        steps = vectors @ self.affine[:3, :3]
        phases = vectors @ self.affine[:3, 3] + rng.uniform(0, 2 * np.pi, count)
        x, y, z = (
            np.exp(1j * steps[:, [axis]] * np.arange(length)).astype(np.complex64)
            for axis, length in enumerate(self.grid.size)
        )
        x *= np.exp(1j * phases[:, None]).astype(np.complex64)
        plane = (x[:, :, None] * y[:, None, :]).reshape(count, -1)
        field = (plane.T @ z).real.reshape(self.grid.size)
        return np.asarray(field * np.sqrt(2 / count), np.float32)


def _scanner_grid(rng: np.random.Generator, site: str) -> Grid:
    """A grid like a scanner's: slices along any axis, in any direction, sometimes oblique."""
    in_plane, slice_thickness = {
        "A": ((1.4, 1.5), (1.4, 1.6)),
        "B": ((1.2, 1.4), (1.8, 2.0)),
        "C": ((1.4, 1.5), (1.6, 2.0)),
    }[site]
    spacing = np.array([rng.uniform(*in_plane)] * 2 + [rng.uniform(*slice_thickness)])
    order = rng.permutation(3)
    flips = rng.choice([-1.0, 1.0], 3)
    oblique = _rotation(rng, 12.0) if rng.random() < 0.4 else np.eye(3)
    axes = oblique @ (np.eye(3) * flips)[:, order]
    field_of_view = rng.uniform(84, 96, 3)[order]
    size = np.ceil(field_of_view / spacing).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.uniform(-30, 30, 3) - affine[:3, :3] @ ((size - 1) / 2)
    return Grid(tuple(size.tolist()), affine)


def _paint_head(canvas: _Canvas, rng: np.random.Generator, semi_axes: Vectors) -> Volume:
    """Paint scalp to ventricles; return depth in the brain, 0 in the middle, 1 at the surface."""
    axes = np.asarray(semi_axes, np.float32)
    x, y, z = canvas.points
    depth = _length(canvas.points, axes) + 0.02 * canvas.waves(rng, 40.0)
    millimetres = float(axes.mean())  # from units of depth

    def inside(level: Volume | float) -> Volume:
        return _soft((level - depth) * millimetres)

    canvas.paint("scalp", inside(rng.uniform(1.20, 1.27)))
    canvas.paint("skull", inside(rng.uniform(1.11, 1.15)))
    canvas.paint("csf", inside(1.03))
    folds = canvas.waves(rng, rng.uniform(11, 15))
    ridged = 1 - 2 * np.abs(folds)  # narrow where the field changes its sign: sulci
    canvas.paint("grey matter", inside(1.0 - 0.05 * np.maximum(ridged, 0)))
    canvas.paint("white matter", inside(0.84 + 0.05 * folds))
    for side in (-1, 1):
        where = rng.normal([side * 9, 1, -2], 0.8)
        canvas.paint("deep grey matter", _ellipsoid(canvas, where, (6.0, 9.0, 6.5)))
    wide = rng.uniform(0.7, 1.4)
    wobble = 1.2 * canvas.waves(rng, 18.0)
    for side in (-1, 1):
        bend = 0.012 * (y - 2) ** 2
        moved = np.stack([x - side * (4.5 + bend), y, z - 5 + 0.01 * y**2])
        canvas.paint("csf", _soft(4 * (wide - _length(moved, (3.2, 15, 4.5))) + 0.4 * wobble))
    canvas.paint("csf", _soft(0.6 - np.abs(x + 0.8 * wobble)) * (depth < 1.0) * (z > 12))
    # The sagittal sinus is the only structure that enhances in every head.
    sinus = np.sqrt((x - rng.normal(0, 0.5)) ** 2 + (1.02 - depth) ** 2 * millimetres**2)
    canvas.paint("vessel", _soft(1.6 - sinus) * (z > 0))
    return np.asarray(depth, np.float32)


def _paint_tumour(
    canvas: _Canvas,
    rng: np.random.Generator,
    grade: str,
    semi_axes: npt.NDArray[np.float64],
    depth: Volume,
    settings: PhantomSettings,
) -> npt.NDArray[np.uint8]:
    radius = rng.uniform(*settings.radius)
    center = _unit(rng) * semi_axes * rng.uniform(*settings.eccentricity)
    turned = np.tensordot(
        _rotation(rng, 180.0), canvas.points - center[:, None, None, None], axes=1
    )
    shape = rng.uniform(0.8, 1.25, 3)
    shape /= np.cbrt(shape.prod())
    surface = canvas.waves(rng, 1.6 * radius) + 0.4 * canvas.waves(rng, 0.7 * radius)
    # Approximate signed distance to the tumour's surface in mm, positive inside.
    within = radius * (1 - _length(turned, shape * radius) - settings.irregularity * surface)
    brain = _soft((1.0 - depth) * 30)

    reach = rng.uniform(*(settings.oedema_high if grade == "high" else settings.oedema_low))
    spread = reach * (0.7 + 0.5 * canvas.waves(rng, 22.0))
    oedema = _soft(within + spread) * brain * _soft((0.9 - depth) * 30)
    canvas.paint("oedema", oedema * rng.uniform(0.6, 0.95))
    tumour = _soft(within) * brain
    canvas.paint("tumour", tumour * rng.uniform(0.8, 1.0))

    texture = canvas.waves(rng, 0.9 * radius)
    if grade == "high":
        width = rng.uniform(*settings.rim_width) * (1 + 0.3 * canvas.waves(rng, radius))
        core = _soft((within - width) * 1.5) * brain
        keep = _above(texture, rng.uniform(*settings.rim_cover), core > 0.5)
        enhancing = np.clip(tumour - core, 0, 1) * keep
        shrink = (1 - rng.uniform(*settings.core)) * 0.5 * radius
        dead = _soft(within - width - 0.5 - shrink) * brain
        canvas.paint("necrosis", dead * rng.uniform(0.7, 1.0))
    else:
        fine = texture + 0.7 * canvas.waves(rng, 0.5 * radius)
        enhancing = tumour * _above(fine, rng.uniform(*settings.patchy), tumour > 0.5)
        if rng.random() < settings.cyst_rate:
            offset = rng.normal(0, 0.25 * radius, 3)
            size = radius * rng.uniform(0.35, 0.7) * rng.uniform(0.8, 1.2, 3)
            cyst = _ellipsoid(canvas, center + offset, size) * tumour
            canvas.paint("cyst", cyst * rng.uniform(0.8, 1.0))
            enhancing = np.asarray(enhancing * (1 - cyst), np.float32)
    # Enhancing tissue is mixed with what lies below, so that its brightness varies.
    strength = rng.uniform(*settings.enhancement)
    blotchy = np.clip(1 + 0.3 * canvas.waves(rng, 8.0), 0.3, 1.3)
    canvas.paint("enhancing", np.asarray(np.clip(enhancing * strength * blotchy, 0, 1), np.float32))
    _paint_vessels(canvas, rng, center, radius, brain, settings)

    mask = np.zeros(canvas.grid.size, np.uint8)
    mask[oedema > 0.5] = OEDEMA
    mask[tumour > 0.5] = CORE
    mask[enhancing > 0.5] = ENHANCING
    return mask


def _paint_vessels(
    canvas: _Canvas,
    rng: np.random.Generator,
    center: npt.NDArray[np.float64],
    radius: float,
    brain: Volume,
    settings: PhantomSettings,
) -> None:
    """Paint bent vessels near the tumour, in both grades: bright on T1c, dark on T2."""
    for _ in range(int(rng.integers(*settings.vessels, endpoint=True))):
        through = center + radius * rng.uniform(0.6, 1.5) * _unit(rng)
        along, across = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
        relative = canvas.points - through[:, None, None, None].astype(np.float32)
        t = np.tensordot(along, relative, axes=1)
        bend = rng.normal(0, 4) * np.sin(t / rng.uniform(5, 10) + rng.uniform(0, 6))
        off = relative - along[:, None, None, None] * t - across[:, None, None, None] * bend
        distance = np.linalg.norm(off, axis=0)
        tube = _soft(1.5 * (rng.uniform(0.5, 1.0) - distance)) * _soft(rng.uniform(8, 20) - abs(t))
        canvas.paint("vessel", np.asarray(tube * brain * rng.uniform(0.5, 1.0), np.float32))


def _scan(
    canvas: _Canvas, rng: np.random.Generator, site: str, settings: PhantomSettings
) -> npt.NDArray[np.int16]:
    """Apply gain, bias field and Rician noise; return magnitudes as a scanner writes them."""
    scanned = []
    louder = {"A": 1.0, "B": 0.9, "C": 1.15}[site]
    for image in canvas.images:
        bias = np.exp(settings.bias * canvas.waves(rng, 90.0))
        gain = np.exp(rng.uniform(*np.log(settings.gain)))
        sigma = rng.uniform(*settings.noise) * louder
        signal = image ** np.exp(rng.uniform(-1, 1) * settings.log_gamma) * bias
        real, imaginary = rng.normal(0, sigma, (2, *image.shape)).astype(np.float32)
        magnitude = np.hypot(signal + real, imaginary) * gain * 600
        scanned.append(np.clip(np.rint(magnitude), 0, 32767).astype(np.int16))
    return np.stack(scanned)


def _add_artefacts(
    images: npt.NDArray[np.int16],
    rng: np.random.Generator,
    surface: npt.NDArray[np.bool_],
    strength: tuple[float, float],
) -> None:
    candidates = np.argwhere(surface)
    for image in images:
        x, y, z = candidates[rng.integers(len(candidates))]
        peak = min(float(image.max()) * np.exp(rng.uniform(*np.log(strength))), 32767)
        image[x : x + 2, y : y + 2, z : z + 2] = np.int16(peak)


def _soft(distance: npt.NDArray[np.floating[Any]]) -> Volume:
    """The share of a voxel inside a border, from its signed distance to the border in mm."""
    return np.asarray(np.clip(0.5 + distance / 1.6, 0, 1), np.float32)


def _length(points: npt.NDArray[np.floating[Any]], axes: Vectors) -> Volume:
    """Distance from the origin in units of an ellipsoid's semi-axes."""
    scaled = points / np.asarray(axes, np.float32)[:, None, None, None]
    return np.asarray(np.sqrt((scaled**2).sum(axis=0)), np.float32)


def _ellipsoid(canvas: _Canvas, center: Vectors, axes: Vectors) -> Volume:
    axes = np.asarray(axes, np.float32)
    relative = canvas.points - np.asarray(center, np.float32)[:, None, None, None]
    return _soft((1 - _length(relative, axes)) * float(axes.mean()))


def _above(field: Volume, share: float, region: npt.NDArray[np.bool_]) -> Volume:
    """Mask, with soft border, of the highest values of a field, which fill `share` of a region."""
    if not region.any():
        return np.ones_like(field)
    threshold = np.quantile(field[region], 1 - share)
    return np.clip(0.5 + 2 * (field - np.float32(threshold)), 0, 1)


def _unit(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    vector = rng.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _rotation(rng: np.random.Generator, degrees: float) -> npt.NDArray[np.float64]:
    """A rotation about a random axis by up to an angle (Rodrigues' formula)."""
    x, y, z = _unit(rng)
    angle = np.radians(rng.uniform(-degrees, degrees))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
