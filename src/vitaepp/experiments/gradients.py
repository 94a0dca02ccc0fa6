"""Histograms of oriented gradients: what edges alone say, by place."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vitaepp.data.arrays import Floats
from vitaepp.data.store import Store
from vitaepp.losses.edge import sobel
from vitaepp.system.progress import track
from vitaepp.views.transforms import standardize, zero_missing

#: Cells along each axis of a picture and of a volume.
CELLS = {2: 8, 3: 4}

#: Directions of a half circle. Those of a half sphere are to the 13 neighbours of a voxel.
DIRECTIONS = 9

#: What a cell's histogram counts as noise, in standard deviations of the intensity a voxel.
NOISE = 1e-3


def oriented_gradients(store: Store) -> Floats:
    """Histograms of the directions of gradients in the cells of a grid, of every subject.

    Returns:
        `(subject, feature)`, finite: of each channel 8 × 8 cells with 9 directions in 2D,
        4 × 4 × 4 cells with 13 in 3D. Those of a channel that a subject lacks are 0.

    Source:
        Dalal & Triggs 2005, each cell normalised by itself.
    """
    rows = []
    present = torch.from_numpy(store.present)
    for i in track(range(len(store)), "oriented gradients", len(store), unit="subjects"):
        unit = torch.from_numpy(store.read([i])).float() / 255
        shown = zero_missing(standardize(unit, "crop"), present[i : i + 1])
        rows.append(histograms(shown).flatten().numpy())
    return np.array(rows, np.float64)


def histograms(
    images: Float[Tensor, "batch channel *space"],
) -> Float[Tensor, "batch channel direction *cell"]:
    """The share of each direction in a cell's gradients, weighted by their length.

    Opposite directions are one, so that bright on dark is as dark on bright.

    Args:
        images: standardised intensities.

    Returns:
        Histograms of length 1, or shorter where there is hardly a gradient.
    """
    gradient = torch.stack(sobel(images), dim=-1)
    length = gradient.norm(dim=-1)
    axes = directions(gradient.shape[-1])
    nearest = (gradient @ axes.T).abs().argmax(dim=-1)
    ndim = images.ndim - 2
    pool: Any = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[ndim]
    cells = [min(CELLS[ndim], n) for n in images.shape[2:]]
    counts = torch.stack([pool(length * (nearest == k), cells) for k in range(len(axes))], dim=2)
    return counts / (counts.square().sum(dim=2, keepdim=True) + NOISE**2).sqrt()


def directions(ndim: int) -> Float[Tensor, "direction axis"]:
    """Unit vectors, one of each pair of opposites."""
    if ndim == 2:
        angles = torch.arange(DIRECTIONS) * (math.pi / DIRECTIONS)
        return torch.stack([angles.cos(), angles.sin()], dim=1)
    neighbours = [d for d in itertools.product((-1.0, 0.0, 1.0), repeat=3) if d > (0, 0, 0)]
    return F.normalize(torch.tensor(neighbours), dim=1)
