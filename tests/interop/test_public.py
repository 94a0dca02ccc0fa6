"""Published encoders over a store: features of their own library, in `evaluate` and `compare`."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import vitaepp
from tests.interop.test_vits import drawn
from vitaepp.data.embeddings import Embeddings
from vitaepp.errors import EvaluationError, RunError
from vitaepp.interop.public import load_public
from vitaepp.nn.transformer import VisionTransformer

TINY = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
RGB = ("red", "green", "blue")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def published(folder, depth=2, more=(), **config):
    """A folder as timm publishes one, with weights that are drawn."""
    vit = drawn(VisionTransformer(3, (32, 32), (8, 8), 48, depth, 4))
    cfg = {"mean": MEAN, "std": STD, "input_size": [3, 32, 32]}
    folder.mkdir()
    whole = {"architecture": "vit", "model_args": {"num_heads": 4}, "pretrained_cfg": cfg} | config
    (folder / "config.json").write_text(json.dumps(whole))
    save_file(vit.state_dict() | dict(more), folder / "model.safetensors")
    return vit


def pooled(tokens):
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)


def normalised(pictures):
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    return (pictures / 255 - mean) / std


def features(path):
    return torch.from_numpy(Embeddings.load(path).features)


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "ViTMAE"])
def test_features_are_those_of_transformers(make_store, tmp_path, transformers, kind):
    more = {
        "ViT": {"intermediate_size": 192, "qkv_bias": False},
        "Dinov2": {"image_size": 64, "layer_norm_eps": 1e-5},  # positions to be interpolated
        "ViTMAE": {"intermediate_size": 192, "mask_ratio": 0.0},
    }
    config = getattr(transformers, f"{kind}Config")(**TINY | more[kind])
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    for tensor in model.parameters():
        nn.init.normal_(tensor, std=0.2)
    model.save_pretrained(tmp_path / "model")
    told = {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}}
    if kind == "Dinov2":
        told["size"], told["crop_size"] = {"shortest_edge": 40}, {"height": 32, "width": 32}
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(told))
    store = make_store(subjects=3, size=(32, 32), modalities=RGB)
    out = vitaepp.embed_public(tmp_path / "model", store.path, tmp_path / "e", precision="32")
    seen = normalised(torch.from_numpy(store.read(range(3))).float())
    given = {"noise": torch.arange(16.0).expand(3, -1)} if kind == "ViTMAE" else {}
    with torch.no_grad():
        theirs = pooled(model(seen, **given).last_hidden_state)
    torch.testing.assert_close(features(out), theirs, atol=1e-4, rtol=0)


def test_a_volume_is_evenly_spaced_slices_of_each_modality(make_store, tmp_path):
    vit = published(tmp_path / "vit")
    store = make_store(subjects=2, size=(24, 16, 20))
    out = tmp_path / "e.parquet"
    vitaepp.embed_public(tmp_path / "vit", store.path, out, slices=5, precision="32")
    expected = []
    for image in store.read(range(2)).astype(np.float32):
        parts = []
        for modality in image:
            pictures = []
            for i in (2, 6, 10, 14, 18):
                # The front is up, and the patient's right on the left.
                picture = torch.from_numpy(modality[::-1, ::-1, i].T.copy())
                resized = F.interpolate(picture[None, None], (32, 32), mode="bilinear")
                pictures.append(normalised(resized[0].expand(3, -1, -1)))
            with torch.no_grad():
                each = pooled(vit(torch.stack(pictures)))
            parts += [each.mean(dim=0), each.amax(dim=0)]
        expected.append(torch.cat(parts))
    torch.testing.assert_close(features(out), torch.stack(expected), atol=1e-4, rtol=0)
    thin = make_store(subjects=1, size=(16, 16, 3), name="thin")
    vitaepp.embed_public(tmp_path / "vit", thin.path, tmp_path / "thin.parquet")
    assert Embeddings.load(tmp_path / "thin.parquet").provenance["slices"] == 3


def test_layer_scales_and_what_timm_tells(tmp_path, capsys):
    scales = {f"blocks.{i}.ls{k}.gamma": torch.full((48,), 2.0) for i in (0, 1) for k in (1, 2)}
    plain = published(tmp_path / "scaled", more=scales)
    found = load_public(tmp_path / "scaled")
    assert (found.size, found.mean, found.std) == ((32, 32), MEAN, STD)
    for block in plain.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.data *= 2
            layer.bias.data *= 2
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(found.vit(images), plain(images), atol=1e-4, rtol=0)
    published(tmp_path / "silent", pretrained_cfg={}, image_size=24, layer_norm_eps=1e-5)
    found = load_public(tmp_path / "silent")
    assert (found.size, found.mean[0], found.vit.norm.eps) == ((24, 24), 0.485, 1e-5)
    published(tmp_path / "raw")
    for text, mean, std in (
        ({"do_normalize": False}, 0.0, 1.0),
        ({"image_mean": MEAN, "image_std": STD, "rescale_factor": 1 / 127.5}, 0.25, 0.1),
        ({"image_mean": [127.5] * 3, "image_std": [51] * 3, "do_rescale": False}, 0.5, 0.2),
    ):
        (tmp_path / "raw" / "preprocessor_config.json").write_text(json.dumps(text))
        found = load_public(tmp_path / "raw")
        assert (found.mean[0], found.std[0]) == pytest.approx((mean, std))
    told = capsys.readouterr().err
    assert "silent: does not tell how its pictures are normalised; taken as ImageNet's" in told
    assert "interpolated from 4×4 to 3×3 patches" in told


def test_evaluate_and_compare_name_it(clinic, tmp_path, capsys):
    published(tmp_path / "dino")
    vitaepp.embed_public(tmp_path / "dino", clinic / "store", tmp_path / "e.parquet")
    evaluation = vitaepp.evaluate(tmp_path / "e.parquet", "kind", tmp_path / "public")
    assert "dino (natural images, frozen)" in str(evaluation)
    assert list(evaluation["controls"]) == ["raw"]
    assert "no control beside" not in capsys.readouterr().err
    assert evaluation["provenance"]["method"] == "public"
    vitaepp.evaluate(clinic / "e.parquet", "kind", tmp_path / "own")
    assert "public" in str(vitaepp.compare([tmp_path / "own", tmp_path / "public"]))
    with pytest.raises(EvaluationError, match="was made by a public encoder, dino, which takes no"):
        vitaepp.fit(tmp_path / "e.parquet", "kind", tmp_path / "model")


def test_it_may_lie_in_a_run_whose_encoder_is_another(clinic, tmp_path, capsys):
    run = tmp_path / "run"
    (run / "encoder").mkdir(parents=True)
    (run / "recipe.yaml").write_text("method: vitae\noptim: {epochs: 1}\n")
    for name in ("config.json", "model.safetensors"):
        (run / "encoder" / name).write_bytes((clinic / "encoder" / name).read_bytes())
    published(tmp_path / "dino")
    vitaepp.embed_public(tmp_path / "dino", clinic / "store", run / "dino.parquet")
    vitaepp.evaluate(run / "dino.parquet", "kind", run / "public")
    assert "another encoder" not in capsys.readouterr().err


def test_what_is_no_such_encoder_is_one_line(clinic, make_store, tmp_path):
    def refused(folder):
        with pytest.raises(RunError) as caught:
            load_public(folder)
        message = str(caught.value)
        assert message.startswith(f"{folder}: ")
        assert message.count(str(folder)) == 1
        assert "\n" not in message
        return message.removeprefix(f"{folder}: ")

    assert refused(tmp_path / "nowhere").startswith("has no config.json")
    assert refused(clinic / "encoder").startswith("is an encoder of vitaepp; embed with it as RUN")
    published(tmp_path / "registers", more={"reg_token": torch.zeros(1, 4, 48)})
    assert refused(tmp_path / "registers").startswith("reg_token 1×4×48 belongs to an architecture")
    published(tmp_path / "odd", pretrained_cfg={"input_size": [3, 30, 30]})
    assert "cannot be cut into patches of 8,8" in refused(tmp_path / "odd")
    published(tmp_path / "other", hidden_act="quick_gelu")
    assert "hidden_act is quick_gelu" in refused(tmp_path / "other")
    published(tmp_path / "clip", architecture="vit_base_patch16_clip_quickgelu_224")
    assert "hidden_act is quick_gelu" in refused(tmp_path / "clip")
    published(tmp_path / "broken")
    (tmp_path / "broken" / "preprocessor_config.json").write_text("[")
    assert refused(tmp_path / "broken").startswith("preprocessor_config.json is not a JSON object")


def test_the_rung_of_other_weights_at_the_same_path_is_measured_anew(clinic, tmp_path):
    def climbed():
        asked = {"rungs": ["prior", "public"], "public": tmp_path / "dino", "budget": ()}
        vitaepp.ladder(clinic / "store", tmp_path / "out", "kind", **asked)
        made = tmp_path.glob("out/rungs/public-*[!w].parquet")
        return {file.name: file.stat().st_mtime_ns for file in made}

    vit = published(tmp_path / "dino")
    first = climbed()
    assert climbed() == first
    save_file({k: 2 * v for k, v in vit.state_dict().items()}, tmp_path / "dino/model.safetensors")
    second = climbed()
    assert len(second) == 2
    (tmp_path / "dino" / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    third = climbed()
    assert len(third) == 3
    assert first.items() < second.items() < third.items()
