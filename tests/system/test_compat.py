"""Private names of other libraries are used in one file, and still do what they should."""

import ast
from pathlib import Path

import pytest
import torch

import vitaepp
from vitaepp.system.compat import AliveBytes, fake_tensors, unscale_before_step, zarr_buffer

SOURCES = Path(vitaepp.__file__).parent
LIBRARIES = ("torch", "lightning", "zarr", "pandas", "pyarrow", "sklearn", "scipy", "monai")


def private_names(code: str) -> list[str]:
    """Dotted names of other libraries in a file that have a private part, by import or by use."""
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names.append(ast.unparse(node))
    return [
        name
        for name in names
        if name.partition(".")[0] in LIBRARIES
        and (any(part.startswith("_") for part in name.split(".")) or name.startswith("zarr.core"))
    ]


def test_private_names_are_found():
    code = "from zarr.core.buffer import x\nfrom torch.utils._pytree import y\nz = torch._C.a"
    assert private_names(code)[:2] == ["zarr.core.buffer.x", "torch.utils._pytree.y"]
    assert "torch._C.a" in private_names(code)


def test_private_names_of_other_libraries_stand_in_one_file():
    found = {
        str(file.relative_to(SOURCES)): names
        for file in SOURCES.rglob("*.py")
        if (names := private_names(file.read_text(encoding="utf-8")))
    }
    assert set(found) == {"system/compat.py"}, found


def test_bytes_of_living_tensors_are_counted():
    alive = AliveBytes()
    with alive.counting():
        first = torch.zeros(1000)
        view = first[:10]
        second = torch.zeros(500)
        assert (alive.now, alive.peak) == (6000, 6000)
        del second, first
        assert (alive.now, alive.peak) == (4000, 6000)
        del view
        assert (alive.now, alive.peak) == (0, 6000)
    with fake_tensors(), alive.counting():
        huge = torch.zeros(1 << 50)
        assert alive.now == 4 << 50
        del huge


@pytest.mark.parametrize("data", [b"", b"some bytes"])
def test_bytes_pass_through_zarr(data):
    assert zarr_buffer(data).to_bytes() == data


def test_scaled_gradients_are_clipped_in_their_own_scale():
    def stepped(scale: float) -> torch.Tensor:
        weight = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.AdamW([weight], lr=0.1, eps=1.0, fused=True)
        unscale_before_step(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale((weight * torch.tensor([3.0, 4.0, 0.0])).sum()).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        assert weight.grad is not None
        assert weight.grad.tolist() == pytest.approx([0.6, 0.8, 0.0], abs=1e-5)
        scaler.step(optimizer)
        return weight.detach()

    torch.testing.assert_close(stepped(1024.0), stepped(1.0))
