"""The reconstructions: PSNR and SSIM, and every slice of a few subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitaepp.presentation.drawing import data_uri
from vitaepp.presentation.numbers import digits_of, mean_and_spread
from vitaepp.reporting.contents import Reconstruction
from vitaepp.reporting.images import MOST_IMAGES, grouped, sheets

_UNITS = {"psnr": " dB", "ssim": ""}

#: Subjects whose PSNR and SSIM are listed; the others are in metrics.csv.
_MOST_ROWS = 200


def reconstruction(
    result: Reconstruction,
    folder: str,
    spacing: Sequence[float] | None,
    directed: bool,
    budget: int,
) -> dict[str, Any]:
    """What the page shows of a reconstruction.

    Args:
        result: its files.
        folder: where it lies, in words.
        spacing: of the voxels, for true proportions; None takes voxels as cubes.
        directed: whether the axes of volumes run to the patient's right, front and head.
        budget: bytes of images that it may take.
    """
    made, broken = sheets(result.volumes, spacing, directed, budget)
    panels = [] if made else _panels(result.panels, budget)
    by_subject = grouped(made)
    scores = {
        metric.upper(): text + unit
        for metric, unit in _UNITS.items()
        if (text := mean_and_spread(result.metrics[metric], digits_of(metric)))
    }
    rows = [
        (
            subject,
            *(mean_and_spread([value], digits_of(str(m))) or "–" for m, value in values.items()),
        )
        for subject, values in zip(
            result.metrics["subject"].astype(str).head(_MOST_ROWS),
            result.metrics[list(_UNITS)].to_dict("records"),
            strict=False,
        )
    ]
    return {
        "place": folder,
        "whose": result.whose,
        "scores": scores,
        "n": len(result.metrics),
        "rows": rows,
        "volumes": {s: x for s, x in by_subject.items() if x[0].slices > 1},
        "images": {s: x for s, x in by_subject.items() if x[0].slices == 1},
        "panels": panels,
        "shown": len(by_subject) or len(panels),
        "available": len(result.volumes) + len(result.panels),
        "broken": [f"{folder}/{line}" for line in broken],
    }


def _panels(files: Mapping[str, Path], budget: int) -> list[tuple[str, str]]:
    """Drawn panels of the first subjects; at least one, and no more than the budget allows."""
    panels: list[tuple[str, str]] = []
    for subject, file in list(files.items())[:MOST_IMAGES]:
        content = file.read_bytes()
        budget -= len(content)
        if panels and budget < 0:
            break
        panels.append((subject, data_uri(content, "png")))
    return panels
