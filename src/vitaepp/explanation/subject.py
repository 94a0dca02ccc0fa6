"""The maps of one subject: made, measured, drawn and written."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitaepp.data.arrays import Floats
from vitaepp.data.nifti import write_scan
from vitaepp.data.store import Store
from vitaepp.explanation.checks import of_maps
from vitaepp.explanation.lattice import spread
from vitaepp.explanation.networks import Network, image_of
from vitaepp.explanation.patchmaps import PatchMaps
from vitaepp.explanation.pictures import density, draw_maps
from vitaepp.explanation.shapley import shapley
from vitaepp.explanation.words import HEADS, caption
from vitaepp.presentation.planes import are_colours
from vitaepp.system.files import atomic_path, file_stem, without_nan

#: The maps of a volume that become NIfTI files.
VOLUMES = (*HEADS, "shapley_error")


def explain_one(
    networks: tuple[Network, Network],
    store: Store,
    row: int,
    patch: PatchMaps,
    index: int,
    target: Path,
    pairs: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Maps of one subject and their files; what is said of it, and the numbers of each map."""
    started, on = time.monotonic(), next(networks[0].encoder.parameters()).device
    trained, untrained = networks
    count, size = int(trained.parts.max()) + 1, store.info.size
    voxels = spread(trained.parts, size)
    image = image_of(trained.encoder, store, row, on)
    column = _column(trained, image)
    game, greyed = trained.games(image, column)
    estimate = shapley(game, count, pairs, seed)
    maps = {"shapley": estimate.values, **trained.simple_maps(image, greyed)}
    other_game, other_greyed = untrained.games(image, column)
    random = shapley(other_game, count, pairs, seed)
    controls = {"shapley": random.values, **untrained.simple_maps(image, other_greyed)}
    maps["untrained"] = random.values
    lesion = None
    if store.masked[row]:
        inside = store.labelled([row])[0]
        lesion = inside if inside.any() and not inside.all() else None
    unit = float(trained.scores.spread[column])
    numbers = of_maps(maps, controls, voxels, lesion, game, estimate, unit)
    subject = str(store.table["subject"].iloc[row])
    facts = {
        "subject": subject,
        "explained": trained.scores.names[column],
        "total": estimate.total,
        "baseline": estimate.baseline,
        "sum": float(estimate.values.sum()),
        "error": without_nan(float(np.sqrt(np.mean(estimate.errors**2)))),
        "reliability": without_nan(estimate.reliability),
        "seconds": round(time.monotonic() - started, 1),
        "maps": without_nan(numbers),
    }
    arrays = {
        "image": _shown(store, row),
        "parts": trained.parts,
        **{name: values[trained.parts].astype(np.float32) for name, values in maps.items()},
        "shapley_error": estimate.errors[trained.parts].astype(np.float32),
        "patches": patch.colours[index],
        "regions": patch.regions[index],
        **({} if patch.deviations is None else {"deviations": patch.deviations[index]}),
        **({} if lesion is None else {"lesion": lesion}),
    }
    stem = target / file_stem(subject)
    # First of all files of a subject, so that those of an interrupted call can be told.
    with atomic_path(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez_compressed(temporary, **arrays)
    draw_maps(stem.with_name(f"{stem.name}.png"), arrays, store.info, caption(facts))
    if store.info.ndim == 3:
        _write_volumes(stem, arrays, store.table["affine"].iloc[row], size)
    return facts, numbers


def _column(network: Network, image: Tensor) -> int:
    """Which score is explained: of several classes, that of the highest."""
    if len(network.scores.names) == 1:
        return 0
    config = network.encoder.config
    with torch.inference_mode():
        features = network.encoder.backbone.features(image, config.pool, config.block)
    return int(network.scores(features.float().cpu().numpy())[0].argmax())


def _shown(store: Store, row: int) -> npt.NDArray[np.uint8]:
    """What maps are laid over: the first modality that a subject has, or its colours."""
    image, info = store.read([row])[0].astype(np.float32), store.info
    colour = are_colours(info.modalities, info.ndim)
    shown = np.moveaxis(image, 0, -1) if colour else image[int(store.present[row].argmax())]
    return np.asarray(shown.round().clip(0, 255).astype(np.uint8))


def _write_volumes(
    stem: Path, arrays: dict[str, npt.NDArray[Any]], affine: Floats, size: tuple[int, ...]
) -> None:
    """NIfTI files of a volume's maps, on the grid of the crop in the scan's space."""
    for name in VOLUMES:
        if name not in arrays:
            continue
        values = arrays[name]
        as_they_are = name in ("patches", "deviations", "regions")
        spaced = spread(values, size) if as_they_are else density(values, arrays["parts"], size)
        scan = spaced if name == "regions" else spaced.astype(np.float32)
        write_scan(stem.with_name(f"{stem.name}_{name}.nii.gz"), scan, affine)


def earlier_maps(folder: Path) -> dict[str, list[str]]:
    """The files with maps that an earlier call left in a folder, and nothing else.

    Each subject's files begin with its `.npz` file, which holds what no other verb writes.

    Returns:
        The names of the files by their stem, one a subject.
    """
    found = {}
    for file in sorted(folder.glob("*.npz")):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                own = {"parts", "shapley", "shapley_error"} <= set(arrays)
        except (OSError, ValueError, zipfile.BadZipFile):
            continue
        if own:
            stem = file.name.removesuffix(".npz")
            found[stem] = files_of(stem)
    return found


def files_of(stem: str) -> list[str]:
    """The names of the files of a subject, whose names begin alike; some may not be written."""
    return [f"{stem}.npz", f"{stem}.png", *(f"{stem}_{name}.nii.gz" for name in VOLUMES)]
