"""The maps of one subject: made, measured, drawn and written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vitaepp.data.nifti import write_scan
from vitaepp.data.store import Store
from vitaepp.explanation.checks import of_maps
from vitaepp.explanation.lattice import spread
from vitaepp.explanation.networks import Network, image_of
from vitaepp.explanation.patchmaps import PatchMaps
from vitaepp.explanation.pictures import draw_maps, overlay, region_colours
from vitaepp.explanation.shapley import shapley
from vitaepp.explanation.words import HEADS, caption, plain
from vitaepp.presentation.planes import are_colours
from vitaepp.system.files import atomic_path, file_stem


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
    found = shapley(game, count, pairs, seed)
    maps = {"shapley": found.values, **trained.simple_maps(image, greyed)}
    other_game, other_greyed = untrained.games(image, column)
    random = shapley(other_game, count, pairs, seed)
    controls = {"shapley": random.values, **untrained.simple_maps(image, other_greyed)}
    maps["untrained"] = random.values
    lesion = None
    if store.masked[row]:
        inside = store.read_masks([row])[0] > 0
        lesion = inside if inside.any() and not inside.all() else None
    unit = float(trained.scores.spread[column])
    numbers = of_maps(maps, controls, voxels, lesion, game, found, unit)
    subject = str(store.table["subject"].iloc[row])
    told = {
        "subject": subject,
        "explained": trained.scores.names[column],
        "total": found.total,
        "baseline": found.baseline,
        "sum": float(found.values.sum()),
        "error": plain([np.sqrt(np.mean(found.errors**2))])[0],
        "reliability": plain([found.reliability])[0],
        "seconds": round(time.monotonic() - started, 1),
        "maps": {name: dict(zip(n, plain(n.values()), strict=True)) for name, n in numbers.items()},
    }
    stem = target / file_stem(subject)
    sizes = np.bincount(voxels.ravel())
    densities = {name: (values / sizes)[voxels] for name, values in maps.items()}
    _draw(stem, store, row, patch, index, densities, lesion, told)
    _write(stem, store, row, patch, index, densities, (found.errors / sizes)[voxels])
    arrays = {name: values[trained.parts].astype(np.float32) for name, values in maps.items()}
    with atomic_path(stem.with_name(f"{stem.name}.npz")) as temporary:
        np.savez_compressed(
            temporary,
            parts=trained.parts,
            patches=patch.colours[index],
            regions=patch.regions[index],
            shapley_error=found.errors[trained.parts].astype(np.float32),
            **arrays,  # type: ignore[arg-type]
        )
    return told, numbers


def _column(network: Network, image: Tensor) -> int:
    """Which score is explained: of several classes, that of the highest."""
    if len(network.scores.names) == 1:
        return 0
    config = network.encoder.config
    with torch.inference_mode():
        features = network.encoder.backbone.features(image, config.pool, config.block)
    return int(network.scores(features.float().cpu().numpy())[0].argmax())


def _draw(
    stem: Path,
    store: Store,
    row: int,
    patch: PatchMaps,
    index: int,
    densities: dict[str, npt.NDArray[np.float64]],
    lesion: npt.NDArray[np.bool_] | None,
    told: dict[str, Any],
) -> None:
    info = store.info
    image = store.read([row])[0].astype(np.float32)
    if are_colours(info.modalities, info.ndim):
        shown, grey = np.moveaxis(image, 0, -1), image.mean(axis=0)
    else:
        shown = grey = image[int(store.present[row].argmax())]
    columns = {
        "image": shown,
        "patch features": spread(patch.colours[index], info.size) * 255,
        **(
            {}
            if patch.deviations is None
            else {"less the mean here": spread(patch.deviations[index], info.size) * 255}
        ),
        "regions": region_colours(spread(patch.regions[index], info.size)),
        # Rollout has no sign, and no part without any.
        **{
            HEADS[name]: overlay(grey, values - (values.min() if name == "rollout" else 0))
            for name, values in densities.items()
        },
    }
    strength = np.abs(densities["shapley"])
    path = stem.with_name(f"{stem.name}.png")
    draw_maps(path, columns, strength, lesion, info, caption(told))


def _write(
    stem: Path,
    store: Store,
    row: int,
    patch: PatchMaps,
    index: int,
    densities: dict[str, npt.NDArray[np.float64]],
    errors: npt.NDArray[np.float64],
) -> None:
    """NIfTI files of a volume's maps, on the grid of the crop in the scan's space."""
    if store.info.ndim != 3:
        return
    affine, size = store.table["affine"].iloc[row], store.info.size
    volumes: dict[str, npt.NDArray[Any]] = {
        "patches": spread(patch.colours[index], size),
        **(
            {}
            if patch.deviations is None
            else {"deviations": spread(patch.deviations[index], size)}
        ),
        "regions": spread(patch.regions[index], size),
        "shapley_error": errors.astype(np.float32),
        **{name: values.astype(np.float32) for name, values in densities.items()},
    }
    for name, values in volumes.items():
        write_scan(stem.with_name(f"{stem.name}_{name}.nii.gz"), values, affine)
