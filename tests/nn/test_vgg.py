"""VGG-16 as the perceptual loss sees through it, against a plain one."""

import pytest
import torch
from torch import nn

from vitaepp.errors import WeightsError
from vitaepp.nn.vgg import IMAGENET_MEAN, IMAGENET_STD, VGG16


def plain_vgg(state) -> nn.Sequential:
    """torchvision's `vgg16().features` up to relu4_3, written out."""
    layers, channels = [], 3
    for width in (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512):
        if width == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    features = nn.Sequential(*layers)
    features.load_state_dict({k.removeprefix("features."): v for k, v in state.items()})
    return features


@pytest.fixture(scope="module")
def vgg():
    network = VGG16("random")
    for index in (0, 2, 5):  # biases are zero when random; let them count
        network.features[str(index)].bias.data.uniform_(-0.1, 0.1)
    return network


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_those_of_a_plain_vgg_on_normalised_images(vgg, channels):
    images = torch.rand(2, channels, 24, 32, generator=torch.Generator().manual_seed(0))
    colour = images.expand(-1, 3, -1, -1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = (colour - mean) / std
    wanted = {}
    for index, layer in enumerate(plain_vgg(vgg.state_dict())):
        x = layer(x)
        wanted[index] = x
    for level, index in zip(vgg.levels(images), (3, 8, 15, 22), strict=True):
        assert torch.allclose(level, wanted[index], rtol=1e-4, atol=1e-4)


def test_weights_from_a_file_in_torchvisions_names(tmp_path, vgg):
    state = vgg.state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save(state, tmp_path / "vgg16.pth")
    loaded = VGG16(str(tmp_path / "vgg16.pth"))
    assert torch.equal(loaded.features["5"].bias, vgg.features["5"].bias)
    del state["features.10.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(WeightsError, match=r"has no features\.10\.bias"):
        VGG16(str(tmp_path / "short.pth"))
    with pytest.raises(WeightsError, match="no such file; give imagenet, random"):
        VGG16(str(tmp_path / "nowhere.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match="not a file of tensors"):
        VGG16(str(tmp_path / "text.pth"))


def test_without_a_network_imagenet_says_how_to_go_on(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=r"could not download.*give its path"):
        VGG16("imagenet")


def test_random_weights_are_the_same_in_every_run():
    a, b = VGG16("random"), VGG16("random")
    assert torch.equal(a.features["21"].weight, b.features["21"].weight)
    assert not any(p.requires_grad for p in a.parameters())
