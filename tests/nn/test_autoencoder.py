"""The autoencoder against Hugging Face's, and its own properties."""

import pytest
import torch
from safetensors.torch import save_file

from vitaepp.errors import RecipeError
from vitaepp.losses.reconstruction import reconstruction_loss
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.patches import patchify, random_masks
from vitaepp.nn.transformer import SIZES, VisionTransformer, attend


def small(in_channels=3, image_size=(24, 32), patch_size=(8, 8), **changes):
    shape = {"embed_dim": 32, "depth": 2, "num_heads": 4} | changes
    return MaskedAutoencoder(
        in_channels,
        image_size,
        patch_size,
        **shape,
        decoder_embed_dim=24,
        decoder_depth=2,
        decoder_num_heads=3,
    )


def hugging_face_names(state):
    """Rename MAE's keys to those of transformers, which splits qkv."""
    renamed = {}
    for key, value in state.items():
        part = key
        for old, new in (
            ("decoder_blocks.", "decoder.decoder_layers."),
            ("decoder_pos_embed", "decoder.decoder_pos_embed"),
            ("decoder_embed.", "decoder.decoder_embed."),
            ("decoder_norm.", "decoder.decoder_norm."),
            ("decoder_pred.", "decoder.decoder_pred."),
            ("mask_token", "decoder.mask_token"),
            ("patch_embed.proj.", "vit.embeddings.patch_embeddings.projection."),
            ("cls_token", "vit.embeddings.cls_token"),
        ):
            if part.startswith(old):
                part = part.replace(old, new, 1)
                break
        else:
            if part.startswith("blocks."):
                part = part.replace("blocks.", "vit.encoder.layer.", 1)
            elif part == "pos_embed":
                part = "vit.embeddings.position_embeddings"
            else:
                part = f"vit.layernorm.{part.removeprefix('norm.')}"
        for old, new in (
            (".norm1.", ".layernorm_before."),
            (".norm2.", ".layernorm_after."),
            (".attn.proj.", ".attention.output.dense."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
        ):
            part = part.replace(old, new)
        if ".attn.qkv." in part:
            for name, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[part.replace(".attn.qkv.", f".attention.attention.{name}.")] = third
        else:
            renamed[part] = value
    return renamed


def test_agrees_with_hugging_face_for_the_same_weights_and_mask(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = small(image_size=(32, 32)).eval()
    config = transformers.ViTMAEConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        decoder_hidden_size=24,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=96,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
        mask_ratio=0.75,
    )
    # Published checkpoints have the names below; every version of transformers reads them.
    config.save_pretrained(tmp_path)
    state = {k: v.contiguous() for k, v in hugging_face_names(ours.state_dict()).items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, loading = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    theirs.eval()
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        result = theirs(images, noise=noise)
        mask = random_masks(noise, 0.75)
        patches = patchify(images, (8, 8))
        prediction = ours.decode(ours.encode(patches, mask.visible), mask.visible)
        loss = reconstruction_loss(prediction, patches, mask.hidden)
    assert torch.allclose(prediction, result.logits, atol=1e-5)
    assert torch.allclose(loss, result.loss, atol=1e-5)


def test_a_picture_equals_a_volume_one_voxel_thick():
    torch.manual_seed(0)
    flat = small(1, (16, 24), (8, 8))
    thick = small(1, (16, 24, 1), (8, 8, 1))
    state = flat.state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][..., None]
    thick.load_state_dict(state)
    images = torch.randn(2, 1, 16, 24)
    assert torch.allclose(flat(images), thick(images[..., None]), atol=1e-6)


def test_embedding_patches_is_the_strided_convolution():
    model = small(2, (16, 24, 8), (8, 4, 2))
    images = torch.randn(2, 2, 16, 24, 8)
    convolved = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
    embedded = model.patch_embed(patchify(images, (8, 4, 2)))
    assert torch.allclose(embedded, convolved, atol=1e-5)


def test_hidden_patches_do_not_reach_the_encoder_and_order_does_not_matter():
    model = small().eval()
    patches = torch.randn(2, model.num_patches, 192)
    mask = random_masks(torch.rand(2, model.num_patches), 0.5)
    changed = patches.clone()
    changed.scatter_(1, mask.hidden[..., None].expand(-1, -1, 192), 99.0)
    tokens = model.encode(patches, mask.visible)
    assert torch.equal(tokens, model.encode(changed, mask.visible))
    flipped = model.encode(patches, mask.visible.flip(1))
    assert torch.allclose(tokens[:, 1:], flipped[:, 1:].flip(1), atol=1e-5)
    everything = torch.arange(model.num_patches).expand(2, -1)
    assert torch.allclose(model.encode(patches), model.encode(patches, everything), atol=1e-6)
    assert torch.allclose(model.encode(patches)[1:], model.encode(patches[1:]), atol=1e-5)


def test_the_same_seed_gives_the_same_encoder_with_and_without_decoder():
    torch.manual_seed(3)
    alone = VisionTransformer(3, (24, 32), (8, 8), 32, 2, 4)
    torch.manual_seed(3)
    whole = small()
    for name, value in alone.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_sizes_that_do_not_divide_are_refused_by_name():
    with pytest.raises(RecipeError, match=r"^embed_dim=30 is not a multiple of num_heads=4"):
        small(embed_dim=30)
    with pytest.raises(RecipeError, match="positions need an even width"):
        small(embed_dim=4, num_heads=4, image_size=(8, 8, 8), patch_size=(8, 8, 8))


def test_named_sizes_are_the_published_ones():
    width, depth, heads = SIZES["base"]
    with torch.device("meta"):
        model = VisionTransformer(3, (224, 224), (16, 16), width, depth, heads)
    # ViT-B/16 has 86.6 M parameters with its classifier of 1000 classes, and a position table.
    assert sum(p.numel() for p in model.parameters()) == 85_798_656 - 197 * 768


@pytest.mark.parametrize("tokens", [1, 17, 65])
def test_short_attention_in_bf16_equals_fused_attention_to_rounding(tokens):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, tokens, 8).bfloat16().requires_grad_() for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=2e-2, rtol=2e-2)
    pull = torch.randn_like(wanted)
    for mine, exact in zip(
        torch.autograd.grad(found, (q, k, v), pull.bfloat16()),
        torch.autograd.grad(wanted, (q, k, v), pull),
        strict=True,
    ):
        torch.testing.assert_close(mine.float(), exact.float(), atol=4e-2, rtol=4e-2)
