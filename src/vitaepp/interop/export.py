"""Writes a trained encoder for programs that do not have this library.

What each format is for:

- `onnx`: ONNX Runtime and whatever else reads ONNX;
- `torchscript`: PyTorch in C++ and older Pythons, one file with code and weights;
- `torch-export`: PyTorch's own format (`torch.export`);
- `hf`: a folder for the Hugging Face Hub, with a model card;
- `transformers`, `transformers-mae`, `timm`, `monai`: the vision transformer of another library, to
  train on with it (`vits.py`).

The first three take images as a store holds them, `(batch, channel, *space)` with intensities in
[0, 255], but as float32, of any batch, and give features. How scans become such images is in the
metadata, as JSON under `vitaepp`.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitaepp.data.origin import outdated
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError, nearest
from vitaepp.evaluation.origin import rewritten
from vitaepp.evaluation.result import Evaluation
from vitaepp.interop import vits
from vitaepp.system.extras import require
from vitaepp.system.files import atomic_path, check_replaces, read_json
from vitaepp.system.paths import kind_of
from vitaepp.system.progress import quieter
from vitaepp.weights.runs import load_method

#: ONNX's set of operators: the first with everything that an encoder needs.
OPSET = 17


def export(run: str | os.PathLike[str], out: str | os.PathLike[str], to: str) -> Path:
    """Write a trained encoder in another format.

    Args:
        run: run or encoder folder.
        out: file to write; of `hf`, `transformers`, `transformers-mae` and `monai`, a folder.
        to: `hf` or one of `WRITERS`.

    Returns:
        The path of `out`.

    Raises:
        RecipeError: no such format.
        RunError: the encoder cannot be read, has no such form, or `out` holds something else.
        MissingPackageError: the format's package is not installed.
    """
    if to not in (known := ["hf", *WRITERS]):
        raise RecipeError(f"no format {to!r} to export to; {nearest(to, known)}")
    encoder = Encoder.from_pretrained(run).cpu().eval()
    if to in FOLDERS:
        _check_folder(Path(out), *FOLDERS[to])
    else:
        check_replaces(out, f"export to {to}", lambda path: path.name.lower().endswith(ENDINGS[to]))
    if to == "hf":
        return encoder.save_pretrained(out, _evaluation_of(Path(run)))
    source = load_method(run) if to == "transformers-mae" else encoder
    with atomic_path(out) as temporary, torch.no_grad(), _quiet():
        WRITERS[to](source, temporary)
    return Path(out)


def _onnx(encoder: Encoder, path: Path) -> None:
    onnx = require("onnx", "onnx", "exporting to ONNX needs")
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["features"]}
    torch.onnx.export(
        encoder,
        (_example(encoder),),
        str(path),
        opset_version=OPSET,
        dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
        dynamo=False,  # the other exporter needs two more packages
        **names,
    )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"vitaepp": vits.preprocessing(encoder.config)})
    onnx.save(model, str(path))


def _torchscript(encoder: Encoder, path: Path) -> None:
    traced = torch.jit.trace(encoder, (_example(encoder),), check_trace=False)
    saved = io.BytesIO()
    torch.jit.save(traced, saved, _extra_files={"vitaepp": vits.preprocessing(encoder.config)})
    # The file is passed on, so that it goes without what torch keeps for debugging: the lines that
    # called each operation, with the paths of this machine.
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(path, "w") as kept:
        for name in whole.namelist():
            if not name.endswith(".debug_pkl"):
                kept.writestr(name, whole.read(name))


def _torch_export(encoder: Encoder, path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(encoder, (_example(encoder),), dynamic_shapes=({0: batch},))
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # as in `_torchscript`
    with open(path, "wb") as file:
        torch.export.save(
            program, file, extra_files={"vitaepp": vits.preprocessing(encoder.config)}
        )


def _check_folder(out: Path, file: str, key: str) -> None:
    """Refuse to replace a folder that holds something else than an export of this format."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        ours = key in read_json(out / file)
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise RunError(f"{out}: holds something else; name a new folder")


def _evaluation_of(run: Path) -> Evaluation | None:
    """The evaluation in a run, if it is of the encoder that the run has now."""
    folder = run / "evaluation"
    if kind_of(run) != "run" or kind_of(folder) != "evaluation":
        return None
    evaluation = Evaluation.load(folder)  # which warns where it is outdated
    facts = evaluation.metrics.get("provenance") or {}
    return None if outdated(folder, facts) or rewritten(folder, facts) else evaluation


#: What writes each format; `hf` writes itself.
WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "torch-export": _torch_export,
    "transformers": vits.write_transformers,
    "transformers-mae": vits.write_mae,
    "timm": vits.write_timm,
    "monai": vits.write_monai,
}

#: How names of single files end, by format; a file with another ending is not replaced.
ENDINGS: dict[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "torchscript": (".pt", ".pth", ".ts", ".torchscript"),
    "torch-export": (".pt2", ".pt"),
    "timm": (".safetensors", ".pth", ".pt"),
}

#: Formats that are folders: a file in it, and a key of it that only this format has.
FOLDERS = {
    "hf": ("config.json", "format"),
    "transformers": ("config.json", "vitaepp"),
    "transformers-mae": ("config.json", "vitaepp"),
    "monai": ("configs/metadata.json", "vitaepp"),
}


def _example(encoder: Encoder) -> Tensor:
    """Images to trace with; two, because one would be taken for every batch's size."""
    shape = (2, len(encoder.config.modalities), *encoder.config.shape["image_size"])
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch warns of tracing: the shapes that it fixes are those of the encoder."""
    with quieter("torch.onnx", logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
