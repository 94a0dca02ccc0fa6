"""L_edge: the mean squared error of edge maps (Eq. 2 of the paper)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from vitaepp.losses.present import mean_over_present
from vitaepp.nn.gradients import sobel

_CONVOLUTION = {2: F.conv2d, 3: F.conv3d}


def gradient_magnitude(
    images: Float[Tensor, "batch channel *space"], *, eps: float = 1e-6
) -> Float[Tensor, "batch channel *space"]:
    """Edge map: the length of the spatial gradient, per channel.

    Derivatives along each of the two or three spatial axes are computed with the normalised Sobel
    kernel, in intensity per voxel. Borders are replicated, so that the end of the image is no edge.

    Args:
        images: intensities in any unit.
        eps: value that is added under the root, so that the gradient is finite in flat regions.

    Returns:
        Edge map in the images' unit per voxel, same shape.

    Source:
        Kanopoulos et al. 1988; Eq. 2 of Prabhakar et al. 2023.

    Example:
        >>> ramp = 3 * torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 5)
        >>> gradient_magnitude(ramp)[0, 0, 2].round(decimals=3)
        tensor([3., 3., 3., 3., 3.])
    """
    first, *others = sobel(images)
    squared = first.square().add_(eps)
    for derivative in others:
        squared = torch.addcmul(squared, derivative, derivative)
    return squared.sqrt()


def edge_loss(
    prediction: Float[Tensor, "batch channel *space"],
    target: Float[Tensor, "batch channel *space"],
    *,
    blur: float = 0.0,
    present: Bool[Tensor, "batch channel"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error between the edge maps of a reconstruction and its original.

    Args:
        prediction: reconstructed intensities.
        target: original intensities in the same unit.
        blur: sigma, in voxels, of a Gaussian blur of the target before its edges are computed. The
            paper has none (0); the authors' released code uses 2.
        present: the channels that count. Unset: all.

    Returns:
        The loss in the images' unit squared per voxel squared.

    Source:
        Eq. 2 of Prabhakar et al. 2023.

    Example:
        >>> images = torch.rand(2, 1, 6, 6, 6)
        >>> edge_loss(images, images).item()
        0.0
    """
    with torch.no_grad():
        edges = gradient_magnitude(gaussian_blur(target, blur) if blur else target)
    edges_made = gradient_magnitude(prediction)
    if present is None:
        return F.mse_loss(edges_made, edges)
    return mean_over_present((edges_made - edges).square(), present)


def gaussian_blur(
    images: Float[Tensor, "batch channel *space"], sigma: float
) -> Float[Tensor, "batch channel *space"]:
    """Gaussian blur along every spatial axis, borders replicated.

    Args:
        images: intensities in any unit.
        sigma: standard deviation in voxels; the kernel ends after four of them.
    """
    ndim = images.ndim - 2
    radius = max(1, round(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    taps = torch.exp(-0.5 * (offsets / sigma).square())
    taps = taps / taps.sum()
    x = images.flatten(0, 1)[:, None]
    # Autocast would round the image, and with it its edges.
    with torch.autocast(images.device.type, enabled=False):
        for axis in range(ndim):
            shape = [1] * ndim
            shape[axis] = -1
            padding = [0] * (2 * ndim)
            padding[2 * (ndim - 1 - axis)] = padding[2 * (ndim - 1 - axis) + 1] = radius
            x = _CONVOLUTION[ndim](F.pad(x, padding, mode="replicate"), taps.view(1, 1, *shape))
    return x.unflatten(0, images.shape[:2])[:, :, 0]
