"""Draws the gallery from phantoms: views, losses, masks, reconstructions over a training, maps.

python docs/make/gallery.py build/docs/gallery
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import vitaepp
from vitaepp.losses.contrastive import contrastive_loss
from vitaepp.losses.edge import edge_loss, gaussian_blur, gradient_magnitude
from vitaepp.losses.perceptual import PerceptualLoss
from vitaepp.losses.reconstruction import reconstruction_loss
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.patches import patchify, random_masks, unpatchify
from vitaepp.nn.vgg import VGG16
from vitaepp.recipe.sections import AugmentationSettings, FirstViewSettings
from vitaepp.views.draws import Draws
from vitaepp.views.transforms import random_view, standardize

SUBJECTS, SIDE, PATCH = 8, 64, (8, 8)
STEPS = (0, 50, 200, 600)
NOTHING: dict[str, Any] = {
    "crop": (1.0, 1.0), "flip": "none", "rotation": 0, "scale": 0, "log_gamma": 0, "noise": 0,
}  # fmt: skip


def slices_of_phantoms(subjects: int = SUBJECTS) -> Tensor:
    """Axial slices through the tumours of phantoms on T1c, `(slice, 1, row, column)`, in [0, 1]."""
    with TemporaryDirectory() as folder:
        scans, store = Path(folder, "scans"), Path(folder, "store")
        vitaepp.write_phantoms(scans, subjects=subjects)
        vitaepp.prepare(
            scans, store, size=SIDE, spacing=1.5, modalities=["t1ce"], center="mask",
            clip=(0.5, 99.5), workers=1,
        )  # fmt: skip
        volumes = vitaepp.Store(store).read(range(subjects))
    depths = range(SIDE // 2 - 12, SIDE // 2 + 12, 3)
    slices = torch.cat([torch.tensor(volumes[..., z]) for z in depths]).float() / 255
    return slices.flip(2, 3).transpose(2, 3)  # the front is up, and the patient's right is left


def views(image: Tensor) -> Figure:
    """Each view transform alone, three draws of it, and the two views of a training."""
    alone = {
        "crop": {"crop": (0.4, 1.0)}, "mirrored": {"flip": "sides"}, "rotation": {"rotation": 10},
        "scale": {"scale": 0.1}, "gamma": {"log_gamma": 0.3}, "noise": {"noise": 0.1},
    }  # fmt: skip
    kinds = {name: AugmentationSettings(**NOTHING | what) for name, what in alone.items()}
    kinds |= {"first view": FirstViewSettings(), "second view": AugmentationSettings()}
    batch = image.expand(3, -1, -1, -1)
    columns: dict[str, list[Tensor]] = {"original": list(batch)}
    for name, settings in kinds.items():
        columns[name] = list(random_view(batch.clone(), Draws(2, 0, range(3)), settings))
    return _picture(columns)


def masks(image: Tensor) -> Figure:
    """What the encoder sees at several ratios of hidden patches."""
    noise = torch.rand(1, (SIDE // PATCH[0]) ** 2, generator=torch.Generator().manual_seed(0))
    columns = {"original": [image[0]]}
    for ratio in (0.5, 0.65, 0.75, 0.85, 0.95):
        columns[f"{ratio:.0%} hidden"] = [_hidden(image, random_masks(noise, ratio).hidden)[0]]
    return _picture(columns)


def losses(image: Tensor, model: MaskedAutoencoder) -> Figure:
    """Where each loss pulls: minus its gradient on a blurred image, which the original is not."""
    target = standardize(image)
    blurred = standardize(gaussian_blur(image, 1.5))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        perceptual = PerceptualLoss(VGG16("random"), relative=True)
    second = standardize(random_view(image, Draws(3, 0, [0]), AugmentationSettings()))

    def features(images: Tensor) -> Tensor:
        return model.encode(patchify(images, PATCH))[:, 1:].mean(1)

    def contrast(x: Tensor) -> Tensor:
        both = features(x), features(second)
        return contrastive_loss(both, both)

    def per(x: Tensor) -> Tensor:
        return perceptual(x, target, torch.zeros(1, perceptual.draws_needed(x.shape[1:])))

    terms: dict[str, Callable[[Tensor], Tensor]] = {
        "reconstruction": lambda x: reconstruction_loss(
            patchify(x, PATCH), patchify(target, PATCH)
        ),
        "edge": lambda x: edge_loss(x, target),
        "perceptual": per,
        "contrastive": contrast,
    }
    columns = {"original": [target[0]], "prediction": [blurred[0]]}
    columns["its edges"] = [gradient_magnitude(blurred)[0]]
    for name, term in terms.items():
        x = blurred.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(term(x), x)
        columns[name] = [-gradient[0]]
    return _picture(columns, signed=tuple(terms))


def training(images: Tensor, shown: Tensor) -> tuple[Figure, MaskedAutoencoder]:
    """The same hidden patches, filled in after more and more updates of a small autoencoder."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(1, (SIDE, SIDE), PATCH, 96, 4, 4, 64, 2, 4)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    patches, settings = (SIDE // PATCH[0]) ** 2, FirstViewSettings()
    target = standardize(shown)
    mask = random_masks(torch.rand(len(shown), patches), 0.75)
    columns = {"original": list(target), "visible": list(_hidden(target, mask.hidden))}
    for step in range(max(STEPS) + 1):
        if step in STEPS:
            with torch.no_grad():
                made = model.decode(
                    model.encode(patchify(target, PATCH), mask.visible), mask.visible
                )
            hidden = mask.hidden[..., None].expand(-1, -1, made.shape[-1])
            whole = patchify(target, PATCH).scatter(1, hidden, made.gather(1, hidden))
            columns[f"{step:,} updates"] = list(unpatchify(whole, model.grid, PATCH))
        rows = torch.randint(len(images), (16,))
        batch = standardize(random_view(images[rows], Draws(0, step, rows.tolist()), settings))
        truth, drawn = patchify(batch, PATCH), random_masks(torch.rand(16, patches), 0.75)
        made = model.decode(model.encode(truth, drawn.visible), drawn.visible)
        loss = reconstruction_loss(made, truth, drawn.hidden)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return _picture(columns), model.eval()


def maps(shown: Tensor, model: MaskedAutoencoder) -> Figure:
    """The first three principal components of patch features, one colour each."""
    with torch.no_grad():
        tokens = model.encode(patchify(standardize(shown), PATCH))[:, 1:]
    flat = tokens.flatten(0, 1)
    flat = flat - flat.mean(0)
    parts = flat @ torch.linalg.svd(flat, full_matrices=False).Vh[:3].T
    low, high = parts.quantile(0.02, 0), parts.quantile(0.98, 0)
    colours = ((parts - low) / (high - low)).clamp(0, 1).view(len(shown), *model.grid, 3)
    return _picture({"slice": list(shown), "three components": list(colours.movedim(-1, 1))})


def _hidden(images: Tensor, hidden: Tensor) -> Tensor:
    patches = patchify(images, PATCH)
    grey = images.amin((1, 2, 3)) * 0.4 + images.amax((1, 2, 3)) * 0.6
    patches = patches.scatter(
        1, hidden[..., None].expand(-1, -1, patches.shape[-1]), grey.mean().item()
    )
    return unpatchify(patches, (SIDE // PATCH[0], SIDE // PATCH[1]), PATCH)


def _picture(columns: dict[str, list[Tensor]], signed: tuple[str, ...] = ()) -> Figure:
    """Columns of images, `(channel, row, column)` each, with their names."""
    rows = max(map(len, columns.values()))
    figure = Figure(
        figsize=(1.25 * len(columns), 1.25 * rows + 0.25), dpi=130, layout="constrained"
    )
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(name, fontsize=8)
        for axis, image in zip(column, images, strict=True):
            pixels = image.detach().permute(1, 2, 0).numpy()
            look: dict[str, Any] = {"cmap": "gray"}
            if name in signed:
                limit = np.quantile(np.abs(pixels), 0.995)
                look = {"cmap": "coolwarm", "vmin": -limit, "vmax": limit}
            axis.imshow(pixels, interpolation="nearest", **look)
            axis.set_axis_off()
    return figure


def main(out: Path) -> None:
    """Draw every picture that is not there yet."""
    names = ("views", "masks", "training", "losses", "maps")
    if all((out / f"{name}.png").is_file() for name in names):
        return
    out.mkdir(parents=True, exist_ok=True)
    images = slices_of_phantoms()
    middle = 3 * SUBJECTS  # the rows of the slices at half height
    shown = images[[middle, middle + 1, middle + 5]]
    progress, model = training(images, shown)
    made = {
        "views": views(shown[:1]),
        "masks": masks(shown[:1]),
        "training": progress,
        "losses": losses(shown[:1], model),
        "maps": maps(shown, model),
    }
    for name, figure in made.items():
        figure.savefig(out / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
