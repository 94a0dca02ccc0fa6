"""Quality control: which scans of a store are unlike the others, and why.

Two measures look at a scan. Its reconstruction error is large where the model cannot fill in what
it does not see, as with noise or another contrast, and small where there is little to fill in, as
with blur. Its distance is what its features have outside the directions in which those of the other
scans vary, as in `predict`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitaepp.data.arrays import Floats
from vitaepp.data.inspection import Cells, save_page
from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.downstream.distance import Cohort
from vitaepp.encoder.embed import say_unlike
from vitaepp.encoder.fits import check_fits, check_like, place_channels
from vitaepp.encoder.model import Encoder, at_once
from vitaepp.errors import RunError
from vitaepp.evaluation.folds import by_subject
from vitaepp.methods import ViTAE
from vitaepp.methods.vitaepp import reconstruct_images
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.presentation.notebook import Tabular
from vitaepp.presentation.planes import GAP, stacked
from vitaepp.system.devices import chosen_device
from vitaepp.system.files import write_json, write_text
from vitaepp.system.paths import kind_of, refuse_as_results, swapped
from vitaepp.system.progress import counted, say, track
from vitaepp.system.results import ResultFiles
from vitaepp.views.draws import Draws, number_of
from vitaepp.weights.runs import load_method

#: A scan is flagged where it is farther from the median than so many robust deviations.
LIMIT = 3.5

#: Masks under which an image is reconstructed.
MASKS = 4

#: Flagged scans on the page, the oddest first; and its width in pixels.
SHOWN, PAGE_WIDTH = 60, 1200

#: What `qc` writes.
FILES = ResultFiles(
    "qc",
    {
        "qc.json": ("n", "flagged", "limit"),
        "qc.csv": (
            *("subject", "distance", "flagged", "(error|reason)?"),
            "((error|distance)_(percentile|deviation))?",
        ),
    },
    last=("qc.json",),
    unsigned=("flagged.png",),
)


@dataclass(frozen=True, eq=False)
class Quality(Tabular):
    """What quality control found.

    Attributes:
        table: a row a subject, as in qc.csv: `subject`; `error`, of the reconstruction, 1 where it
            is no better than the image's mean; `distance`, in units of the features' deviation; of
            both, `…_percentile`, the share of the store that is below, and `…_deviation` from the
            median, see `deviations`; `flagged`, and its `reason`. Errors are empty of a model
            without a decoder.
        facts: as in qc.json.
    """

    table: pd.DataFrame
    facts: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """The table: a row a subject."""
        return self.table

    def __str__(self) -> str:
        flagged = self.table[self.table["flagged"]]
        lines = [
            f"{len(flagged)} of {counted(len(self.table), 'subject')} flagged, farther than "
            f"{LIMIT} robust standard deviations from the median"
        ]
        lines += [f"{row.subject}: {row.reason}" for row in flagged.head(10).itertuples()]
        if len(flagged) > 10:
            lines.append("…; qc.csv has all")
        return "\n".join(lines)


def qc(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    masks: int = MASKS,
    seed: int = 0,
    device: str | None = None,
    any_store: bool = False,
) -> Quality:
    """Flag the scans of a store that are unlike the others.

    Each scan's features are compared with those of the others as if it were a new one; scans of one
    participant are left out together. A scan is flagged where its distance, or its reconstruction
    error, is farther above the median than 3.5 robust standard deviations, on a logarithmic scale;
    and where its error is as far below. In a store of one kind of scans, about one in a thousand is
    flagged by chance. A kind that many scans are of is not odd.

    Writes `qc.csv`, `qc.json` and, if any are flagged, `flagged.png` with the oddest first.

    Args:
        run: trained run folder; or an encoder folder, which reconstructs nothing.
        store: prepared store.
        out: folder for the results.
        masks: under how many masks each image is reconstructed.
        seed: of the masks.
        device: where to compute.
        any_store: also where the store was prepared in another way than that of the training.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other.
        EvaluationError: the store has scans of one participant only.

    Source:
        The robust deviation and its limit: Iglewicz and Hoaglin 1993.
    """
    if hint := swapped("qc", {"run": run, "store": store, "out": out}):
        raise RunError(hint)
    if masks < 1:
        raise RunError(f"`masks={masks}`: give at least 1")
    opened, target = Store(store), Path(out)
    refuse_as_results(target, "qc")
    FILES.check(target)
    encoder = Encoder.from_pretrained(run)
    check_fits(encoder.config, opened)
    say_unlike(encoder.config, opened, check_like(encoder.config, opened, any_store))
    on = chosen_device(device)
    errors = _errors_of_store(run, opened, masks, seed, on)
    features = encoder.embed(opened, device=on, any_store=True)
    ordered = by_subject(opened.table)  # the parts that are left out do not go by rows
    rows = ordered.index.to_numpy()
    distances = np.empty(len(features))
    distances[rows] = Cohort.of(features[rows], persons_of(ordered)).own
    table = judged(
        opened.table["subject"].astype(str).tolist(),
        errors,
        distances,
    )
    facts = {
        "run": RunFolder(run, must_exist=False).path.resolve().name,
        "encoder": weights_id(run),
        "store": opened.name,
        "n": len(table),
        "flagged": int(table["flagged"].sum()),
        "limit": LIMIT,
        "masks": masks,
        "seed": seed,
    }
    oddity = table.pop("oddity").to_numpy()
    with FILES.written(target) as staged:
        if table["flagged"].any():
            order = np.argsort(-np.where(table["flagged"], oddity, -np.inf), kind="stable")
            shown = order[: min(SHOWN, int(table["flagged"].sum()))].tolist()
            _draw(opened, table, shown, staged / "flagged.png")
        write_text(staged / "qc.csv", table.to_csv(index=False))
        write_json(staged / "qc.json", facts)
    return Quality(table, facts)


def judged(subjects: Sequence[str], errors: Floats, distances: Floats) -> pd.DataFrame:
    """Which subjects are unlike the others, by the two measures of each.

    Args:
        subjects: their names.
        errors: `(subject,)` of the reconstruction; NaN where it is not known.
        distances: `(subject,)`.

    Returns:
        The table of `Quality`, with `oddity`: the larger deviation of the two.
    """
    far, wrong = deviations(distances), deviations(errors)
    reasons = []
    for d, e in zip(far, wrong, strict=True):
        parts = []
        if d > LIMIT:
            parts.append(f"far from the other scans: distance {d:.1f} deviations above the median")
        if e > LIMIT:
            parts.append(f"hard to fill in: error {e:.1f} deviations above the median")
        if e < -LIMIT:
            parts.append(
                f"too easy to fill in, as blurred or nearly empty images are: error {-e:.1f} "
                "deviations below the median"
            )
        reasons.append("; ".join(parts))
    return pd.DataFrame(
        {
            "subject": subjects,
            "error": errors,
            "error_percentile": _percentiles(errors),
            "error_deviation": wrong,
            "distance": distances,
            "distance_percentile": _percentiles(distances),
            "distance_deviation": far,
            "flagged": [bool(reason) for reason in reasons],
            "reason": reasons,
            "oddity": np.fmax(far, np.abs(wrong)),
        }
    )


def deviations(values: Floats, reference: Floats | None = None) -> Floats:
    """How far values are from a median on a logarithmic scale, in robust standard deviations.

    One is 1.4826 times the median absolute deviation of the logarithms, which for a normal
    distribution is the standard deviation, whatever a few odd values are.

    Args:
        values: above 0; what is not known is NaN, and stays so.
        reference: whose median and deviation they are; their own by default.
    """
    logs, known = (
        np.log(np.maximum(v, 1e-12)) for v in (values, values if reference is None else reference)
    )
    known = known[np.isfinite(known)]
    if not len(known):
        return np.full(len(values), np.nan)
    middle = np.median(known)
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    return np.asarray((logs - middle) / spread if spread > 1e-9 else 0 * logs)


def _percentiles(values: Floats) -> Floats:
    known = np.sort(values[np.isfinite(values)])
    shares = np.searchsorted(known, values) * 100 / max(len(known), 1)
    return np.where(np.isfinite(values), shares, np.nan)


def _errors_of_store(
    run: str | os.PathLike[str], store: Store, masks: int, seed: int, on: torch.device
) -> Floats:
    unknown = np.full(len(store), np.nan)
    if kind_of(run) == "encoder":
        say(f"{run}: an encoder alone reconstructs nothing; scans are judged by their features")
        return unknown
    method, config = load_method(run)
    if not isinstance(method, ViTAE) or not isinstance(method.backbone, MaskedAutoencoder):
        say(f"{run}: {config.name} has no decoder; scans are judged by their features alone")
        return unknown
    method.to(on)
    have, want = store.info.modalities, config.modalities
    size = at_once(on, store.info.shape)
    numbers = [number_of(str(subject)) for subject in store.table["subject"]]
    errors = []
    starts = range(0, len(store), size)
    for start in track(starts, "reconstructing", len(starts), unit="batches"):
        rows = list(range(start, min(start + size, len(store))))
        images = place_channels(torch.from_numpy(store.read(rows)).float(), have, want)
        there = place_channels(torch.from_numpy(store.present[rows]), have, want)
        drawn = numbers[start : start + size]
        each = reconstruction_errors(method, images.to(on), there.to(on), masks, seed, drawn)
        errors.append(each)
    return np.concatenate(errors)


def reconstruction_errors(
    method: ViTAE,
    images: Float[Tensor, "batch channel *space"],
    present: Bool[Tensor, "batch channel"],
    masks: int,
    seed: int,
    numbers: Sequence[int],
) -> Floats:
    """How wrong the hidden patches of images are filled in, `(batch,)`.

    The root of the mean square of the error over hidden patches and several masks, divided by the
    image's deviation, so that a dark image does not count as a good one.

    Args:
        method: trained, with a decoder.
        images: intensities in [0, 255].
        present: channels that each image has.
        masks: how many.
        seed: of the masks.
        numbers: that the masks of each image are drawn by.

    Returns:
        0 of a perfect reconstruction, 1 of one that is no better than the image's mean. NaN of an
        image without contrast.
    """
    shown = present.reshape(*present.shape, *[1] * (images.ndim - 2)).expand_as(images)
    wrong = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    count = wrong.clone()
    for mask in range(masks):
        draws = Draws(seed, mask, numbers, images.device)
        restored, visible = reconstruct_images(method, images, draws, present)
        hidden = ~visible & shown
        wrong += torch.where(hidden, restored - images, 0).double().square().flatten(1).sum(dim=1)
        count += hidden.flatten(1).sum(dim=1)
    each = shown.flatten(1).sum(dim=1)
    values = torch.where(shown, images, 0).double().flatten(1)
    variance = values.square().sum(dim=1) / each - (values.sum(dim=1) / each).square()
    variance = torch.where(variance > 1e-6, variance, torch.nan)
    return np.asarray((wrong / count / variance).sqrt().cpu().numpy())


def _draw(store: Store, table: pd.DataFrame, rows: Sequence[int], path: Path) -> None:
    """A page with the flagged scans, each with what is odd."""
    cells = Cells(store.info, 160 if store.info.ndim == 2 else 96)
    across = max(1, PAGE_WIDTH // (cells.size[0] + GAP))
    drawn = []
    for row in rows:
        record = table.iloc[row]
        error = "" if np.isnan(record["error"]) else f", error {record['error']:.2f}"
        caption = f"distance {record['distance']:.0f}{error}"
        image, present = store.read([row])[0], store.present[row]
        drawn.append(cells.draw(image, present, [record["subject"], caption]))
    lines = [("", drawn[start : start + across]) for start in range(0, len(drawn), across)]
    save_page(stacked(lines), path)
