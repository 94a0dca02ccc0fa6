"""Tensors in files: those that anybody may have made are read without running code in them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitaepp.errors import WeightsError, one_line

#: Suffixes of the files that can be read; only safetensors is told by its suffix.
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def read_tensors(path: str | os.PathLike[str], plain_types: Sequence[type] = ()) -> Any:
    """The content of a safetensors file, or of one that torch saved: tensors and plain values.

    Args:
        path: the file, which exists.
        plain_types: classes that may be in it besides, as they only carry values.

    Raises:
        WeightsError: the file is damaged, is something else, or holds objects whose reading could
            run code. The message does not name the file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    unreadable = f"not a file of tensors ({', '.join(SUFFIXES)}), or cut short"
    try:
        if os.fspath(path).endswith(".safetensors"):
            return load_file(path)
        with torch.serialization.safe_globals(list(plain_types)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, PermissionError) as error:
        raise WeightsError(f"{unreadable}: {one_line(error)}") from None
    except Exception as error:  # a damaged pickle can raise anything
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise WeightsError(unreadable) from None
        raise WeightsError(
            f"holds {foreign[1]}, which is more than tensors and plain values, and reading it "
            "could run code; where you trust it, save its state_dict() alone"
        ) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file."""
    from safetensors.torch import save

    # Its own writer does not say why it could not write.
    path.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))
