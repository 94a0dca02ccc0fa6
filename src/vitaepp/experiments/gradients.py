"""The rung of oriented gradients: what the edges of a store's images say, with nothing learned."""

from __future__ import annotations

import numpy as np
import torch

from vitaepp.data.arrays import Floats
from vitaepp.data.store import Store
from vitaepp.nn.gradients import histograms
from vitaepp.system.progress import track
from vitaepp.views.transforms import standardize, zero_missing


def oriented_gradients(store: Store) -> Floats:
    """Histograms of the directions of gradients in the cells of a grid, of every subject.

    Returns:
        `(subject, feature)`, finite, as `nn.gradients.histograms` has them. Those of a channel that
        a subject lacks are 0.
    """
    rows = []
    present = torch.from_numpy(store.present)
    for i in track(range(len(store)), "oriented gradients", len(store), unit="subjects"):
        unit = torch.from_numpy(store.read([i])).float() / 255
        shown = zero_missing(standardize(unit, "crop"), present[i : i + 1])
        rows.append(histograms(shown).flatten().numpy())
    return np.array(rows, np.float64)
