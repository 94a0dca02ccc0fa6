"""Experiments on reconstructions: PSNR and SSIM of the same hidden patches, subject by subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.evaluation.statistics import paired_difference
from vitaepp.experiments.catalogue import Variant
from vitaepp.experiments.kind import Folders, Kind, Measured
from vitaepp.experiments.results import Cell, Row, Versus, ends
from vitaepp.presentation.charts import picture_rows
from vitaepp.presentation.drawing import Drawing
from vitaepp.presentation.planes import Plane, are_colours, planes, tile
from vitaepp.system.files import file_stem

#: Subjects that Table 5 and Figure 3 show one by one.
SAMPLES = 3

#: Pixels of a picture's width in the figure, and how many of the file there are to each.
_WIDTH, _FINER = 160, 3

Pictures = Mapping[str, npt.NDArray[np.uint8]]


class Reconstructions(Kind):
    """Each variant against its reference, paired over subjects."""

    what = "reconstructions"
    takes = ("subjects",)

    def run(self, variant: Variant, seed: int) -> Path:
        """Train a variant and reconstruct with it."""
        return self.setup.reconstructed(variant, seed)

    def measured(self, folders: Folders) -> Measured:
        """PSNR and SSIM of each variant, of all subjects and of the first ones."""
        tables = {key: _over_seeds(paths) for key, paths in folders.items()}
        rows = []
        samples: dict[str, dict[str, str]] = {}
        for variant in self.done(folders):
            own, name = tables[variant.key], self.names[variant.key]
            cells = {m: Cell.of(own[m].tolist()) for m in self.experiment.metrics}
            rows.append(Row(variant.key, name, cells, self._versus(variant, tables)))
            samples[name] = {
                str(subject): f"{scores['psnr']:.3f}/{scores['ssim']:.3f}"
                for subject, scores in own.iloc[:SAMPLES].iterrows()
            }
        facts = {
            "±": "sample standard deviation over subjects",
            "masks": "the same for all variants; visible patches are the image's own",
        }
        figure = self._figure(folders)
        return Measured(self.experiment.metrics, rows, samples, figure, facts)

    def _versus(self, variant: Variant, tables: Mapping[str, pd.DataFrame]) -> dict[str, Versus]:
        own, reference = tables[variant.key], tables.get(variant.against)
        if reference is None or len(own) < 2:
            return {}
        against, test = self.names[variant.against], "paired t-test over subjects"
        versus = {}
        for metric in self.experiment.metrics:
            d = paired_difference(own[metric].to_numpy(), reference[metric].to_numpy())
            versus[metric] = Versus(metric, against, d.mean, *ends(d.interval), d.t.p, test)
        return versus

    def _figure(self, folders: Folders) -> Drawing | None:
        """Middle slices of the first subjects under every variant (Figure 3)."""
        first = {self.names[key]: paths[0] for key, paths in folders.items()}
        if not first:
            return None
        info = self.setup.store.info
        plane = planes(info.ndim, info.directed)[0]
        colour = are_colours(info.modalities, info.ndim)
        table = pd.read_csv(next(iter(first.values())) / "metrics.csv", dtype={"subject": str})
        subjects = table["subject"][:SAMPLES]
        panels = [(subject, _pictures(subject, first, plane, colour)) for subject in subjects]
        return reconstruction_figure(panels, plane, plane.extent(info.size, info.spacing))


def reconstruction_figure(
    panels: Sequence[tuple[str, Pictures]], plane: Plane, extent: tuple[float, float]
) -> Drawing:
    """Slices of subjects: original, masked, and what each variant makes of it.

    Args:
        panels: per subject its name, and pictures by what they are called, `(row, column)` or
            `(row, column, 3)`; `original` among them.
        plane: of the slices; the marks of its sides are drawn.
        extent: width and height of a slice in one unit, for true proportions.
    """
    height = _WIDTH * extent[1] / extent[0]
    size = _WIDTH * _FINER, round(height * _FINER)
    rows = []
    for subject, pictures in panels:
        # One window a row: a few bright voxels would leave the rest of a scan dark.
        brightest = max(float(np.percentile(pictures["original"], 99.5)), 1.0)
        tiles = [
            tile(picture * (255 / brightest), size, plane.marks, finer=_FINER)
            for picture in pictures.values()
        ]
        name = f"{subject}, {plane.name}" if plane.name else subject
        rows.append((name, tiles))
    heads = list(panels[0][1])
    says = f"{', '.join(heads)} of {', '.join(subject for subject, _ in panels)}"
    return picture_rows(rows, heads, width=_WIDTH, height=height, says=says)


def _pictures(
    subject: str, folders: Mapping[str, Path], plane: Plane, colour: bool
) -> dict[str, npt.NDArray[np.uint8]]:
    """The middle slice of a subject: original, masked, and each variant's reconstruction."""

    def picture(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return np.moveaxis(image, 0, -1) if colour else plane.cut(image[0])

    pictures: dict[str, npt.NDArray[np.uint8]] = {}
    for name, folder in folders.items():
        with np.load(folder / f"{file_stem(subject)}.npz") as arrays:
            for part in ("original", "masked"):
                pictures.setdefault(part, picture(arrays[part]))
            pictures[name] = picture(arrays["reconstruction"])
    return pictures


def _over_seeds(folders: Sequence[Path]) -> pd.DataFrame:
    """PSNR and SSIM by subject, averaged over seeds."""
    parts = [pd.read_csv(f / "metrics.csv", dtype={"subject": str}) for f in folders]
    return pd.concat(parts).groupby("subject", sort=False)[["psnr", "ssim"]].mean()
