"""ResNet-18 and ResNet-50 from MONAI as backbones, for two or three spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from monai.networks.nets import resnet as monai_resnet
from torch import Tensor, nn

from vitaepp.nn.backbone import Backbone
from vitaepp.nn.pooling import pool_tokens

#: Block, blocks per stage.
_LAYERS: dict[str, tuple[str, list[int]]] = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
}
_WIDTHS = [64, 128, 256, 512]

#: A 2D image up to this side keeps its resolution in the first layer.
_SMALL_PICTURE = 32


class ResNet(monai_resnet.ResNet, Backbone):
    """ResNet without its classifier (He et al. 2016); parameter names are MONAI's.

    The first layer is the standard one: a convolution of 7 voxels with stride 2, then max pooling.
    Pictures of up to 32 pixels, such as CIFAR's, have a convolution of 3 pixels with stride 1 and
    no pooling, as in SimSiam's experiments.

    On a CPU it runs in single precision, even under autocast, because half-precision convolutions
    there are silently wrong at some sizes. With torch 2.13 and AVX-512 BF16, weight gradients of a
    kernel of 3 on 2 × 2 × 2 voxels were 1e36, inf or NaN; with AMX, outputs are wrong if a stride
    leaves a width of 1 (pytorch/pytorch#169688). The affected sizes depend on the processor, the
    threads and the content of memory, so that no test at start-up could find them all.

    Args:
        name: `resnet18` or `resnet50`.
        in_channels: channels of the image.
        image_size: voxels per axis, which decide the first layer; other sizes work too.

    Source:
        MONAI's `ResNet`; Chen & He 2021, appendix D, for small pictures.
    """

    def __init__(self, name: str, in_channels: int, image_size: Sequence[int]) -> None:
        block, layers = _LAYERS[name]
        small = len(image_size) == 2 and max(image_size) <= _SMALL_PICTURE
        super().__init__(
            block,
            layers,
            _WIDTHS,
            spatial_dims=len(image_size),
            n_input_channels=in_channels,
            conv1_t_size=3 if small else 7,
            conv1_t_stride=1 if small else 2,
            no_max_pool=small,
            feed_forward=False,
        )
        self.embed_dim = self.in_planes
        self.channels = in_channels
        self.image_size = tuple(image_size)
        stride = 8 if small else 32
        self.grid = tuple(-(-n // stride) for n in image_size)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch embed_dim"]:
        """The last stage's features, averaged over space."""
        return self._map(x).flatten(2).mean(dim=2)

    def _map(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> Float[Tensor, "batch embed_dim *grid"]:
        """The last stage's features."""
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._stages(x.to(self.conv1.weight.dtype))
        return self._stages(x)

    def _stages(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        if not self.no_max_pool:
            x = self.maxpool(x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def parts(self, block: int | None = None) -> list[nn.ModuleList]:
        """The first layer, then the four stages, whatever the argument."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        first = nn.ModuleList([self.conv1, self.bn1])
        return [first, *(nn.ModuleList([stage]) for stage in stages)]

    def features(
        self,
        images: Float[Tensor, "batch channel *space"],
        pool: str = "mean",
        block: int | None = None,
        kept: Float[Tensor, "batch block branch"] | None = None,
    ) -> Float[Tensor, "batch feature"]:
        """The last stage's features, pooled over its places; there are no blocks to choose from.

        Where `cls` is asked for, there is no such token: it is refused when a recipe is read.
        """
        places = self._map(images)
        tokens = places.flatten(2).transpose(1, 2)
        # `pool_tokens` skips the first token, which is a transformer's CLS token.
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        # Where an export traces it, a size is a tensor.
        return pool_tokens(tokens, pool, [int(n) for n in places.shape[2:]], images)
