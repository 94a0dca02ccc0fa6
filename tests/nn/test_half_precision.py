"""Gradients in half precision on a CPU, held against single precision by torch's own kernels.

torch hands convolutions and bf16 products on a CPU to oneDNN, which has been wrong at small sizes;
the reference is computed without it. Where the processor has no bf16, torch's own kernels make both
sides, and what is tested is our part of it.
"""

import pytest
import torch

from tests.conftest import TINY
from vitaepp.losses.contrastive import contrastive_loss
from vitaepp.losses.edge import edge_loss, gaussian_blur
from vitaepp.losses.info_nce import info_nce
from vitaepp.losses.perceptual import PerceptualLoss
from vitaepp.losses.reconstruction import reconstruction_loss
from vitaepp.methods import build_method
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.heads import Predictor, mlp_head
from vitaepp.nn.patches import patchify, random_masks
from vitaepp.nn.resnet import ResNet
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.nn.vgg import VGG16
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.draws import Draws

#: Off in the output and in a gradient. bf16 rounds by 0.4 % at most; the depth of VGG, where a ReLU
#: turns with the sign of what is near 0, makes 15 % of it in a gradient.
OUTPUT, GRADIENT = 0.03, 0.25


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def poison():
    """Leave NaN and 1e36 in the memory that is given out next, for kernels that forget to write."""
    sizes = [2**n for n in range(4, 21, 2)]
    blocks = [torch.full((n,), v) for n in sizes for v in (float("nan"), 1e36) for _ in range(2)]
    del blocks


def gradients(compute, inputs, half=None, onednn=True):
    """Output of a computation, and the gradients of its inputs (and parameters), by name."""
    for x in inputs.values():
        x.grad = None
    poison()
    torch.backends.mkldnn.enabled = onednn
    try:
        with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
            output = compute()
        output.backward(noise(*output.shape, seed=1).to(output.dtype) if output.ndim else None)
    finally:
        torch.backends.mkldnn.enabled = True
    return {"output": output.detach().float()} | {n: x.grad.float() for n, x in inputs.items()}


def trained(module):
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def of_module(module, *shape, call=None):
    """A module at an input of this shape, as `gradients` takes it."""
    x = noise(*shape).requires_grad_()
    return lambda: (call or module)(x), {"input": x} | trained(module)


def errors(found, wanted):
    """How far each is off, as a share of its size, or of a hundredth of the largest gradient.

    A bias in front of a norm has no gradient but what rounding leaves.
    """
    assert all(x.isfinite().all() for x in found.values())
    largest = max(x.norm().item() for name, x in wanted.items() if name != "output")
    return {
        name: (found[name] - x).norm().item()
        / max(x.norm().item(), (name != "output") * largest / 100, 1e-6)
        for name, x in wanted.items()
    }


# The last stage of the first sees 2 × 2 × 2 voxels, that of the second 1 × 1 × 1. Batch norms take
# their running statistics: over a batch of two, their gradient is ill-conditioned.
@pytest.mark.parametrize(
    ("size", "half"),
    [
        ((33, 33, 33), torch.bfloat16),
        ((9, 17, 5), torch.bfloat16),
        ((33, 40), torch.bfloat16),
        ((5, 3), torch.float16),
    ],
    ids=str,
)
def test_a_resnet_on_a_cpu_is_in_single_precision_whatever_autocast_says(size, half):
    torch.manual_seed(0)
    compute, inputs = of_module(ResNet("resnet18", 1, size).eval(), 2, 1, *size)
    found, plain = gradients(compute, inputs, half), gradients(compute, inputs)
    assert all(torch.equal(found[name], x) for name, x in plain.items())
    wanted = gradients(compute, inputs, onednn=False)
    assert max(errors(found, wanted).values()) < 1e-3


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(9, 7), (5, 7, 3)], ids=str)
def test_the_blur_of_an_edge_target_is_not_rounded(size, half):
    images = 255 * noise(2, 2, *size)
    with torch.autocast("cpu", half):
        blurred = gaussian_blur(images, 2.0)
    assert torch.equal(blurred, gaussian_blur(images, 2.0))


def vit_case(size, patch, pool):
    network = VisionTransformer(2, size, patch, embed_dim=48, depth=2, num_heads=4)
    return of_module(network, 2, 2, *size, call=lambda x: network.features(x, pool))


def autoencoder_case(size, patch):
    network = MaskedAutoencoder(1, size, patch, 48, 2, 4, 48, 1, 4)
    masks = random_masks(torch.rand(3, network.num_patches), 0.5)

    def restore(images):
        tokens = network.encode(patchify(images, patch), masks.visible)
        return network.assemble(network.decode(tokens, masks.visible))

    return of_module(network, 3, 1, *size, call=restore)


def perceptual_case(channels, size, **settings):
    loss = PerceptualLoss(VGG16("random"), **settings)
    target = noise(2, channels, *size, seed=2)
    draws = torch.rand(2, loss.draws_needed((channels, *size)))
    return of_module(loss, 2, channels, *size, call=lambda x: loss(x, target, draws))


def vgg_case(channels, height, width):
    network = VGG16("random")
    return of_module(
        network,
        *(3, channels, height, width),
        call=lambda x: torch.cat([level.flatten() for level in network.levels(x.sigmoid())]),
    )


def edge_case(size, blur):
    target = noise(2, 2, *size, seed=2)
    return of_module(
        torch.nn.Identity(), 2, 2, *size, call=lambda x: edge_loss(x, target, blur=blur)
    )


def head_case(network, batch, width):
    return of_module(network, batch, width)


def features_case(loss, batch, width):
    other = noise(batch, width, seed=2)
    calls = {
        "contrastive": lambda x: contrastive_loss((x, x.flip(1)), (other, other.flip(0))),
        "info_nce": lambda x: info_nce(x, other, 0.2),
        "reconstruction": lambda x: reconstruction_loss(x[None], other[None]),
    }
    return of_module(torch.nn.Identity(), batch, width, call=calls[loss])


#: Every network and loss, at small and odd sizes.
CASES = {
    "vit 2D": (vit_case, (9, 15), (3, 5), "mean"),
    "vit 2D, one patch": (vit_case, (4, 4), (4, 4), "cls"),
    "vit 3D": (vit_case, (6, 9, 3), (2, 3, 3), "cls"),
    "vit 3D, one voxel thick": (vit_case, (8, 8, 1), (4, 4, 1), "mean"),
    "vit of 600 tokens": (vit_case, (24, 25), (1, 1), "mean"),
    "autoencoder 2D": (autoencoder_case, (9, 15), (3, 5)),
    "autoencoder 3D": (autoencoder_case, (7, 6, 4), (7, 2, 2)),
    **{
        f"vgg {channels} × {height} × {width}": (vgg_case, channels, height, width)
        for channels in (1, 3)
        for height, width in ((8, 8), (9, 17), (16, 8), (31, 33))
    },
    "perceptual 2D": (perceptual_case, 2, (9, 13)),
    "perceptual 3D": (perceptual_case, 2, (8, 9, 11)),
    "perceptual, colours": (lambda: perceptual_case(3, (8, 8), rgb=True),),
    **{
        f"edge {size}, blur {blur}": (edge_case, size, blur)
        for size in ((1, 1), (2, 3), (9, 7), (1, 1, 1), (2, 2, 2), (5, 7, 3))
        for blur in (0.0, 2.0)
    },
    "predictor": (lambda: head_case(Predictor(50), 3, 50),),
    "projector": (lambda: head_case(mlp_head((33, 17, 9), last_norm=True), 64, 33),),
    "prediction head": (lambda: head_case(mlp_head((33, 17, 9), last_norm=False), 64, 33),),
    **{
        f"{loss} {batch} × {width}": (features_case, loss, batch, width)
        for loss in ("contrastive", "info_nce", "reconstruction")
        for batch, width in ((2, 3), (5, 33), (4, 512))
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_in_bf16_are_those_of_single_precision(case):
    torch.manual_seed(0)
    make, *arguments = CASES[case]
    compute, inputs = make(*arguments)
    wanted = gradients(compute, inputs, onednn=False)
    off = errors(gradients(compute, inputs, torch.bfloat16), wanted)
    assert off.pop("output") < OUTPUT, off
    assert max(off.values()) < GRADIENT, off


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9, 15), (33, 17, 9), (33, 33, 33)], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        ("vitae++", "loss.perceptual.weight=1", "loss.edge.blur=2"),
        ("vitae",),
        ("simsiam",),
        ("mocov3",),
    ],
    ids=str,
)
def test_gradients_of_a_step_in_bf16_are_those_of_single_precision(settings, size):
    patch = {9: "[3,1,3]", 15: 3, 33: 11}[size[-1]]
    name, *others = settings
    chosen = (*TINY, f"method={name}", *others, f"model.patch_size={patch}")
    method = build_method(Recipe.load(settings=chosen), 1, size)
    for part in method.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.eval()
    blocks = torch.rand(3, 1, *(3,) * len(size), generator=torch.Generator().manual_seed(0))
    images = 255 * torch.nn.functional.interpolate(blocks, size)  # images of noise are all alike

    def loss():
        return method(images, Draws(0, 0, range(3)), progress=0.0).loss

    inputs = trained(method)
    wanted = gradients(loss, inputs, onednn=False)
    off = errors(gradients(loss, inputs, torch.bfloat16), wanted)
    off.pop("output")  # a loss may be near 0
    # An untrained network tells images hardly apart, and MoCo's temperature enlarges what rounding
    # leaves of the difference.
    assert max(off.values()) < (0.6 if name == "mocov3" else GRADIENT), off
