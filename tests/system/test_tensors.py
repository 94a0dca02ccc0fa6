"""Files of tensors: what is read, and that no caller runs code in them or shows a traceback."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.errors import VitaeppError, WeightsError
from vitaepp.nn.vgg import VGG16
from vitaepp.system.tensors import read_tensors
from vitaepp.weights.read import read_checkpoint

READERS = {
    "tensors": read_tensors,
    "checkpoint": load_checkpoint,
    "vgg": lambda path: VGG16(str(path)),
    "foreign": read_checkpoint,
}


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def damaged(kind, path):
    """A file that holds no tensors that can be read."""
    values = {"x": torch.zeros(1000)}
    if kind == "cut":
        torch.save(values, path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "cut safetensors":
        path = path.with_suffix(".safetensors")
        save_file(values, path)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        contents = {"empty": b"", "text": b"hello", "zip": b"PK\x03\x04", "pickle": b"\x80"}
        path.write_bytes(contents[kind])
    return path


def test_both_formats_are_read(tmp_path):
    values = {"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(1, dtype=torch.bfloat16)}
    torch.save(values | {"epoch": 3}, tmp_path / "a.ckpt")
    save_file(values, tmp_path / "a.safetensors")
    for name in ("a.ckpt", "a.safetensors"):
        read = read_tensors(tmp_path / name)
        assert all(torch.equal(read[key], value) for key, value in values.items())
    assert read_tensors(tmp_path / "a.ckpt")["epoch"] == 3


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("protocol", [None, 0, 2, 5], ids=lambda p: f"pickle {p}" if p else "torch")
def test_nobody_runs_what_is_in_a_file(tmp_path, reader, protocol):
    proof, path = tmp_path / "proof", tmp_path / "x.pth"
    if protocol is None:
        torch.save({"state_dict": Hostile(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile(proof), protocol))
    with pytest.raises(VitaeppError) as caught:
        READERS[reader](path)
    assert not proof.exists()
    assert "\n" not in str(caught.value)
    if protocol is None:
        assert "holds posix.system, which is more than tensors" in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["cut", "cut safetensors", "empty", "text", "zip", "pickle"])
def test_a_damaged_file_is_one_line(tmp_path, reader, kind):
    path = damaged(kind, tmp_path / "x.pth")
    with pytest.raises(VitaeppError, match=r"not a file of tensors .*, or cut short") as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, WeightsError) or path.name in str(caught.value)
