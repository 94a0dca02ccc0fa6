"""ViT-AE++ (Prabhakar, Li et al. 2023), and plain ViT-AE where its additions weigh nothing.

L = L_rec + λ_per L_per + λ_edge(t) L_edge + λ_cl L_cl
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.profiler import record_function

from vitaepp.errors import RecipeError, WeightsError
from vitaepp.losses.contrastive import contrastive_loss
from vitaepp.losses.edge import edge_loss
from vitaepp.losses.perceptual import PerceptualLoss
from vitaepp.losses.reconstruction import patch_moments, reconstruction_loss
from vitaepp.methods.base import (
    Images,
    Method,
    Present,
    Progress,
    StepOutput,
    augmented_view,
    compared,
)
from vitaepp.nn.autoencoder import DECODERS, MaskedAutoencoder
from vitaepp.nn.heads import Predictor
from vitaepp.nn.patches import Mask, patchify, random_masks
from vitaepp.nn.pooling import pool_tokens
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.nn.vgg import VGG16, known_weights
from vitaepp.recipe.recipe import Recipe
from vitaepp.views import transforms
from vitaepp.views.draws import Draws


class ViTAE(Method):
    """Masked autoencoding with perceptual, edge and contrastive terms.

    View 1 is what is reconstructed; view 2 is augmented more strongly and serves the contrastive
    term only. Each has its own random mask. A term of weight 0 is not computed, and neither is the
    perceptual one without weights of a VGG; with the contrastive term alone (the first row of the
    paper's Table 3) there is no decoder.

    Modalities that an image lacks are 0 in both views and count in no term. Those that
    `views.modality_dropout` hides from the encoder are known, and so are reconstructed like hidden
    patches: the encoder learns to infer them (M3AE, MultiMAE).

    Args:
        recipe: every setting.
        shape: what the backbone is built from: arguments of `VisionTransformer`.
        rgb: the three channels are colours of one image.

    Raises:
        RecipeError: no loss, or nothing hidden or visible.
    """

    backbone: VisionTransformer

    def __init__(self, recipe: Recipe, shape: Mapping[str, Any], rgb: bool = False) -> None:
        super().__init__(recipe, shape, rgb)
        model, loss = recipe.model, recipe.loss
        vgg = known_weights(loss.perceptual.weights) if loss.perceptual.weight else "none"
        perceptual = loss.perceptual.model_copy(update={"weights": vgg})
        known = loss.model_copy(update={"perceptual": perceptual})
        if known.needs_decoder:
            width, depth, heads = DECODERS[model.size]
            self.backbone = MaskedAutoencoder(
                **shape,
                decoder_embed_dim=model.decoder_embed_dim or width,
                decoder_depth=model.decoder_depth or depth,
                decoder_num_heads=model.decoder_num_heads or heads,
            )
        elif known.terms:
            self.backbone = VisionTransformer(**shape)
        else:
            raise RecipeError("every loss has weight 0; give one of loss.*.weight more")
        check_mask_ratio(self.backbone.num_patches, model.mask_ratio)
        self.predictor: Predictor | None = None
        if loss.contrastive.weight:
            self.predictor = Predictor(self.backbone.embed_dim, norm=loss.contrastive.norm)
        self._edge_loss = edge_loss
        self.perceptual: PerceptualLoss | None = None
        if vgg != "none":
            settings = loss.perceptual
            self.perceptual = PerceptualLoss(
                _vgg(vgg),
                settings.slices,
                settings.axis,
                settings.channels,
                rgb,
                images=settings.images,
                relative=settings.relative,
            )
            try:
                self.perceptual.check(tuple(shape["image_size"]))
            except RecipeError as error:
                raise RecipeError(
                    f"{error}; choose another loss.perceptual.axis, or loss.perceptual.weight=0"
                ) from None

    @property
    def by_image(self) -> bool:
        """Whether every term is a mean over images: without a batch norm, they all are."""
        return self.predictor is None or self.recipe.loss.contrastive.norm != "batch"

    @property
    def replayable(self) -> bool:
        """Without a batch norm, whose statistics change beside, every step is alike."""
        return self.by_image

    def forward(
        self, images: Images, draws: Draws, progress: Progress, present: Present = None
    ) -> StepOutput:
        """Reconstruct view 1 and compare it with view 2."""
        recipe, model, views = self.recipe, self.backbone, self.recipe.views
        unit = transforms.zero_missing(images.float() / 255, present)
        seen = transforms.seen_modalities(unit.shape[1], present, draws, views)
        original = augmented_view(unit, draws, views, "first", present)
        target = patches = patchify(original, model.patch_size)
        if views.modality_dropout:
            patches = patchify(transforms.zero_missing(original, seen), model.patch_size)
        mask = random_masks(draws.uniform(model.num_patches), recipe.model.mask_ratio)
        visible = mask.visible
        if self.predictor is not None:
            second = augmented_view(unit, draws, views, "second", present)
            other = random_masks(draws.uniform(model.num_patches), recipe.model.mask_ratio)
            # One pass for both views: larger matrices, half the launches.
            patches = torch.cat([patches, patchify(second, model.patch_size)])
            visible = torch.cat([visible, other.visible])
        kept = self._kept_branches(draws, len(patches) // len(images))
        with record_function("encoder"):
            encoded = model.encode(patches, visible, kept)
        tokens = encoded[: len(images)]

        terms: dict[str, Tensor] = {}
        if isinstance(model, MaskedAutoencoder):
            decoded = decode(model, tokens, mask, target, recipe, present)
            terms = self._reconstruction_terms(model, decoded, mask, original, draws, present)
        z1 = None
        if self.predictor is not None:
            if recipe.loss.contrastive.features == "tokens":
                features = encoded.flatten(0, 1)
            else:
                features = pool_tokens(encoded, compared(recipe.model.pool))
            predicted = self.predictor(features).float()
            (p1, p2), (z1, z2) = predicted.chunk(2), features.float().chunk(2)
            terms["contrastive"] = contrastive_loss((p1, p2), (z1, z2))
        weights: dict[str, Progress] = {t: getattr(recipe.loss, t).weight for t in terms}
        if "edge" in terms:
            weights["edge"] = edge_weight(recipe, progress)
        return StepOutput(terms, weights, features=z1)

    def compile_parts(self, mode: str) -> None:
        """Encoder, decoder and the edge loss, which is a chain of many small operations."""
        compiled = partial(torch.compile, mode=mode, dynamic=False)
        # Functions are replaced and no modules, so that the weights keep their names.
        self.backbone.encode = compiled(self.backbone.encode)  # type: ignore[method-assign]
        if isinstance(self.backbone, MaskedAutoencoder):
            self.backbone.decode = compiled(self.backbone.decode)  # type: ignore[method-assign]
        self._edge_loss = compiled(self._edge_loss)

    def _reconstruction_terms(
        self,
        model: MaskedAutoencoder,
        decoded: Decoded,
        mask: Mask,
        original: Float[Tensor, "batch channel *space"],
        draws: Draws,
        present: Present,
    ) -> dict[str, Tensor]:
        loss = self.recipe.loss
        terms = {}
        if loss.reconstruction.weight:
            chosen = mask.hidden if loss.reconstruction.patches == "masked" else None
            terms["reconstruction"] = reconstruction_loss(
                decoded.prediction, decoded.target, chosen, present
            )
        # Assembled where a loss looks at it, and once.
        image = cache(lambda: model.assemble(decoded.patches))
        if self.perceptual is not None:
            needed = self.perceptual.draws_needed(tuple(original.shape[1:]))
            terms["perceptual"] = self.perceptual(
                image(), original, draws.uniform(needed), present, batch=len(draws.batch)
            )
        if loss.edge.weight:
            with record_function("edge loss"):
                terms["edge"] = self._edge_loss(
                    image(), original, blur=loss.edge.blur, present=present
                )
        return terms


def _vgg(weights: str) -> VGG16:
    try:
        return VGG16(weights)
    except WeightsError as error:
        raise RecipeError(f"loss.perceptual.weights={error}") from None


class Decoded(NamedTuple):
    """What the decoder gives for every patch, visible ones included.

    Attributes:
        prediction: its output.
        target: what the output is compared with; with `loss.reconstruction.normalize_targets`,
            patches that are standardised one by one.
        patches: the output as patches of the standardised image.
    """

    prediction: Float[Tensor, "batch patch value"]
    target: Float[Tensor, "batch patch value"]
    patches: Float[Tensor, "batch patch value"]


def decode(
    model: MaskedAutoencoder,
    tokens: Float[Tensor, "batch token embed_dim"],
    mask: Mask,
    patches: Float[Tensor, "batch patch value"],
    recipe: Recipe,
    present: Present = None,
) -> Decoded:
    """Predict every patch of standardised images from the encoded visible ones.

    Args:
        model: encoder and decoder.
        tokens: the encoder's output on the visible patches.
        mask: which these are.
        patches: all patches of the standardised images.
        recipe: every setting.
        present: channels that each image has; all without it.
    """
    with record_function("decoder"):
        prediction = model.decode(tokens, mask.visible).float()
    if not recipe.loss.reconstruction.normalize_targets:
        return Decoded(prediction, patches, prediction)
    mean, deviation = patch_moments(patches, present=present)
    return Decoded(prediction, (patches - mean) / deviation, prediction * deviation + mean)


@torch.inference_mode()
def reconstruct_images(
    method: ViTAE,
    images: Float[Tensor, "batch channel *space"],
    draws: Draws,
    present: Present = None,
) -> tuple[Float[Tensor, "batch channel *space"], Bool[Tensor, "batch channel *space"]]:
    """Hide patches as in training, without augmentation, and replace them by the prediction.

    Args:
        method: trained, with a decoder.
        images: intensities in [0, 255]; missing channels are 0, and stay so.
        draws: what the masks are drawn from.
        present: channels that each image has; all without it.

    Returns:
        The images with their hidden patches as the model predicts them, in [0, 255]; and which
        voxels were visible.
    """
    recipe, model = method.recipe, method.backbone
    assert isinstance(model, MaskedAutoencoder)
    unit, how = images / 255, (recipe.views.normalize, recipe.views.cohort)
    patches = patchify(transforms.standardize(unit, *how), model.patch_size)
    mask = random_masks(draws.uniform(model.num_patches), recipe.model.mask_ratio)
    decoded = decode(model, model.encode(patches, mask.visible), mask, patches, recipe, present)
    seen = torch.zeros_like(patches)
    seen.scatter_(1, mask.visible[..., None].expand(-1, -1, patches.shape[-1]), 1.0)
    visible = model.assemble(seen) > 0
    mean, deviation = transforms.channel_moments(unit, *how)
    filled = (model.assemble(decoded.patches) * deviation + mean) * 255
    return torch.where(visible, images, filled.clamp(0, 255)), visible


def check_mask_ratio(num_patches: int, mask_ratio: float) -> None:
    """Refuse a ratio that leaves nothing to see or nothing to predict.

    Raises:
        RecipeError: saying which.
    """
    visible = int(num_patches * (1 - mask_ratio))
    if not 0 < visible < num_patches:
        left = "no patch visible" if visible == 0 else "no patch hidden"
        raise RecipeError(
            f"model.mask_ratio={mask_ratio} of {num_patches} patches leaves {left}; "
            "choose another ratio or a smaller model.patch_size"
        )


def edge_weight(recipe: Recipe, progress: Progress) -> Progress:
    """λ_edge(t): falls linearly from its setting to 0 over the training.

    Source:
        Prabhakar et al. 2023, section 5: without the decay, training may diverge.
    """
    falling = recipe.loss.edge.decay == "linear"
    return recipe.loss.edge.weight * (1 - progress if falling else 1.0)
