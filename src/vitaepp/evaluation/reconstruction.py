"""What a trained autoencoder makes of the patches it does not see: images, PSNR and SSIM."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitaepp.devices import chosen_device
from vitaepp.draws import Draws
from vitaepp.encoder import check_fits, place_channels
from vitaepp.errors import RecipeError, RunError
from vitaepp.files import atomic_path, check_writable, file_stem, write_json
from vitaepp.ingest.writers import write_scan
from vitaepp.losses.reconstruction import patch_moments
from vitaepp.methods import ViTAE
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.masking import random_masks
from vitaepp.nn.patches import patchify
from vitaepp.progress import track
from vitaepp.runfolder import RunFolder, weights_id
from vitaepp.store import Store
from vitaepp.training.checkpoints import load_method
from vitaepp.views import channel_moments, standardize

#: Subjects whose slices the report can leaf through; more would make it heavy.
BROWSABLE = 6

#: Shortest side of a picture in a panel, in pixels.
PANEL_SIDE = 160


def reconstruct(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    subjects: int | None = None,
    seed: int = 0,
    device: str | None = None,
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
        seed: of the masks; the same seed hides the same patches, whatever the model.
        device: where to compute.

    Returns:
        The table in metrics.csv.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other, or `out` is a run,
            whose table of training it would replace.
        RecipeError: the run's method reconstructs nothing.
    """
    folder, opened, target = RunFolder(run), Store(store), Path(out)
    if RunFolder(target, must_exist=False).recipe_file.exists():
        raise RunError(f"{target}: is a run; give a folder of its own, as {target}/reconstruction")
    weights = weights_id(run)
    method, config = load_method(run)
    check_fits(config, opened)
    if not isinstance(method, ViTAE) or not isinstance(method.backbone, MaskedAutoencoder):
        raise RecipeError(
            f"{run}: {config.method} was trained without a decoder, there is nothing to reconstruct"
        )
    place = chosen_device(device)
    method.to(place)
    rows = choose_rows(opened, subjects)
    check_writable(target / "metrics.csv")
    (target / "metrics.csv").unlink(missing_ok=True)  # it comes back when all of it is there
    write_json(
        target / "reconstruction.json",
        {
            "method": config.method,
            "run": folder.path.resolve().name,
            "store": opened.name,
            "encoder": weights,
            "seed": seed,
        },
    )
    measured = []
    for index, row in enumerate(track(rows, "reconstructing", len(rows))):
        stored = torch.from_numpy(opened.read([row])).float()
        image = place_channels(stored, opened.info.modalities, config.modalities).to(place)
        present = _present(opened, row, config.modalities).to(place)
        restored, visible = restore(method, image, Draws(seed, 0, [row], place), present)
        subject = str(opened.table["subject"].iloc[row])
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
        draw_panel(arrays, stem.with_name(f"{stem.name}.png"), shown)
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


def choose_rows(store: Store, subjects: int | None) -> list[int]:
    """Rows spread evenly over the store; those of another split than `train` come first."""
    splits = store.table["split"].fillna("").astype(str).to_numpy()
    held_out = (splits != "train") & (splits != "")
    groups = [np.flatnonzero(held_out), np.flatnonzero(~held_out)]
    count = len(store) if subjects is None else min(subjects, len(store))
    rows: list[int] = []
    for group in groups:
        wanted = min(count - len(rows), len(group))
        if wanted:
            rows += group[np.linspace(0, len(group) - 1, wanted).round().astype(int)].tolist()
    return rows


def restore(
    method: ViTAE,
    images: Float[Tensor, "batch channel *space"],
    draws: Draws,
    present: Bool[Tensor, "batch channel"] | None = None,
) -> tuple[Float[Tensor, "batch channel *space"], Tensor]:
    """Images with their hidden patches as the model predicts them, and which voxels were visible.

    Args:
        method: trained.
        images: intensities in [0, 255]; missing channels are 0, and stay so.
        draws: what the masks are drawn from.
        present: which channels are there; all without it.
    """
    recipe, model = method.recipe, method.backbone
    assert isinstance(model, MaskedAutoencoder)
    over = recipe.views.normalize
    with torch.inference_mode():
        patches = patchify(standardize(images / 255, over), model.patch_size)
        mask = random_masks(draws.uniform(model.num_patches), recipe.model.mask_ratio)
        predicted = model.decode(model.encode(patches, mask.visible), mask.visible).float()
        if recipe.loss.reconstruction.normalize_targets:
            mean, deviation = patch_moments(patches, present=present)
            predicted = predicted * deviation + mean
        seen = torch.zeros_like(patches)
        seen.scatter_(1, mask.visible[..., None].expand(-1, -1, patches.shape[-1]), 1.0)
        visible = model.assemble(seen) > 0
        mean, deviation = channel_moments(images / 255, over)
        filled = (model.assemble(predicted) * deviation + mean) * 255
        return torch.where(visible, images, filled.clamp(0, 255)), visible


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
    arrays: dict[str, npt.NDArray[np.uint8]], path: Path, present: Sequence[bool]
) -> None:
    """A picture with a row a channel: original, masked, reconstruction.

    Volumes show their middle slices: axial for each channel, or, where there is only one channel,
    in all three planes. A channel that is not present says so.
    """
    from PIL import Image

    rows = []
    channels, *space = next(iter(arrays.values())).shape
    if len(space) == 2:
        rgb = channels == 3
        kinds: Sequence[Any] = [None] if rgb else range(channels)
        rows = [
            [np.moveaxis(a, 0, -1) if k is None else a[k] for a in arrays.values()] for k in kinds
        ]
    else:
        axes = (2, 1, 0) if channels == 1 else (2,)
        rows = [
            [view_slice(a[c], axis, space[axis] // 2) for a in arrays.values()]
            for c in range(channels)
            for axis in axes
        ]
    lines = []
    for index, row in enumerate(rows):
        scale = -(-PANEL_SIDE // min(row[0].shape[:2]))
        enlarged = [x.repeat(scale, 0).repeat(scale, 1) for x in row]
        if len(rows) == len(present) and not present[index]:
            enlarged = [_missing_tile(x.shape[:2]) for x in enlarged]
        gap = [(0, 0), (0, 4), *[(0, 0)] * (enlarged[0].ndim - 2)]
        lines.append(np.concatenate([np.pad(x, gap) for x in enlarged], axis=1))
    width = max(line.shape[1] for line in lines)
    padded = [np.pad(x, [(0, 4), (0, width - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]) for x in lines]
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(padded)).save(temporary)


def _missing_tile(shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A picture that cannot be taken for a scan."""
    from PIL import Image, ImageDraw

    tile = Image.new("L", (shape[1], shape[0]), 64)
    ImageDraw.Draw(tile).text((8, 8), "missing", fill=224)
    return np.asarray(tile)


def view_slice(volume: npt.NDArray[np.uint8], axis: int, index: int) -> npt.NDArray[np.uint8]:
    """A slice of an (x, y, z) volume as a radiologist's picture: anterior or superior is up."""
    return np.take(volume, index, axis).T[::-1]


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
