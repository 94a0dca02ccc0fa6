"""Precision: bf16 where the device at hand multiplies it by itself, and not another one."""

from contextlib import nullcontext

import pytest
import torch

from vitaepp.system.devices import has_bf16, resolved_precision, say_emulated


@pytest.fixture
def hardware(monkeypatch):
    """A machine whose GPU is too old for bf16 but emulates it, and whose CPU may have it."""
    cpu: dict[str, bool] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu, raising=False)
    return cpu


def test_bf16_is_the_devices_own_and_not_emulated(hardware, monkeypatch):
    gpu, cpu, apple = torch.device("cuda", 0), torch.device("cpu"), torch.device("mps")
    assert not any(has_bf16(d) for d in (gpu, cpu, apple))
    hardware["amx_bf16"] = True
    assert has_bf16(cpu)
    assert not has_bf16(gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert [resolved_precision("auto", d) for d in (gpu, cpu, apple)] == ["bf16", "bf16", "32"]
    hardware.clear()
    assert [resolved_precision("auto", d) for d in (gpu, cpu)] == ["bf16", "32"]
    assert resolved_precision("bf16", cpu) == "bf16"


def test_an_emulated_precision_is_told(hardware, capsys):
    cpu = torch.device("cpu")
    for precision in ("32", "16", "bf16"):
        say_emulated(precision, cpu)
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not multiply bf16 by itself" in line
    hardware["avx512_bf16"] = True
    say_emulated("bf16", cpu)
    assert not capsys.readouterr().err
