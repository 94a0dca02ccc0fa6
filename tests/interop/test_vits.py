"""Encoders compute in other libraries' vision transformers what they compute here."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import vitaepp
from tests.conftest import LIGHT, TINY, encoder_like
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.encoder.config import EncoderConfig
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError
from vitaepp.interop.vits import write_mae
from vitaepp.methods import build_method
from vitaepp.nn.patches import patchify, random_masks
from vitaepp.recipe.recipe import Recipe
from vitaepp.views.transforms import standardize


def drawn(module):
    """Every tensor drawn anew, so that none is at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return module.eval()


def save_encoder(store, path, **changes):
    """An encoder of a store, drawn and saved."""
    encoder = encoder_like(store)
    encoder.config = replace(encoder.config, **changes)
    drawn(encoder.backbone)
    encoder.save(path)
    return encoder


@pytest.fixture
def pictures(make_store):
    return make_store(subjects=3, size=(32, 24), modalities=("a", "b"))


def loaded(cls, folder):
    """A model of transformers, with every tensor from the folder and none left over."""
    model, how = cls.from_pretrained(folder, output_loading_info=True)
    assert not how["missing_keys"]
    assert not how["unexpected_keys"]
    assert not how["mismatched_keys"]
    return model.eval()


def published_names(depth, prefix=""):
    """The tensors of a ViT of Hugging Face, as in the files of google/vit-* and facebook/vit-mae-*.

    Written down here, and not computed from ours.
    """
    layer = ["layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"]
    layer += [f"attention.attention.{part}" for part in ("query", "key", "value")]
    layer += ["attention.output.dense"]
    modules = [f"encoder.layer.{i}.{name}" for i in range(depth) for name in layer]
    modules += ["embeddings.patch_embeddings.projection", "layernorm"]
    tensors = [f"{name}.{kind}" for name in modules for kind in ("weight", "bias")]
    tensors += ["embeddings.cls_token", "embeddings.position_embeddings"]
    return {prefix + name for name in tensors}


def published_decoder(depth):
    modules = [
        name.replace("encoder.layer", "decoder.decoder_layers")
        for name in published_names(depth)
        if name.startswith("encoder.layer")
    ]
    for name in ("decoder_embed", "decoder_norm", "decoder_pred"):
        modules += [f"decoder.{name}.weight", f"decoder.{name}.bias"]
    return {*modules, "decoder.mask_token", "decoder.decoder_pos_embed"}


def test_names_of_transformers(pictures, tmp_path):
    save_encoder(pictures, tmp_path / "encoder")
    vitaepp.export(tmp_path / "encoder", tmp_path / "vit", "transformers")
    names = load_file(tmp_path / "vit" / "model.safetensors").keys()
    assert names == published_names(2) | {"pooler.dense.weight", "pooler.dense.bias"}
    config = json.loads((tmp_path / "vit" / "config.json").read_text())
    assert (config["image_size"], config["patch_size"]) == ([32, 24], 8)
    assert (config["layer_norm_eps"], config["pooler_act"]) == (1e-6, "linear")
    assert config["vitaepp"]["prepared"]["spacing"] == [1, 1]
    assert not (tmp_path / "vit" / "preprocessor_config.json").exists()  # z-scored one by one


def test_tokens_of_transformers(pictures, tmp_path, transformers):
    encoder = save_encoder(pictures, tmp_path / "encoder", block=1, pool="mean+cls")
    vitaepp.export(tmp_path / "encoder", tmp_path / "vit", "transformers")
    theirs = loaded(transformers.ViTModel, tmp_path / "vit")
    images = torch.from_numpy(pictures.read(range(3))).float()
    with torch.no_grad():
        seen = standardize(images / 255, encoder.config.normalize)
        found = theirs(seen, output_hidden_states=True)
        tokens = encoder.backbone(seen)
        torch.testing.assert_close(found.last_hidden_state, tokens, atol=1e-4, rtol=0)
        # The identity, where transformers reads `pooler_act`; 4.45 always takes the tanh.
        cls = theirs.pooler.activation(tokens[:, 0])
        torch.testing.assert_close(found.pooler_output, cls, atol=1e-4, rtol=0)
        # The features that `embed` writes.
        after = theirs.layernorm(found.hidden_states[encoder.config.block])
        features = torch.cat([after[:, 1:].mean(dim=1), after[:, 0]], dim=1)
        torch.testing.assert_close(features, encoder(images), atol=1e-4, rtol=0)


def test_the_processor_of_transformers_z_scores_by_the_cohort(pictures, tmp_path, transformers):
    cohort = ((0.1, 0.2), (0.3, 0.4))
    save_encoder(pictures, tmp_path / "encoder", normalize="cohort", cohort=cohort)
    vitaepp.export(tmp_path / "encoder", tmp_path / "vit", "transformers")
    images = pictures.read([0, 1]).astype(np.float32)
    ours = standardize(torch.from_numpy(images) / 255, "cohort", cohort)
    # The one of transformers 5 that does without torchvision.
    module = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    processor = module.ViTImageProcessorPil.from_pretrained(tmp_path / "vit")
    theirs = processor(list(images), input_data_format="channels_first", return_tensors="pt")
    torch.testing.assert_close(theirs["pixel_values"], ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("names", "std", "said"),
    [
        (("a",), (0.3,), ""),
        (("red", "green", "blue"), (0.3, 0.3, 0.3), ""),
        (("a", "b"), (0.3, 0.4), "preprocessor_config.json does not know missing modalities"),
        (("a", "b"), (0.3, 0.0), "no preprocessor_config.json: the deviation of b is 0 over the"),
    ],
)
def test_where_a_processor_is_not_what_the_encoder_takes_is_told(
    make_store, tmp_path, capsys, names, std, said
):
    store = make_store(subjects=1, size=(16, 16), modalities=names)
    cohort = ((0.1,) * len(names), std)
    save_encoder(store, tmp_path / "encoder", normalize="cohort", cohort=cohort)
    vitaepp.export(tmp_path / "encoder", tmp_path / "vit", "transformers")
    assert (tmp_path / "vit" / "preprocessor_config.json").exists() is all(std)
    err = capsys.readouterr().err
    assert err.startswith(said) if said else not err


def masked(size=(32, 32), method="vitae++", **model):
    """The whole model of a run, drawn, and its encoder's config."""
    recipe = Recipe.load(settings=(*TINY, f"method={method}")).changed(model=model)
    info = StoreInfo(("a", "b"), size, None, "uint8", "image")
    config = EncoderConfig.of(recipe, info.modalities, info.size, info)
    return drawn(build_method(recipe, 2, size)), config


def test_names_of_a_masked_autoencoder(tmp_path):
    write_mae(masked(), tmp_path / "mae")
    names = load_file(tmp_path / "mae" / "model.safetensors").keys()
    assert names == published_names(2, "vit.") | published_decoder(1)


def test_predictions_of_a_masked_autoencoder(tmp_path, transformers):
    method, config = masked()
    write_mae((method, config), tmp_path / "mae")
    theirs = loaded(transformers.ViTMAEForPreTraining, tmp_path / "mae")
    ours = method.backbone
    images = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mask = random_masks(noise, method.recipe.model.mask_ratio)
        tokens = ours.encode(patchify(images, (8, 8)), mask.visible)
        found = theirs(images, noise=noise).logits
        torch.testing.assert_close(found, ours.decode(tokens, mask.visible), atol=1e-4, rtol=0)


def test_what_has_no_form_in_another_library_is_one_line(make_store, tmp_path):
    with pytest.raises(RunError, match="simsiam: this run has no decoder"):
        write_mae(masked(method="simsiam"), tmp_path / "x")
    with pytest.raises(RunError, match="images of 32×16 with patches of 8×8: ViTMAE of trans"):
        write_mae(masked((32, 16)), tmp_path / "x")
    save_encoder(make_store(subjects=1), tmp_path / "volumes")
    for to in ("transformers", "timm"):
        with pytest.raises(RunError, match=f"patches of 8×8×8: the vision .* of {to} take 2D"):
            vitaepp.export(tmp_path / "volumes", tmp_path / "x", to)
    recipe = Recipe.load(settings=["method=simsiam", "model.backbone=resnet18", "model.pool=mean"])
    resnet = Encoder.untrained(recipe, StoreInfo(("a",), (32, 32), None, "uint8", "image"))
    resnet.save(tmp_path / "resnet")
    with pytest.raises(RunError, match="a ResNet is no vision transformer"):
        vitaepp.export(tmp_path / "resnet", tmp_path / "x", "timm")
    with pytest.raises(RunError, match="holds something else"):
        vitaepp.export(tmp_path / "volumes", tmp_path / "volumes", "transformers")
    with pytest.raises(RunError, match="is an encoder, and not a run"):
        vitaepp.export(tmp_path / "volumes", tmp_path / "x", "transformers-mae")
    assert not (tmp_path / "x").exists()


def test_a_trained_run_is_exported_with_its_decoder(make_store, tmp_path):
    vitaepp.pretrain(make_store(size=(16, 16)).path, tmp_path / "run", settings=LIGHT)
    for _ in range(2):  # the second replaces the first
        vitaepp.export(tmp_path / "run", tmp_path / "mae", "transformers-mae")
    state = load_file(tmp_path / "mae" / "model.safetensors")
    encoder = Encoder.from_pretrained(tmp_path / "run").backbone
    assert torch.equal(state["vit.embeddings.cls_token"], encoder.cls_token)
    assert "decoder.decoder_pred.weight" in state


def timm_shapes(arguments):
    """Names and shapes of timm's `VisionTransformer`, as in the files of timm/vit_*_patch*."""
    dim, (height, width) = arguments["embed_dim"], arguments["img_size"]
    rows, columns = arguments["patch_size"]
    layers = {"patch_embed.proj": (dim, arguments["in_chans"], rows, columns), "norm": (dim,)}
    for i in range(arguments["depth"]):
        layers |= {
            f"blocks.{i}.norm1": (dim,),
            f"blocks.{i}.attn.qkv": (3 * dim, dim),
            f"blocks.{i}.attn.proj": (dim, dim),
            f"blocks.{i}.norm2": (dim,),
            f"blocks.{i}.mlp.fc1": (4 * dim, dim),
            f"blocks.{i}.mlp.fc2": (dim, 4 * dim),
        }
    shapes = {f"{name}.weight": shape for name, shape in layers.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    tokens = (height // rows) * (width // columns) + 1
    return shapes | {"cls_token": (1, 1, dim), "pos_embed": (1, tokens, dim)}


def to_timm(store, folder):
    encoder = save_encoder(store, folder / "encoder")
    file = vitaepp.export(folder / "encoder", folder / "vit.safetensors", "timm")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    return encoder, load_file(file), json.loads(metadata["timm"]), json.loads(metadata["vitaepp"])


def test_names_of_timm(pictures, tmp_path):
    _, state, arguments, told = to_timm(pictures, tmp_path)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == timm_shapes(arguments)
    assert arguments["num_heads"] == 4
    assert told["modalities"] == ["a", "b"]


def test_tokens_of_timm(pictures, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm", exc_type=ImportError)
    encoder, state, arguments, _ = to_timm(pictures, tmp_path)
    theirs = timm.models.VisionTransformer(**arguments).eval()
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(2, 2, 32, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder.backbone(images)
        torch.testing.assert_close(theirs.forward_features(images), ours, atol=1e-4, rtol=0)
        torch.testing.assert_close(theirs(images), ours[:, 0], atol=1e-4, rtol=0)


def parsed(folder, config="inference"):
    """What a bundle's config says, as MONAI reads it."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / "configs" / f"{config}.json")
    parser.read_meta(folder / "configs" / "metadata.json")
    parser["bundle_root"] = str(folder)
    return parser


@pytest.mark.parametrize("size", [(32, 24), (16, 24, 8)])
def test_tokens_of_monai(make_store, tmp_path, size):
    encoder = save_encoder(make_store(subjects=1, size=size), tmp_path / "encoder")
    # A CLS token of small deviation, as one that was little trained: the norms' epsilon matters.
    encoder.backbone.cls_token.data.mul_(0.01)
    encoder.backbone.pos_embed[:, 0] = 0
    encoder.save(tmp_path / "encoder")
    vitaepp.export(tmp_path / "encoder", tmp_path / "bundle", "monai")
    bundle = parsed(tmp_path / "bundle")
    theirs = bundle.get_parsed_content("network")
    images = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder.backbone(images)
        cls, states = theirs(images)
        torch.testing.assert_close(cls, ours[:, 0], atol=1e-4, rtol=0)
        torch.testing.assert_close(theirs.norm(states[-1]), ours, atol=1e-4, rtol=0)
    told = bundle.get_parsed_content("_meta_")
    assert told["network_data_format"]["inputs"]["image"]["spatial_shape"] == list(size)
    assert told["vitaepp"]["prepared"]["center"] == "image"
    assert not (tmp_path / "bundle" / "configs" / "unetr.json").exists()


def test_monai_loads_the_bundle_by_its_own_function(make_store, tmp_path):
    encoder = save_encoder(make_store(subjects=1), tmp_path / "encoder")
    vitaepp.export(tmp_path / "encoder", tmp_path / "bundle", "monai")
    import monai

    arguments = parsed(tmp_path / "bundle").get("architecture")
    model = monai.networks.nets.ViT(**{k: v for k, v in arguments.items() if k != "_target_"})
    monai.bundle.load("bundle", model=model, bundle_dir=tmp_path)
    assert torch.equal(
        model.blocks[1].mlp.linear2.weight, encoder.backbone.blocks[1].mlp.fc2.weight
    )


def test_a_unetr_takes_an_encoder_of_its_shape(make_store, tmp_path):
    store = make_store(subjects=1, size=(32, 16, 16))
    recipe = Recipe.load(settings=[*TINY, "model.depth=12", "model.patch_size=16"])
    encoder = Encoder.untrained(recipe, store.info)
    drawn(encoder.backbone)
    encoder.save(tmp_path / "encoder")
    vitaepp.export(tmp_path / "encoder", tmp_path / "bundle", "monai")
    unetr = parsed(tmp_path / "bundle", "unetr").get_parsed_content("network")
    images = torch.randn(2, 2, 32, 16, 16, generator=torch.Generator().manual_seed(0))
    vit = encoder.backbone
    with torch.no_grad():
        assert unetr(images).shape == (2, 2, 32, 16, 16)
        # Its blocks, of the patches alone: it has no CLS token.
        tokens = vit.patch_embed(patchify(images, (16, 16, 16))) + vit.pos_embed[:, 1:]
        for block in vit.blocks:
            tokens = block(tokens)
        found, _ = unetr.vit(images)
        torch.testing.assert_close(found, vit.norm(tokens), atol=1e-4, rtol=0)
