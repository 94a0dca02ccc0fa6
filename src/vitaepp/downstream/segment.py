"""Fine-tuning on masks: Dice and Hausdorff distances, and masks in the space of the scans."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.arrays import Indices
from vitaepp.data.masks import IGNORED
from vitaepp.data.nifti import write_scan
from vitaepp.data.participants import persons_of
from vitaepp.data.store import Store
from vitaepp.downstream.outcome import Outcome, difference, summarised
from vitaepp.downstream.tuning import SCRATCH, STARTS, Base, Tuning, person_folds
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError, StoreError
from vitaepp.evaluation.folds import by_subject
from vitaepp.system.files import atomic_path, file_stem
from vitaepp.system.progress import counted, say, warn
from vitaepp.system.text import dimensions, first_few

#: What is compared first.
METRIC = "dice"

Masks = npt.NDArray[np.uint8]


def check_windows(encoder: Encoder, store: Store) -> None:
    """Refuse images without masks, smaller than what the encoder takes, or of another voxel size.

    Raises:
        StoreError: there are no masks.
        RunError: naming what differs.
        RecipeError: patches or blocks that the decoder does not take.
    """
    from vitaepp.nn.unetr import doublings

    if not store.has_masks:
        raise StoreError(
            f"{store.path}: has no masks; prepare a store with `keep_masks` from scans with masks"
        )
    config, info = encoder.config, store.info
    if config.backbone != "vit":
        raise RunError(f"segmentation takes a transformer, but the encoder is a {config.backbone}")
    window = tuple(config.shape["image_size"])
    if len(window) != info.ndim or any(n < w for n, w in zip(info.size, window, strict=True)):
        raise RunError(
            f"{store.path}: images of {dimensions(info.size)}, but the encoder takes windows of "
            f"{dimensions(window)}; prepare the store with that size or more"
        )
    trained = config.prepared
    if trained is not None and trained.spacing != info.spacing:
        raise RunError(
            f"{store.path}: voxels of {_millimetres(info.spacing)}, but the encoder was trained on "
            f"{_millimetres(trained.spacing)}; prepare the store with that spacing"
        )
    doublings(config.shape["patch_size"], config.shape["depth"])


def _millimetres(spacing: Sequence[float] | None) -> str:
    return "no known size" if spacing is None else f"{dimensions(spacing)} mm"


def planned(base: Base) -> Tuning:
    """The subjects with a mask, and their folds.

    Raises:
        StoreError: there is nothing in the masks.
        EvaluationError: too few subjects.
    """
    store = base.store
    table = by_subject(store.table)
    masked = store.masked[table.index.to_numpy()]
    if missing := int((~masked).sum()):
        say(f"{missing} of {len(table)} subjects have no mask; they are left out")
    table = table[masked]
    if store.ignored:
        table = _judged(store, table)
    labels = store.mask_labels
    if not labels:
        raise StoreError(f"{store.path}: its masks are empty; check the masks of the scans")
    return Tuning.of(
        base,
        task="segmentation",
        table=table,
        targets=np.zeros(len(table)),
        classes=len(labels) + 1,
        parts=person_folds(table, base.folds, base.seed),
    )


def _judged(store: Store, table: pd.DataFrame) -> pd.DataFrame:
    """The subjects whose masks say something; it is said what is taken for an ignore label.

    Raises:
        StoreError: it seems to be a label.
    """
    ignored, values = {*store.ignored}, _values_of_masks(store)
    having = [row for row in table.index if ignored & {*values[row]}]
    alone = [row for row in having if ignored.issuperset(values[row])]
    count = f"{counted(len(alone), 'mask')} of {len(table)}"
    if 2 * len(alone) > len(having) and not ignored & {value for value, _ in store.info.mask_names}:
        raise StoreError(
            f"{store.path}: {IGNORED} is an ignore label, because some masks have it beside small "
            f"values; it is all that {count} have: if it is a label there, write the number that "
            "it has in the others, else leave these out"
        )
    without = f"; {len(alone)} of them have no label at all" if alone else ""
    say(
        f"masks: {first_few(store.ignored)} is an ignore label, in {len(having)} of "
        f"{counted(len(table), 'mask')}{without}"
    )
    blank = [row for row in alone if np.isin(store.read_masks([row]), store.ignored).all()]
    if blank:
        say(f"{counted(len(blank), 'mask')} of {len(table)} say nothing of any voxel; left out")
    return table.drop(index=blank)


def _values_of_masks(store: Store) -> dict[int, list[int]]:
    """The values of each mask that is kept, by its row in the store."""
    return dict(zip(np.flatnonzero(store.masked).tolist(), store.values_of_masks, strict=True))


def measured(tuning: Tuning) -> Outcome:
    """Dice and distances of the fine-tuned networks and of those from scratch."""
    store = tuning.store
    names = {value: name or str(value) for value, name in store.mask_labels.items()}
    rows = tuning.table.index.to_numpy()
    values, tables = _values_of_masks(store), {}
    tested = rows[np.concatenate([part.test for part in tuning.parts])].tolist()
    there = {name: [value in values[row] for row in tested] for value, name in names.items()}
    for start in STARTS:
        parts = []
        for k, part in enumerate(tuning.parts):
            predicted = tuning.predictions(k, start)
            if start == "pretrained" and store.info.ndim == 3:
                _write_masks(tuning, rows[part.test], predicted, list(names))
            masks = store.read_masks(rows[part.test].tolist())
            truth = np.select([masks == value for value in names], range(1, len(names) + 1))
            found = np.where(np.isin(masks, store.ignored), 0, predicted).astype(np.uint8)
            scores = mask_scores(
                truth.astype(np.uint8), found, list(names.values()), store.info.spacing
            )
            scores.insert(0, "subject", tuning.subjects[part.test])
            scores.insert(1, "fold", k)
            parts.append(scores)
        tables[start] = pd.concat(parts, ignore_index=True)
        _say_what_is_lost(tables[start], there, STARTS[start])
    _say_distances(tables, list(names.values()))
    own, other = tables["pretrained"], tables["scratch"]
    table = own.merge(other, on=["subject", "fold"], suffixes=("", " from scratch"))
    with atomic_path(tuning.out / "scores.csv") as temporary:
        table.to_csv(temporary, index=False)
    folds = [_by_fold(own, other), _by_fold(other, own)]
    by_fold = np.array([a[METRIC] - b[METRIC] for a, b in zip(*folds, strict=True)])
    by_subject_ = (own[METRIC] - other[METRIC]).to_numpy(float)
    persons = persons_of(tuning.table)[np.concatenate([part.test for part in tuning.parts])]
    metrics: dict[str, Any] = {
        **tuning.facts,
        "labels": {name: int(value) for value, name in names.items()},
        "metric": METRIC,
        **summarised(folds[0]),
        "controls": {"scratch": {"what": SCRATCH, **summarised(folds[1])}},
        "difference": difference(METRIC, by_fold, by_subject_, tuning.sizes, persons),
        "unit of hd95": "voxels" if store.info.spacing is None else "mm",
    }
    return Outcome(metrics, table).save(tuning.out)


def _say_what_is_lost(table: pd.DataFrame, there: Mapping[str, Sequence[bool]], start: str) -> None:
    """Say which labels are predicted nowhere, or nowhere right, so that a mean hides none.

    Args:
        table: of all tested subjects.
        there: of each label, which of them have it.
        start: what is tested.
    """
    for name, have in there.items():
        dice = table.loc[list(have), f"dice/{name}"]
        if len(dice) and not dice.any():
            subjects = counted(len(dice), "tested subject")
            warn(
                f"{start}: label {name} is found in none of {subjects} that have it; training "
                "lost it: try a lower rate (optim.lr) or more updates (optim.updates)"
            )


def _say_distances(tables: Mapping[str, pd.DataFrame], names: Sequence[str]) -> None:
    """Say of how many subjects the mean of a label's distance is."""
    for name in names:
        found = np.logical_and.reduce([t[f"hd95/{name}"].notna() for t in tables.values()])
        if not found.all():
            say(
                f"hd95 of label {name} is of {int(found.sum())} of "
                f"{counted(len(found), 'subject')}, those in which the mask and both networks "
                "have it"
            )


def mask_scores(
    truth: Masks, predicted: Masks, names: Sequence[str], spacing: Sequence[float] | None
) -> pd.DataFrame:
    """Dice and the 95 % Hausdorff distance of each label, and their means over labels.

    Dice is 1 where a label is in neither mask, as in BraTS, and 0 where it is in one of them only.
    The distance is NaN where it is not in both.

    Args:
        truth: `(subject, *space)`, labels 1, 2, …
        predicted: likewise.
        names: of the labels.
        spacing: voxels in mm; unset, distances are in voxels.

    Returns:
        A row a subject: `dice`, `hd95`, then `dice/NAME` and `hd95/NAME`.
    """
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice

    values: dict[str, Any] = {}
    for label, name in enumerate(names, start=1):
        # Two channels: the background's is not looked at.
        own, other = (
            torch.from_numpy(np.stack([masks != label, masks == label], axis=1))
            for masks in (predicted, truth)
        )
        there = [one_hot[:, 1].flatten(1).any(dim=1).numpy() for one_hot in (own, other)]
        dice = compute_dice(own, other, include_background=False, ignore_empty=False)
        values[f"dice/{name}"] = np.where(there[0] | there[1], dice[:, 0].numpy(), 1.0)
        both = there[0] & there[1]
        distance = np.full(len(truth), np.nan)
        if both.any():
            with warnings.catch_warnings():  # it calls itself by a name that it will drop
                warnings.simplefilter("ignore", FutureWarning)
                distances = compute_hausdorff_distance(
                    own[both],
                    other[both],
                    include_background=False,
                    percentile=95,
                    spacing=None if spacing is None else list(spacing),
                )
            distance[both] = distances[:, 0].numpy()
        values[f"hd95/{name}"] = distance
    table = pd.DataFrame(values)
    for at, metric in enumerate(("dice", "hd95")):
        table.insert(at, metric, table[_labels_of(table, metric)].mean(axis=1))
    return table


def _labels_of(table: pd.DataFrame, metric: str) -> list[str]:
    """The columns of a metric's labels."""
    return [str(c) for c in table if str(c).startswith(f"{metric}/")]


def _by_fold(table: pd.DataFrame, other: pd.DataFrame) -> list[dict[str, float]]:
    """Means over the subjects of each fold; of distances, where another table has them, too."""
    table, distances = table.drop(columns="subject"), _labels_of(table, "hd95")
    table[distances] = table[distances].where(other[distances].notna())
    table["hd95"] = table[distances].mean(axis=1)
    means = table.groupby("fold").mean()
    return [{str(k): float(v) for k, v in row.items()} for row in means.to_dict("records")]


def _write_masks(tuning: Tuning, rows: Indices, predicted: Masks, values: Sequence[int]) -> None:
    own = np.array([0, *values], np.uint8)
    table = tuning.store.table
    for row, mask in zip(rows, predicted, strict=True):
        subject = str(table["subject"].iloc[row])
        path = tuning.out / "masks" / f"{file_stem(subject)}.nii.gz"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            write_scan(path, own[mask], table["affine"].iloc[row])
