"""What a trained autoencoder makes of the patches it does not see: images, PSNR and SSIM."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitaepp.data.nifti import write_scan
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.splits import canonical_splits
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.encoder.embed import say_unlike
from vitaepp.encoder.fits import check_fits, check_like, place_channels
from vitaepp.errors import RecipeError, RunError
from vitaepp.methods import ViTAE
from vitaepp.methods.vitaepp import reconstruct_images
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.presentation.numbers import mean_and_spread
from vitaepp.presentation.planes import (
    Plane,
    are_colours,
    framed,
    missing_tile,
    planes,
    stacked,
    tile,
)
from vitaepp.system.devices import chosen_device
from vitaepp.system.files import atomic_path, file_stem, read_json, write_json
from vitaepp.system.paths import swapped
from vitaepp.system.progress import counted, say, track
from vitaepp.system.results import ResultFiles
from vitaepp.system.text import evenly
from vitaepp.views.draws import Draws, number_of
from vitaepp.weights.runs import load_method

#: Subjects whose slices the report can leaf through; more would make it heavy.
BROWSABLE = 6

#: Pixels of the shortest side of a picture in a panel, unless its longest side is too long then.
PANEL_SIDE, LONGEST_SIDE = 160, 640

#: What `reconstruct` writes besides the files of each subject.
FILES = ResultFiles(
    "reconstruct",
    {
        "reconstruction.json": ("method", "run", "store", "encoder", "seed"),
        "metrics.csv": ("subject", "psnr", "ssim"),
    },
    last=("metrics.csv",),
)


def reconstruct(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    subjects: int | None = None,
    seed: int = 0,
    device: str | None = None,
    any_store: bool = False,
) -> pd.DataFrame:
    """Hide patches of each image as in training, let the model fill them in, and measure.

    The reconstruction is the image with its hidden patches replaced by predictions; visible ones
    are the image's own, as they are the model's input. PSNR and SSIM compare it with the image, on
    intensities in [0, 255], averaged over the modalities that the subject has. One that it lacks is
    marked as missing in panels, and gets no NIfTI: there is nothing to hold a prediction against.

    Writes `metrics.csv` (`subject, psnr, ssim`), and for each subject a panel `<subject>.png`
    (original, masked, reconstruction) and, in 3D, `<subject>_<modality>.nii.gz` in the original
    scan's space and intensities; for a few, `<subject>.npz` for the report to leaf through.
    `reconstruction.json` says of which weights they are. A report finds them inside the run, or is
    given them.

    Args:
        run: trained run folder.
        store: store like the one of the training.
        out: folder for the results.
        subjects: how many, evenly over the store, those that were not trained on first; all
            without it.
        seed: of the masks; the same seed hides the same patches of a subject, whatever the model
            and the rest of the store.
        device: where to compute.
        any_store: also where the store was prepared in another way than that of the training.

    Returns:
        The table in metrics.csv.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other, or `out` is a run,
            whose table of training it would replace.
        RecipeError: the run's method reconstructs nothing.
    """
    if hint := swapped("reconstruct", {"run": run, "store": store, "out": out}):
        raise RunError(hint)
    folder, opened, target = RunFolder(run), Store(store), Path(out)
    if RunFolder(target, must_exist=False).recipe_file.exists():
        raise RunError(f"{target}: is a run; give a folder of its own, as {target}/reconstruction")
    weights = weights_id(run)
    method, config = load_method(run)
    check_fits(config, opened)
    say_unlike(config, opened, check_like(config, opened, any_store))
    if not isinstance(method, ViTAE) or not isinstance(method.backbone, MaskedAutoencoder):
        raise RecipeError(
            f"{run}: {config.name} was trained without a decoder, there is nothing to reconstruct"
        )
    on = chosen_device(device)
    method.to(on)
    rows = choose_rows(opened, subjects)
    chosen = opened.table["subject"].iloc[rows].astype(str).tolist()
    modalities = {*opened.info.modalities, *config.modalities}
    earlier = _earlier(target, modalities)
    FILES.check(target, sorted({*_names(chosen, modalities)}.difference(*earlier)))
    _remove(target, earlier)
    (target / "metrics.csv").unlink(missing_ok=True)  # it comes back when all of it is there
    write_json(
        target / "reconstruction.json",
        {
            "method": config.method,
            "run": folder.path.resolve().name,
            "store": opened.name,
            "encoder": weights,
            "seed": seed,
            # Whose files are here, or will be: the next call removes them, ended or not.
            "subjects": chosen,
            "modalities": list(opened.info.modalities),
        },
    )
    measured = []
    for index, row in enumerate(track(rows, "reconstructing", len(rows))):
        subject = chosen[index]
        stored = torch.from_numpy(opened.read([row])).float()
        image = place_channels(stored, opened.info.modalities, config.modalities).to(on)
        present = _present(opened, row, config.modalities).to(on)
        draws = Draws(seed, 0, [number_of(subject)], on)
        restored, visible = reconstruct_images(method, image, draws, present)
        psnr, ssim = image_quality(restored[:, present[0]], image[:, present[0]])
        measured.append({"subject": subject, "psnr": psnr, "ssim": ssim})
        parts = {
            "original": image,
            "masked": torch.where(visible, image, torch.zeros_like(image)),
            "reconstruction": restored,
        }
        arrays = {
            name: part[0].round().clamp(0, 255).byte().cpu().numpy() for name, part in parts.items()
        }
        stem = target / file_stem(subject)
        shown = present[0].tolist()
        panel = stem.with_name(f"{stem.name}.png")
        draw_panel(arrays, panel, config.modalities, shown, opened.info)
        browsable = stem.with_name(f"{stem.name}.npz")
        browsable.unlink(missing_ok=True)  # of what was reconstructed here before
        if index < BROWSABLE:
            with atomic_path(browsable) as temporary:
                names = zip(config.modalities, shown, strict=True)
                channels = np.array([m if there else f"{m} (missing)" for m, there in names])
                np.savez_compressed(temporary, channels=channels, **arrays)  # type: ignore[arg-type]
        if opened.info.ndim == 3:
            volumes = dict(zip(config.modalities, restored[0].cpu().numpy(), strict=True))
            write_volumes(volumes, opened, row, stem)
    table = pd.DataFrame(measured, columns=["subject", "psnr", "ssim"])
    with atomic_path(target / "metrics.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def _earlier(folder: Path, modalities: Iterable[str]) -> list[list[str]]:
    """The names of the pictures and volumes of an earlier call, those of each subject."""
    try:
        file = folder / "reconstruction.json"
        facts = read_json(file) if file.exists() else {}
        if "subjects" in facts:
            subjects, modalities = facts["subjects"], {*modalities, *facts["modalities"]}
        else:  # of an earlier version
            table = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False)
            subjects = table["subject"].tolist()
        return [_names([subject], modalities) for subject in subjects]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _names(subjects: Iterable[str], modalities: Iterable[str]) -> list[str]:
    """The names of the files of subjects; some may not be written."""
    endings = [".png", ".npz", *(f"_{file_stem(m)}.nii.gz" for m in modalities)]
    return [f"{file_stem(subject)}{ending}" for subject in subjects for ending in endings]


def _remove(folder: Path, earlier: Iterable[Iterable[str]]) -> None:
    """Remove the pictures and volumes of an earlier call from a folder, and nothing else."""
    removed = 0
    for names in earlier:
        files = [folder / name for name in names]
        removed += any(file.exists() for file in files)
        for file in files:
            file.unlink(missing_ok=True)
    if removed:
        subjects = counted(removed, "subject")
        say(f"{folder}: pictures of {subjects} from an earlier call are removed")


def choose_rows(store: Store, subjects: int | None) -> list[int]:
    """Rows spread evenly over the store; those of another split than `train` come first."""
    splits = canonical_splits(store.table["split"]).to_numpy()
    held_out = (splits != "train") & (splits != "")
    groups = [np.flatnonzero(held_out), np.flatnonzero(~held_out)]
    count = len(store) if subjects is None else min(subjects, len(store))
    rows: list[int] = []
    for group in groups:
        rows += group[evenly(len(group), count - len(rows))].tolist()
    return rows


def image_quality(
    restored: Float[Tensor, "one channel *space"], image: Float[Tensor, "one channel *space"]
) -> tuple[float, float]:
    """PSNR in dB and SSIM of intensities in [0, 255], averaged over channels.

    Equal images have no PSNR; theirs is given as 100 dB.

    Source:
        MONAI's metrics; Wang et al. 2004 for SSIM.
    """
    from monai.metrics.regression import SSIMMetric

    channels = (restored.transpose(0, 1), image.transpose(0, 1))
    error = (channels[0] - channels[1]).square().flatten(1).mean(dim=1)
    psnr = (20 * np.log10(255) - 10 * error.clamp(min=255**2 / 1e10).log10()).mean()
    window = min(11, *image.shape[2:])
    ssim = SSIMMetric(image.ndim - 2, data_range=255.0, win_size=window - (window % 2 == 0))
    return float(psnr), float(torch.as_tensor(ssim(*channels)).mean())


def draw_panel(
    arrays: Mapping[str, npt.NDArray[np.uint8]],
    path: Path,
    channels: Sequence[str],
    present: Sequence[bool],
    info: StoreInfo,
) -> None:
    """A picture with a row a channel: original, masked, reconstruction.

    Volumes show their middle slices: the axial one of each channel, or, where there is only one
    channel, those of all three planes.

    Args:
        arrays: `(channel, *space)` by what they are called.
        path: of the PNG file.
        channels: their names.
        present: which channels the subject has; another one says that it is missing.
        info: of the store, for proportions and directions.
    """
    views = planes(info.ndim, info.directed)[: 1 if len(channels) > 1 else None]
    lines = []
    colour = are_colours(channels, info.ndim)
    for c, channel in [(0, "")] if colour else enumerate(channels):
        for view, size in zip(views, panel_sizes(views, info), strict=True):
            images = [np.moveaxis(a, 0, -1) if colour else a[c] for a in arrays.values()]
            tiles = [
                tile(view.cut(image), size, view.marks)
                if present[c]
                else missing_tile(framed(size))
                for image in images
            ]
            lines.append((", ".join(t for t in (channel, view.name) if t), tiles))
    with atomic_path(path) as temporary:
        stacked(lines, list(arrays)).save(temporary)


def panel_sizes(views: Sequence[Plane], info: StoreInfo) -> list[tuple[int, int]]:
    """Width and height in pixels of the slices of a panel, of one scale in all views.

    Args:
        views: what is shown.
        info: of the store, for proportions.
    """
    extents = [view.extent(info.size, info.spacing) for view in views]
    sides = [side for extent in extents for side in extent]
    # A whole number of pixels for the finest voxels, so that they are all of one size.
    finest = min(info.spacing or (1.0,))
    enlarged = min(-(-PANEL_SIDE * finest // min(sides)), LONGEST_SIDE * finest // max(sides))
    scale = max(1.0, enlarged) / finest
    return [(round(width * scale), round(height * scale)) for width, height in extents]


def write_volumes(
    volumes: Mapping[str, npt.NDArray[np.float32]], store: Store, row: int, stem: Path
) -> None:
    """One NIfTI file a modality, in the space and the intensities of the original scan."""
    record = store.table.iloc[row]
    for channel, modality in enumerate(store.info.modalities):
        if not store.present[row, channel]:
            continue
        low, high = record["intensity_min"][channel], record["intensity_max"][channel]
        values = low + volumes[modality] / 255 * (high - low)
        path = stem.with_name(f"{stem.name}_{file_stem(modality)}.nii.gz")
        write_scan(path, values.astype(np.float32), record["affine"])


def _present(store: Store, row: int, channels: Sequence[str]) -> Bool[Tensor, "1 channel"]:
    """Which of an encoder's channels a subject has."""
    there = dict(zip(store.info.modalities, store.present[row].tolist(), strict=True))
    return torch.tensor([[there.get(name, False) for name in channels]])


def reconstruction_summary(table: pd.DataFrame) -> str:
    """PSNR and SSIM of a reconstruction in one line.

    Args:
        table: what `reconstruct` returned: `subject`, `psnr` in dB, `ssim`.
    """
    psnr, ssim = mean_and_spread(table["psnr"], 2), mean_and_spread(table["ssim"], 3)
    return f"{counted(len(table), 'subject')}: PSNR {psnr} dB, SSIM {ssim}"


def reconstruction_json(table: pd.DataFrame) -> dict[str, Any]:
    """PSNR and SSIM of a reconstruction as plain values, over subjects and of each.

    Args:
        table: what `reconstruct` returned: `subject`, `psnr` in dB, `ssim`.
    """
    measured = table[["psnr", "ssim"]]
    return {
        "n": len(table),
        "mean": measured.mean().to_dict(),
        "std": measured.std().to_dict() if len(table) > 1 else dict.fromkeys(measured),
        "subjects": table.to_dict("records"),
    }
