"""VGG-16 up to relu4_3, for the perceptual loss."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitaepp.errors import WeightsError, one_line
from vitaepp.system.tensors import read_tensors

IMAGENET_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

#: Convolutions of each level, by index in torchvision's `features`, and number of output channels.
LEVELS = (((0, 2), 64), ((5, 7), 128), ((10, 12, 14), 256), ((17, 19, 21), 512))

#: Smallest side of an image: the deepest level comes after three poolings by 2.
SMALLEST_SIDE = 8


class VGG16(nn.Module):
    """Frozen VGG-16 with features after relu1_2, relu2_2, relu3_3 and relu4_3.

    Parameter names are torchvision's. A grey image counts as three equal channels at the cost of
    one, because the first convolution's weights are summed over its inputs.

    Args:
        weights: `imagenet` (downloaded once, checked by hash), `random` (with a fixed seed, the
            same in every run), or a file with torchvision's key names.

    Raises:
        WeightsError: the weights are not available or do not fit.

    Source:
        Simonyan & Zisserman 2015; the levels are those of Johnson et al. 2016.
    """

    def __init__(self, weights: str = "random") -> None:
        super().__init__()
        channels = 3
        convolutions = {}
        for indices, width in LEVELS:
            for index in indices:
                convolutions[str(index)] = nn.Conv2d(channels, width, kernel_size=3, padding=1)
                channels = width
        self.features = nn.ModuleDict(convolutions)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        if weights == "random":
            self._randomize()
        else:
            self._load(weights)
        self.requires_grad_(False)

    def levels(
        self, images: Float[Tensor, "batch channel height width"]
    ) -> Iterator[Float[Tensor, "batch feature _ _"]]:
        """Yield the features of the four levels; each is computed when it is needed.

        Args:
            images: images with one or three channels, intensities in [0, 1].
        """
        x = images
        for level, (indices, _) in enumerate(LEVELS):
            if level:
                x = F.max_pool2d(x, 2)
            for index in indices:
                x = F.relu_(self._first(x) if index == 0 else self._convolution(index)(x))
            yield x

    def _convolution(self, index: int) -> nn.Conv2d:
        return cast(nn.Conv2d, self.features[str(index)])

    def _first(self, images: Tensor) -> Tensor:
        """The first convolution, applied to images normalised by ImageNet's mean and deviation.

        Normalisation is linear, so it can be part of the weights: W * pad((x - m) / s) is
        (W / s) * pad(x) minus the map (W m / s) * pad(1), which is constant except at the border.
        """
        convolution = self._convolution(0)
        weight = convolution.weight / self.std
        offset = (weight * self.mean).sum(dim=1, keepdim=True)
        if images.shape[1] == 1:
            weight = weight.sum(dim=1, keepdim=True)
        ones = images.new_ones(1, 1, *images.shape[2:])
        constant = F.conv2d(ones, offset, padding=1)
        return F.conv2d(images, weight, convolution.bias, padding=1).sub_(constant)

    def _randomize(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for index in (index for indices, _ in LEVELS for index in indices):
            convolution = self._convolution(index)
            nn.init.kaiming_normal_(
                convolution.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # each has one

    def _load(self, weights: str) -> None:
        state = _download() if weights == "imagenet" else _read(weights)
        own = self.state_dict()
        missing = [k for k in own if k not in state]
        if missing:
            raise WeightsError(
                f"{weights}: not VGG-16 in torchvision's key names, has no {missing[0]}"
            )
        wrong = [k for k in own if state[k].shape != own[k].shape]
        if wrong:
            raise WeightsError(
                f"{weights}: {wrong[0]} is of shape {tuple(state[wrong[0]].shape)}, VGG-16 has "
                f"{tuple(own[wrong[0]].shape)}"
            )
        self.load_state_dict({k: state[k] for k in own})


def known_weights(weights: str) -> str:
    """What `auto` stands for here: `imagenet` where that has been downloaded, else `none`."""
    if weights != "auto":
        return weights
    return "imagenet" if imagenet_file().is_file() else "none"


def imagenet_file() -> Path:
    """Where the weights `imagenet` are kept once they are downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / IMAGENET_URL.rpartition("/")[2]


def _download() -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            IMAGENET_URL, map_location="cpu", check_hash=True, weights_only=True, progress=False
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise WeightsError(
            f"imagenet: could not download {IMAGENET_URL} ({one_line(error)}); where there is no "
            "network, fetch that file elsewhere and give its path, or give random"
        ) from None
    return state


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise WeightsError(
            f"{path}: no such file; give imagenet, random, or a file of VGG-16 weights in "
            "torchvision's key names"
        )
    try:
        state = read_tensors(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds no state dict")
    return state
