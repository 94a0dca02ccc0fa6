"""Weights of other libraries compute in this one what they compute there."""

import argparse
import json
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from tests.conftest import LIGHT, write_store
from vitaepp import Encoder, pretrain
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.errors import RunError
from vitaepp.nn.autoencoder import MaskedAutoencoder
from vitaepp.nn.backbones import build_backbone
from vitaepp.nn.patches import patchify, random_masks
from vitaepp.nn.positions import sincos_positions
from vitaepp.nn.transformer import VisionTransformer
from vitaepp.weights.adapt import initialize_from
from vitaepp.weights.resize import (
    area_resize,
    fit_channels,
    fit_kernel,
    fit_positions,
    resize_kernel,
    sincos_layout,
)
from vitaepp.weights.runs import load_method

ENCODER = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 128,
}


def encoder(channels=3, size=(32, 32), patch=(8, 8), dim=48, depth=2, heads=4):
    return VisionTransformer(channels, size, patch, dim, depth, heads).eval()


def autoencoder(channels=3, size=(32, 32), patch=(8, 8), dim=48, depth=2, heads=4, decoder=None):
    return MaskedAutoencoder(
        channels, size, patch, dim, depth, heads, *(decoder or (32, 1, 2))
    ).eval()


def randomized(model):
    """Every tensor drawn anew, so that none is at a value that hides a mistake."""
    for tensor in model.parameters():
        if tensor.requires_grad:
            nn.init.normal_(tensor, std=0.2)
    return model.eval()


def released_positions(side, dim, ndim=3):
    """The table that the code of MAE (2D) and of ViT-AE++ (3D) makes: meshgrid swaps two axes."""
    first = dim // ndim + (dim // ndim) % 2
    grids = np.meshgrid(*[np.arange(side, dtype=np.float32)] * ndim)
    parts = []
    for axis, grid in enumerate(grids):
        width = dim - axis * first if axis == ndim - 1 else first
        angles = grid.reshape(-1, 1) / 10000 ** (np.arange(width // 2) / (width / 2))
        parts += [np.sin(angles), np.cos(angles)]
    table = np.concatenate([np.zeros((1, dim)), np.concatenate(parts, axis=1)])
    return torch.from_numpy(table).float()[None]


@pytest.fixture(scope="module")
def mae(transformers):
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(**ENCODER, **DECODER)
    model = randomized(transformers.ViTMAEForPreTraining(config))
    # Published files have this table; transformers 5 leaves zeros in a new model.
    model.vit.embeddings.position_embeddings.data = released_positions(4, 48, ndim=2)
    model.decoder.decoder_pos_embed.data = released_positions(4, 32, ndim=2)
    return model


@pytest.fixture(scope="module")
def vit(transformers):
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(**ENCODER), add_pooling_layer=False)
    return randomized(model)  # learned positions, also of the CLS token


def timm_names(state):
    """Hugging Face's tensors under the names of timm and MAE."""
    named = {}
    for name, tensor in state.items():
        name = name.removeprefix("vit.").removeprefix("decoder.")
        for old, new in (
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("decoder_layers.", "decoder_blocks."),
            ("layers.", "blocks."),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("layernorm.", "norm."),
            ("attention.o_proj", "attn.proj"),
        ):
            name = name.replace(old, new)
        named[name] = tensor.detach().clone()
    for name in [n for n in named if ".attention.q_proj." in n]:
        parts = [named.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        named[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return named


def write(form, model, folder):
    """A model in one of the forms in which it is published."""
    folder.mkdir(exist_ok=True)
    file = folder / {"safetensors": "x.safetensors"}.get(form, "x.pth")
    if form == "folder":
        model.save_pretrained(folder)
        return folder
    if form == "file":
        model.save_pretrained(folder)
        return folder / "model.safetensors"
    if form == "bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        return folder
    if form == "safetensors":
        save_file(timm_names(model.state_dict()), file)
    elif form == "meta":
        torch.save({"model": timm_names(model.state_dict())}, file)
    elif form == "lightning":
        state = {f"model.module.{k}": v for k, v in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [{"state": {}}]}, file)
    elif form == "names of transformers 4":
        state = {}
        for name, tensor in model.state_dict().items():
            for new, old in (
                ("decoder_layers.", "DECODER"),
                ("layers.", "encoder.layer."),
                ("DECODER", "decoder_layers."),
                ("q_proj", "attention.query"),
                ("k_proj", "attention.key"),
                ("v_proj", "attention.value"),
                ("attention.o_proj", "attention.output.dense"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
            ):
                name = name.replace(new, old)
            state[name] = tensor
        torch.save(state, file)
    return file


FORMS = ["folder", "file", "bin", "safetensors", "meta", "lightning", "names of transformers 4"]


@pytest.mark.parametrize("form", FORMS)
def test_masked_autoencoders_of_hugging_face_and_meta_compute_the_same(mae, tmp_path, form):
    ours = autoencoder()
    initialize_from(ours, write(form, mae, tmp_path / "x"))
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    mask = random_masks(noise, mae.config.mask_ratio)
    with torch.no_grad():
        theirs = mae(images, noise=noise)
        tokens = ours.encode(patchify(images, (8, 8)), mask.visible)
        predicted = ours.decode(tokens, mask.visible)
    torch.testing.assert_close(predicted, theirs.logits, atol=1e-4, rtol=1e-4)


def test_every_token_of_a_masked_autoencoder_is_the_same(mae, tmp_path, monkeypatch):
    monkeypatch.setattr(mae.vit.config, "mask_ratio", 0.0)
    ours = encoder()
    initialize_from(ours, write("folder", mae, tmp_path / "x"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        in_order = torch.arange(16.0).expand(2, -1)
        theirs = mae.vit(images, noise=in_order).last_hidden_state
        torch.testing.assert_close(ours(images), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_vision_transformers_with_learned_positions_compute_the_same(vit, tmp_path, form):
    ours = encoder()
    initialize_from(ours, write(form, vit, tmp_path / "x"))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = vit(images).last_hidden_state
        torch.testing.assert_close(ours(images), theirs, atol=1e-4, rtol=1e-4)


def test_learned_positions_are_interpolated_as_hugging_face_does(vit, tmp_path):
    ours = encoder(size=(48, 24))
    initialize_from(ours, write("folder", vit, tmp_path / "x"))
    images = torch.randn(2, 3, 48, 24)
    with torch.no_grad():
        theirs = vit(images, interpolate_pos_encoding=True).last_hidden_state
        torch.testing.assert_close(ours(images), theirs, atol=1e-4, rtol=1e-4)


def test_the_grid_of_a_learned_table_is_read_from_its_config(transformers, tmp_path, capsys):
    config = transformers.ViTConfig(**ENCODER | {"image_size": [64, 16]})
    model = randomized(transformers.ViTModel(config, add_pooling_layer=False))
    folder = write("folder", model, tmp_path / "x")
    ours = encoder(size=(64, 16))  # as many patches as a square of 4 × 4
    initialize_from(ours, folder)
    assert torch.equal(ours.pos_embed, model.embeddings.position_embeddings)
    initialize_from(encoder(size=(32, 32)), folder)
    assert "interpolated from 8×2 to 4×4" in capsys.readouterr().err


def test_a_classifier_leaves_its_head_and_says_so(transformers, tmp_path, capsys):
    config = transformers.ViTConfig(**ENCODER)
    model = randomized(transformers.ViTForImageClassification(config))
    ours = encoder()
    initialize_from(ours, write("folder", model, tmp_path / "x"))
    assert "encoder loaded; left out: classifier\n" in capsys.readouterr().err
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = model.vit(images).last_hidden_state
        torch.testing.assert_close(ours(images), theirs, atol=1e-4, rtol=1e-4)


def test_forms_of_timm(vit, tmp_path, capsys):
    state = timm_names(vit.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        theirs = vit(images).last_hidden_state

    def ours(changed):
        torch.save(changed, tmp_path / "x.pth")
        model = encoder()
        initialize_from(model, tmp_path / "x.pth")
        with torch.no_grad():
            return model(images)

    heads = {"head.weight": torch.randn(5, 48), "head.bias": torch.randn(5)}
    torch.testing.assert_close(ours(state | heads), theirs, atol=1e-4, rtol=1e-4)
    assert "left out: head\n" in capsys.readouterr().err
    # Fine-tuned with average pooling: the norm stands behind the pooling, and has another name.
    pooled = {
        k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: state[k] for k in state
    }
    torch.testing.assert_close(ours(pooled), theirs, atol=1e-4, rtol=1e-4)
    assert "norm from fc_norm" in capsys.readouterr().err
    # no_embed_class: the CLS token has no row of its own.
    bare = state | {"pos_embed": state["pos_embed"][:, 1:]}
    moved = state | {"pos_embed": state["pos_embed"].clone()}
    moved["pos_embed"][:, 0] = 0
    torch.testing.assert_close(ours(bare), ours(moved))
    # qkv_bias=False
    without = {k: v for k, v in state.items() if not k.endswith("qkv.bias")}
    zeros = {k: torch.zeros_like(v) if k.endswith("qkv.bias") else v for k, v in state.items()}
    torch.testing.assert_close(ours(without), ours(zeros))
    # half precision, as files often are
    half = {k: v.half() for k, v in state.items()}
    torch.testing.assert_close(ours(half), theirs, atol=0.05, rtol=0.05)


def test_a_layer_scale_is_multiplied_in(vit, tmp_path):
    state = timm_names(vit.state_dict())
    scales = {f"blocks.{i}.ls{j}.gamma": torch.rand(48) for i in range(2) for j in (1, 2)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save(state | scales, tmp_path / "scaled.pth")
    plain, scaled = encoder(), encoder()
    initialize_from(plain, tmp_path / "plain.pth")
    initialize_from(scaled, tmp_path / "scaled.pth")
    for i, block in enumerate(plain.blocks):
        for part, j in ((block.attn, 1), (block.mlp, 2)):
            gamma = scales[f"blocks.{i}.ls{j}.gamma"]
            part.register_forward_hook(lambda _, __, output, gamma=gamma: output * gamma)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(scaled(images), plain(images), atol=1e-5, rtol=1e-4)


# Channels, patches, volumes


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_equal_channels_have_the_embedding_of_grey_rgb(channels):
    kernel, grey = torch.randn(7, 3, 4, 4), torch.randn(5, 1, 4, 4)
    rgb = torch.einsum("dcij,bcij->bd", kernel, grey.expand(-1, 3, -1, -1))
    adapted = fit_channels(kernel, channels)
    assert adapted.shape == (7, channels, 4, 4)
    same = torch.einsum("dcij,bcij->bd", adapted, grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(same, rgb, atol=1e-4, rtol=1e-4)


sides = st.integers(2, 17)


@settings(max_examples=25, deadline=None)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides))
def test_a_resized_kernel_answers_to_a_resized_patch(old, new):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(3, 2, *old, generator=generator, dtype=torch.float64)
    resized = resize_kernel(kernel, new)
    assert resized.shape == (3, 2, *new)
    # Constant patches keep their embedding, whatever the sizes.
    torch.testing.assert_close(resized.sum(dim=(2, 3)), kernel.sum(dim=(2, 3)))
    rows, columns = (area_resize(o, n) for o, n in zip(old, new, strict=True))
    patches = torch.randn(4, 2, *old, generator=generator, dtype=torch.float64)
    if any(o > n for o, n in zip(old, new, strict=True)):
        # What is lost in resizing is lost: only patches without it keep their embedding.
        patches = torch.linalg.pinv(rows) @ rows @ patches
        patches = patches @ (torch.linalg.pinv(columns) @ columns).T
    smaller = rows @ patches @ columns.T
    before = torch.einsum("dcij,bcij->bd", kernel, patches)
    after = torch.einsum("dcij,bcij->bd", resized, smaller)
    torch.testing.assert_close(after, before)


def test_half_the_patch_is_the_sum_over_pairs_of_the_kernel():
    kernel = torch.randn(3, 2, 16, 16)
    summed = kernel.unfold(2, 2, 2).unfold(3, 2, 2).sum(dim=(-1, -2))
    torch.testing.assert_close(resize_kernel(kernel, (8, 8)), summed)


def test_a_volume_that_is_constant_along_the_new_axis_embeds_like_its_slice():
    kernel, images = torch.randn(7, 3, 8, 8), torch.randn(5, 3, 8, 8)
    inflated, notes = fit_kernel(kernel, (7, 3, 8, 8, 4))
    assert inflated.shape == (7, 3, 8, 8, 4)
    assert "inflated" in notes[0]
    flat = torch.einsum("dcij,bcij->bd", kernel, images)
    volumes = images[..., None].expand(-1, -1, -1, -1, 4)
    deep = torch.einsum("dcijk,bcijk->bd", inflated, volumes)
    torch.testing.assert_close(deep, flat, atol=1e-4, rtol=1e-4)


def test_images_start_volumes(mae, tmp_path, capsys):
    ours = autoencoder(channels=4, size=(16, 16, 24), patch=(8, 8, 4))
    fresh = autoencoder(channels=4, size=(16, 16, 24), patch=(8, 8, 4)).state_dict()
    initialize_from(ours, write("folder", mae, tmp_path / "x"))
    said = capsys.readouterr().err
    assert "encoder and decoder loaded; 3 channels adapted to 4; inflated to volumes" in said
    assert said.endswith("positions computed anew for 2×2×6 patches; starts fresh: decoder_pred\n")
    state = ours.state_dict()
    assert torch.equal(state["pos_embed"], fresh["pos_embed"])
    assert torch.equal(state["decoder_pos_embed"], fresh["decoder_pos_embed"])
    theirs = timm_names(mae.state_dict())
    for name in ("cls_token", "blocks.1.attn.qkv.weight", "decoder_blocks.0.mlp.fc2.bias"):
        assert torch.equal(state[name], theirs[name])
    volume = torch.randn(1, 1, 8, 8, 1).expand(1, 4, 8, 8, 4)
    grey = volume[:, :1, ..., 0].expand(1, 3, 8, 8)
    with torch.no_grad():
        deep = ours.patch_embed(patchify(volume, (8, 8, 4)))
        flat = mae.vit.embeddings.patch_embeddings(grey)
    torch.testing.assert_close(deep, flat, atol=1e-5, rtol=1e-4)


# Positions


def test_maes_positions_are_ours_and_are_computed_anew_for_another_grid():
    table = released_positions(4, 48, ndim=2)
    torch.testing.assert_close(table, sincos_positions((4, 4), 48)[None], atol=1e-5, rtol=0)
    larger, how = fit_positions(table, 2, None, (7, 5))
    assert how == "computed anew from 4×4 to 7×5 patches"
    torch.testing.assert_close(larger, sincos_positions((7, 5), 48)[None])


def test_checkpoints_released_with_the_paper_keep_their_positions(tmp_path, capsys):
    trained = randomized(autoencoder(channels=4, size=(24,) * 3, patch=(8,) * 3))
    state = {f"module.{name}": tensor for name, tensor in trained.state_dict().items()}
    state["module.pos_embed"] = released_positions(3, 48)
    state["module.decoder_pos_embed"] = released_positions(3, 32)
    assert not torch.allclose(state["module.pos_embed"], trained.pos_embed, atol=0.1)
    state["module.predictor.0.weight"] = torch.randn(12, 48)
    state["module.perceptual_loss.vgg.0.weight"] = torch.randn(3, 3)
    whole = {
        "model": state,
        "optimizer": torch.optim.AdamW(trained.parameters()).state_dict(),
        "epoch": 999,
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "args": argparse.Namespace(model="mae_vit_base_patch16", blr=1e-3, output_dir="out"),
    }
    torch.save(whole, tmp_path / "checkpoint-999.pth")
    ours = autoencoder(channels=4, size=(24,) * 3, patch=(8,) * 3)
    initialize_from(ours, tmp_path / "checkpoint-999.pth")
    assert capsys.readouterr().err.endswith(
        "encoder and decoder loaded; left out: perceptual_loss, predictor\n"
    )
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, state[f"module.{name}"]), name
    # Another grid continues the table that the weights know.
    larger = autoencoder(channels=4, size=(40,) * 3, patch=(8,) * 3)
    initialize_from(larger, tmp_path / "checkpoint-999.pth")
    torch.testing.assert_close(larger.pos_embed, released_positions(5, 48), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        larger.decoder_pos_embed, released_positions(5, 32), atol=1e-5, rtol=0
    )


def test_a_table_that_is_not_of_sines_is_not_taken_for_one():
    assert sincos_layout(sincos_positions((3, 4), 48)[1:], (3, 4)) == ((1, 0), (24, 24))
    assert sincos_layout(torch.rand(12, 48), (3, 4)) is None
    learned = torch.randn(1, 9, 48)
    volume, how = fit_positions(learned, 3, None, (4, 2, 2))
    assert how == "interpolated from 2×2×2 to 4×2×2 patches"
    assert torch.equal(volume[:, 0], learned[:, 0])
    halves = volume[0, 1:].reshape(4, 4, 48)
    torch.testing.assert_close(halves[0], learned[0, 1:5])  # the ends stay
    torch.testing.assert_close(halves[3], learned[0, 5:])


# Volumes, against an independent implementation


def monai_names(state, depth, decoder_depth):
    """MONAI's `MaskedAutoEncoderViT` under MAE's names; its CLS token has no position."""
    named = {}
    for name, tensor in state.items():
        if "cross_attn" in name:
            continue  # parts that are there and never used
        for old, new in (
            ("patch_embedding.patch_embeddings", "patch_embed.proj"),
            ("patch_embedding.position_embeddings", "pos_embed"),
            ("decoder_pos_embedding", "decoder_pos_embed"),
            ("mask_tokens", "mask_token"),
            ("attn.out_proj", "attn.proj"),
            ("mlp.linear1", "mlp.fc1"),
            ("mlp.linear2", "mlp.fc2"),
            (f"decoder_blocks.{decoder_depth}.", "decoder_norm."),
        ):
            name = name.replace(old, new)
        named[re.sub(rf"^blocks\.{depth}\.", "norm.", name)] = tensor
    return named


def test_volumes_are_encoded_and_decoded_as_monai_does(tmp_path):
    nets = pytest.importorskip("monai.networks.nets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its meshgrid does not say its indexing
        theirs = randomized(
            nets.MaskedAutoEncoderViT(
                in_channels=2,
                img_size=(16, 24, 32),
                patch_size=(8, 8, 8),
                hidden_size=48,
                mlp_dim=192,
                num_layers=2,
                num_heads=4,
                decoder_hidden_size=36,
                decoder_mlp_dim=144,
                decoder_num_layers=3,
                decoder_num_heads=2,
                qkv_bias=True,
            )
        )
    for part in theirs.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-6  # MAE's; MONAI has torch's default of 1e-5
    torch.save(monai_names(theirs.state_dict(), 2, 3), tmp_path / "monai.pt")
    ours = autoencoder(2, (16, 24, 32), (8, 8, 8), decoder=(36, 3, 2))
    initialize_from(ours, tmp_path / "monai.pt")
    images = torch.randn(3, 2, 16, 24, 32)
    tokens = {}
    theirs.blocks.register_forward_hook(lambda _, __, output: tokens.update(encoded=output))
    picked = {}
    masking = theirs._masking

    def remember(x, masking_ratio=None):
        picked["masked"] = masking(x, masking_ratio)
        return picked["masked"]

    theirs._masking = remember
    with torch.no_grad():
        predicted, _ = theirs(images)
        visible = picked["masked"][1]  # in its order, which is random
        encoded = ours.encode(patchify(images, (8, 8, 8)), visible)
        torch.testing.assert_close(encoded, tokens["encoded"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.decode(encoded, visible), predicted, atol=1e-4, rtol=1e-4)


# This library's own, and other networks


def test_own_runs_start_others(make_store, tmp_path, capsys):
    store = make_store()
    run = pretrain(store.path, tmp_path / "run", settings=(*LIGHT, "optim.epochs=1"))
    trained = load_method(run)[0].backbone.state_dict()
    shape = (2, (16,) * 3, (8,) * 3, 48, 2, 4)
    for path, whole in ((run, 0), (run / "encoder", 0), (run / "last.ckpt", 1)):
        ours = MaskedAutoencoder(*shape, 48, 1, 4)
        fresh = ours.decoder_embed.weight.detach().clone()
        capsys.readouterr()
        initialize_from(ours, path)
        said = capsys.readouterr().err
        for name, tensor in ours.state_dict().items():
            if whole or not name.startswith(("decoder", "mask")):
                assert torch.equal(tensor, trained[name]), name
        assert torch.equal(ours.decoder_embed.weight, fresh) != whole
        assert said == f"model.init={path}: " + (
            "encoder and decoder loaded\n" if whole else "encoder loaded; starts fresh: decoder\n"
        )
    # The grid is known from the run, where the number of patches alone would mislead.
    other = MaskedAutoencoder(2, (32, 16, 8), (8,) * 3, 48, 2, 4, 48, 1, 4)
    own = other.pos_embed.clone()
    initialize_from(other, run)
    assert torch.equal(other.pos_embed, own)


@pytest.fixture(scope="module")
def of_three(tmp_path_factory):
    """Runs on a, b, c, of a transformer and of a ResNet."""
    root, short = tmp_path_factory.mktemp("three"), ("optim.epochs=1", "optim.batch_size=4")
    store = write_store(root / "store", 4, modalities=("a", "b", "c")).path
    pretrain(store, root / "vit", settings=(*LIGHT, *short))
    resnet = ("method=simsiam", "model.backbone=resnet18", "trainer.precision=32", *short)
    pretrain(store, root / "resnet", settings=resnet)
    return root


@pytest.mark.parametrize("part", ["", "encoder", "last.ckpt"])
@pytest.mark.parametrize("want", ["cab", "b", "ca", "dbae"])
def test_channels_of_own_runs_are_matched_by_name(of_three, part, want, capsys):
    path = of_three / "vit" / part
    before = load_method(of_three / "vit")[0].backbone.eval()
    info = StoreInfo(tuple(want), (16,) * 3, (1.0,) * 3, "float16", "image")
    ours = MaskedAutoencoder(len(want), (16,) * 3, (8,) * 3, 48, 2, 4, 48, 1, 4).eval()
    initialize_from(ours, path, info)
    images = {name: torch.randn(2, 1, 16, 16, 16) for name in "abcde"}
    zero = torch.zeros(2, 1, 16, 16, 16)
    theirs = torch.cat([images[name] if name in want else zero for name in "abc"], dim=1)
    mine, visible = torch.cat([images[name] for name in want], dim=1), torch.arange(4).repeat(2, 1)
    tokens = [n.encode(patchify(x, (8,) * 3), visible) for n, x in ((before, theirs), (ours, mine))]
    torch.testing.assert_close(*tokens, atol=1e-5, rtol=1e-5)
    if part == "last.ckpt":  # which has the decoder, too
        known, made = (
            n.decode(t, visible).unflatten(2, (-1, c))
            for n, t, c in ((before, tokens[0], 3), (ours, tokens[1], len(want)))
        )
        for i, name in enumerate(want):
            expected = known[..., "abc".index(name)] if name in "abc" else 0 * made[..., i]
            torch.testing.assert_close(made[..., i], expected, atol=1e-5, rtol=1e-5)
    told = capsys.readouterr().err
    assert f"channels by name: {', '.join(n for n in want if n in 'abc')}" in told
    assert ("new, starting at zero: d, e" in told) == (want == "dbae")
    assert ("not in the store: c" in told) == (want == "dbae")
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("part", ["", "last.ckpt"])
def test_channels_of_an_own_resnet_are_matched_by_name(of_three, part):
    before = Encoder.from_pretrained(of_three / "resnet").backbone
    ours = build_backbone("resnet18", {"in_channels": 2, "image_size": (16,) * 3}).eval()
    info = StoreInfo(("c", "a"), (16,) * 3, (1.0,) * 3, "float16", "image")
    initialize_from(ours, of_three / "resnet" / part, info)
    x = torch.randn(2, 3, 16, 16, 16)
    x[:, 1] = 0
    torch.testing.assert_close(ours(x[:, [2, 0]]), before(x), atol=1e-5, rtol=1e-5)


def test_other_names_are_taken_in_order_and_another_preparation_is_told(of_three, capsys):
    before = Encoder.from_pretrained(of_three / "vit").backbone
    ours = MaskedAutoencoder(3, (8,) * 3, (8,) * 3, 48, 2, 4, 48, 1, 4)
    info = StoreInfo(("x", "y", "z"), (8,) * 3, (2.0,) * 3, "float16", "image")
    initialize_from(ours, of_three / "vit", info, "foreground")
    assert torch.equal(ours.patch_embed.proj.weight, before.patch_embed.proj.weight)
    told = capsys.readouterr().err.splitlines()
    assert "channels in their order, because its modalities (a, b, c) are none of the" in told[0]
    assert told[1].endswith(
        "the store is prepared unlike its own: spacing 2,2,2 instead of 1,1,1, size 8,8,8 instead "
        "of 16,16,16, views.normalize=foreground instead of crop"
    )


def network():
    return nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 8, 3))


@pytest.mark.parametrize("prefix", ["", "module.", "method.backbone."])
def test_another_network_takes_tensors_of_equal_names_and_shapes(tmp_path, prefix, capsys):
    trained, ours = randomized(network()), network()
    state = {f"{prefix}{name}": tensor for name, tensor in trained.state_dict().items()}
    state[f"{prefix}fc.weight"] = torch.randn(2, 8)
    torch.save({"state_dict": state, "arch": "x"}, tmp_path / "x.pth")
    initialize_from(ours, tmp_path / "x.pth")
    for name, tensor in trained.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    assert capsys.readouterr().err.endswith("encoder loaded; left out: fc\n")


def test_another_network_refuses_what_differs(tmp_path):
    def start(changed):
        torch.save(changed, tmp_path / "x.pth")
        initialize_from(network(), tmp_path / "x.pth")

    state = network().state_dict()
    with pytest.raises(RunError, match=r"0\.weight is of shape 4×1×3×3×3.* has 4×2×"):
        start(state | {"0.weight": torch.randn(4, 1, 3, 3, 3)})
    with pytest.raises(RunError, match=r"2\.bias is missing"):
        start({k: v for k, v in state.items() if k != "2.bias"})
    with pytest.raises(RunError, match=r"none of its tensors is called 0\.weight"):
        start(encoder().state_dict())


def test_the_model_is_taken_and_not_its_running_average(tmp_path):
    # As MoCo-v3 saves it.
    query, key = randomized(encoder()), randomized(encoder())
    state = {f"module.momentum_encoder.{k}": v for k, v in key.state_dict().items()}
    state |= {f"module.base_encoder.{k}": v for k, v in query.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    ours = encoder()
    initialize_from(ours, tmp_path / "x.pth")
    assert torch.equal(ours.blocks[0].attn.qkv.weight, query.blocks[0].attn.qkv.weight)
    # As DINO does: which of the two is not for us to say.
    torch.save({"student": query.state_dict(), "teacher": key.state_dict()}, tmp_path / "x.pth")
    with pytest.raises(RunError, match=r"several models in it \(student, teacher\)"):
        initialize_from(ours, tmp_path / "x.pth")


# Refusals


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.ckpt", "pytorch_model.bin", "x.safetensors"])
def test_code_in_a_file_is_not_run(tmp_path, name):
    target, file = tmp_path / "ran", tmp_path / name
    content = {"model": encoder().state_dict(), "args": Malicious(target)}
    torch.save(content, file)
    with pytest.raises(RunError, match=re.escape(name)):
        initialize_from(encoder(), file)
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(RunError, match=re.escape(name)):
        initialize_from(encoder(), file)
    assert not target.exists()
    pickle.loads(file.read_bytes())
    assert target.exists()  # it is a file that runs code


def refused(path, model=None):
    with pytest.raises(RunError) as caught:
        initialize_from(model or autoencoder(), path)
    message = str(caught.value)
    assert message.startswith(f"model.init={path}: ")
    assert "\n" not in message
    return message.removeprefix(f"model.init={path}: ")


def saved(path, content):
    torch.save(content, path)
    return path


def test_what_is_no_checkpoint_is_refused(tmp_path):
    folder = tmp_path / "folder"
    assert refused(folder).startswith("no such file or folder; give a checkpoint file")
    folder.mkdir()
    assert refused(folder).startswith("no weights in this folder")
    file = saved(folder / "a.pth", encoder().state_dict())
    initialize_from(encoder(), folder)  # the only one
    file.with_name("b.pth").write_bytes(file.read_bytes())
    assert refused(folder).startswith("2 weight files in this folder (a.pth, b.pth); name one")
    cut = "not a file of tensors (.pth, .pt, .bin, .ckpt, .safetensors), or cut short"
    file.write_bytes(file.read_bytes()[:-2000])
    assert refused(file).startswith(cut)
    save_file({"x": torch.zeros(100)}, folder / "c.safetensors")
    (folder / "c.safetensors").write_bytes((folder / "c.safetensors").read_bytes()[:-20])
    assert refused(folder / "c.safetensors").startswith(cut)
    for content in (b"", b"\x80", b"hello", b"<html>404</html>", b"PK\x03\x04"):
        (folder / "d.pth").write_bytes(content)
        assert refused(folder / "d.pth").startswith(cut)
    assert refused(saved(folder / "e.pth", [1, 2])) == (
        "holds a list; save a model's state_dict() instead"
    )
    assert refused(saved(folder / "e.pth", nn.Linear(2, 2))).startswith(
        "holds torch.nn.modules.linear.Linear, which is more than tensors and plain values"
    )
    nothing = "none of its tensors is called patch_embed.proj.weight or "
    assert refused(saved(folder / "e.pth", {})).startswith(nothing)
    assert refused(saved(folder / "e.pth", network().state_dict())).startswith(nothing)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{")
    saved(tmp_path / "hf" / "pytorch_model.bin", {})
    assert refused(tmp_path / "hf").startswith("config.json is not JSON: ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("seed: 0\n")
    assert refused(tmp_path / "run").startswith("training has not ended; continue it with")


def test_what_cannot_be_adapted_is_refused_with_what_would_fit(tmp_path):
    file = tmp_path / "x.pth"

    def given(**changes):
        return refused(saved(file, encoder(**changes).state_dict()))

    assert given(dim=96, depth=3) == (
        "blocks are 96 wide and 3 deep (patch_embed.proj.weight is 96×3×8×8), this recipe's "
        "48 wide and 2 deep; set model.embed_dim=96 model.depth=3"
    )
    with torch.device("meta"):
        small = MaskedAutoencoder(1, (16, 16), (8, 8), 384, 12, 6)
    thin = VisionTransformer(1, (16, 16), (8, 8), 192, 12, 3).state_dict()
    message = refused(saved(file, thin), small)
    assert message.endswith("this recipe's 384 wide and 12 deep; set model.size=tiny")
    names = {k: v[:1] if k.startswith("blocks") else v for k, v in encoder().state_dict().items()}
    huge = {f"blocks.{i}.norm1.bias": torch.zeros(1280) for i in range(32)}
    huge["patch_embed.proj.weight"] = torch.zeros(1280, 3, 14, 14)
    message = refused(saved(file, huge))
    assert message.endswith("set model.embed_dim=1280 model.depth=32 model.num_heads=16")
    message = refused(saved(file, names))
    assert re.match(r"blocks\.0\.norm1\.weight is of shape 1, this model's is 48", message)
    state = encoder().state_dict()
    message = refused(saved(file, {k: v for k, v in state.items() if "norm1" not in k}))
    assert message.startswith("blocks.0.norm1.weight and 3 more are missing")
    volumes = encoder(size=(16,) * 3, patch=(8,) * 3).state_dict()
    assert refused(saved(file, volumes)).startswith(
        "patch_embed.proj.weight is of shape 48×3×8×8×8, for volumes, but the store's"
    )
    odd = state | {"pos_embed": torch.randn(1, 12, 48)}
    assert refused(saved(file, odd)).startswith("pos_embed has 12 rows, which no square grid")
    for name in (
        "blocks.1.attn.q_norm.weight",
        "reg_token",
        "norm_pre.bias",
        "patch_embed.norm.weight",
    ):
        message = refused(saved(file, state | {name: torch.zeros(48)}))
        assert message.startswith(f"{name} 48 belongs to an architecture that differs")


def test_heads_are_checked_where_a_config_tells(mae, vit, tmp_path):
    path = write("folder", mae, tmp_path / "x")
    assert refused(path, autoencoder(heads=6)) == (
        "attention has 4 heads by its config, this recipe's 6; set model.num_heads=4"
    )
    assert refused(path, autoencoder(decoder=(32, 1, 4))) == (
        "the decoder has 2 heads by its config, this recipe's 4; set model.decoder_num_heads=2"
    )
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"hidden_act": "quick_gelu"}))
    assert refused(path) == "hidden_act is quick_gelu by its config; only gelu fits"
    for told, message in (
        ({"num_heads": 6}, "attention has 6 heads by its config"),
        ({"act_layer": "quick_gelu"}, "hidden_act is quick_gelu by its config"),
    ):
        of_timm = {"architecture": "vit_small_patch16_224", "model_args": told}
        (path / "config.json").write_text(json.dumps(of_timm))
        assert refused(path).startswith(message)


def test_an_attention_without_some_biases_has_zeros_there(vit, tmp_path):
    state = {name: t.clone() for name, t in vit.state_dict().items()}
    for name in [name for name in state if "k_proj.bias" in name or "key.bias" in name]:
        state[name].zero_()
    whole, without = encoder(), encoder()
    initialize_from(whole, saved(tmp_path / "whole.pth", state))
    left = {k: t for k, t in state.items() if "k_proj.bias" not in k and "key.bias" not in k}
    assert len(left) < len(state)
    initialize_from(without, saved(tmp_path / "left.pth", left))
    assert without.blocks[0].attn.qkv.bias.abs().max() > 0
    for name, tensor in whole.state_dict().items():
        assert torch.equal(without.state_dict()[name], tensor), name


def test_weights_that_are_none_are_refused_and_another_epsilon_is_told(vit, tmp_path, capsys):
    state = encoder().state_dict()
    name = "blocks.1.mlp.fc1.weight"
    quantised = state | {name: (100 * state[name]).to(torch.int8)}
    message = refused(saved(tmp_path / "a.pth", quantised), encoder())
    assert message.startswith(f"{name} is of type int8; save the weights as floating-point")
    spoiled = state | {"pos_embed": torch.full_like(state["pos_embed"], torch.nan)}
    message = refused(saved(tmp_path / "b.pth", spoiled), encoder())
    assert message.startswith("pos_embed holds NaN or infinity")
    other = network().state_dict()
    first = next(iter(other))
    message = refused(saved(tmp_path / "c.pth", other | {first: other[first] / 0}), network())
    assert message.startswith(f"{first} holds NaN or infinity")
    path = write("folder", vit, tmp_path / "x")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    capsys.readouterr()
    initialize_from(encoder(), path)
    assert "layer_norm_eps 0.1 of its config is not taken over" in capsys.readouterr().err


def test_a_decoder_of_another_size_starts_fresh_and_says_what_would_fit(mae, tmp_path, capsys):
    ours = autoencoder(decoder=(64, 2, 4))
    fresh = ours.decoder_blocks[0].mlp.fc1.weight.detach().clone()
    initialize_from(ours, write("meta", mae, tmp_path / "x"))
    assert capsys.readouterr().err.endswith(
        "encoder loaded; starts fresh: decoder (the file's is 32 wide and 1 deep; it loads with "
        "model.decoder_embed_dim=32 model.decoder_depth=1)\n"
    )
    assert torch.equal(ours.decoder_blocks[0].mlp.fc1.weight, fresh)


def test_as_many_values_of_other_patches_are_not_taken_for_the_same(tmp_path, capsys):
    trained = randomized(autoencoder(channels=1, size=(64, 64), patch=(16, 16)))
    ours = autoencoder(channels=4, size=(32, 32), patch=(8, 8))
    assert ours.decoder_pred.weight.shape == trained.decoder_pred.weight.shape
    fresh = ours.decoder_pred.weight.detach().clone()
    torch.save(trained.state_dict(), tmp_path / "x.pth")
    initialize_from(ours, tmp_path / "x.pth")
    assert torch.equal(ours.decoder_pred.weight, fresh)
    assert "starts fresh: decoder_pred" in capsys.readouterr().err


def test_training_starts_from_a_hugging_face_folder(vit, make_store, tmp_path, capsys):
    store = make_store(size=(32, 32), modalities=("grey",))
    folder = write("folder", vit, tmp_path / "vit")
    still = (*LIGHT, "optim.epochs=1", "optim.base_lr=1e-12", f"model.init={folder}")
    run = pretrain(store.path, tmp_path / "run", settings=still)
    said = capsys.readouterr().err
    assert (
        f"model.init={folder}: encoder loaded; 3 channels adapted to 1; starts fresh: decoder\n"
    ) in said
    backbone = Encoder.from_pretrained(run).backbone
    theirs = load_file(folder / "model.safetensors")
    torch.testing.assert_close(backbone.pos_embed, theirs["embeddings.position_embeddings"])
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected = vit(grey.expand(-1, 3, -1, -1)).last_hidden_state
        torch.testing.assert_close(backbone(grey), expected, atol=1e-3, rtol=1e-3)
