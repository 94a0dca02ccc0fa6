"""Embedding a store: one row of features a subject, and the same of its controls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from vitaepp.data.embeddings import CONTROLS, Embeddings, control_path
from vitaepp.data.poolings import Pooling, parse_poolings, pooled_path
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.encoder.config import EncoderConfig
from vitaepp.encoder.fits import check_fits, check_like
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError
from vitaepp.system.devices import chosen_device, resolved_precision, say_emulated
from vitaepp.system.files import together
from vitaepp.system.host import keep_freed_memory
from vitaepp.system.paths import swapped
from vitaepp.system.progress import counted, say, track

#: The raw-intensity control keeps at most this many values an image; larger images are averaged.
RAW_VALUES = 8192


def embed(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    controls: bool = True,
    batch_size: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    any_store: bool = False,
    last: bool = False,
    pools: Sequence[str] | str = (),
) -> Path:
    """Embed every subject of a store, and its controls beside it.

    Args:
        run: run folder, or an encoder folder (which has no untrained control).
        store: prepared store.
        out: Parquet file, or CSV by its name: `subject`, label columns, `split`, `f0 … fD-1`.
        controls: also write `OUT.untrained.parquet` and `OUT.raw.parquet`.
        batch_size: images at a time.
        device: where to compute.
        precision: `32`, `bf16`, `16` or `auto`; as the run was trained by default. The file's
            metadata says which it was.
        any_store: also where the store was prepared in another way than that of the training; the
            file's metadata says what differs.
        last: with the last checkpoint of a run, whose training need not have ended; the file's
            metadata says how far it was.
        pools: further poolings of the same tokens, as a list or as text such as
            `mean,mean+std,cls@6` (after the sixth block). Each is a file beside `out` with its
            untrained control, such as `OUT.cls@6.parquet`; `evaluate` can choose among them.

    Returns:
        The path of `out`.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other.
    """
    if hint := swapped("embed", {"run": run, "store": store, "out": out}):
        raise RunError(hint)
    opened = Store(store)
    encoder = Encoder.from_pretrained(run, last)
    check_fits(encoder.config, opened)
    check_like(encoder.config, opened, any_store)
    own, *others = _poolings(encoder, pools)
    for pooling in (None, *others):
        Embeddings.check(out if pooling is None else pooled_path(out, pooling))
    recipe, facts = None, dict[str, Any]()
    if (Path(run) / "recipe.yaml").is_file():
        folder = RunFolder(run)
        recipe, facts = folder.recipe(), {"pretrained_on": folder.subjects()}
        if last and encoder.config.epochs != recipe.optim.epochs:
            done = f"{encoder.config.epochs} of {recipe.optim.epochs} epochs"
            facts["unfinished"] = done
            say(f"{run}: its training has not ended; embedded with what it is after {done}")
        # An older version's encoder says "vitae++" whatever its losses were; its recipe knows.
        facts |= {"method": recipe.method, "name": recipe.name}
    how: dict[str, Any] = {"batch_size": batch_size, "device": device}
    how |= {"precision": precision or encoder.config.precision, "any_store": any_store}
    how |= {"poolings": [own, *others] if others else None}
    trained = embed_store(encoder, opened, **how)
    # Names, no paths: the file is passed on.
    origin: dict[str, Any] = {"run": Path(run).resolve().name, "encoder": weights_id(run)}
    origin["epochs"] = encoder.config.epochs
    trained = replace(trained, provenance=origin | trained.provenance | facts)
    measured: dict[str, npt.NDArray[np.float32]] = {}
    if controls:
        if recipe is not None:
            like_training = replace(opened.info, modalities=encoder.config.modalities)
            untrained = Encoder.untrained(recipe, like_training)
            measured["untrained"] = untrained.embed(opened, **how, task="embedding, untrained")
        measured["raw"] = raw_features(opened)
    widths = [encoder.backbone.width(pooling.pool) for pooling in (own, *others)]
    ends = np.cumsum(widths).tolist()
    names = [Path(out).name, *(pooled_path(out, pooling).name for pooling in others)]
    beside = [control_path(name, control).name for name in names for control in CONTROLS]
    # Where the embeddings are, their controls are too.
    with together(Path(out).parent, *reversed(names), optional=beside) as staged:
        for name, pooling, end, width in zip(names, (own, *others), ends, widths, strict=True):
            columns = slice(end - width, end)
            facts = trained.provenance | pooling._asdict()
            for control, every in measured.items():
                if control == "raw" and pooling is not own:
                    continue
                features = every if control == "raw" else every[:, columns]
                named = replace(
                    trained,
                    features=features,
                    provenance=facts | {"method": control, "name": ""},
                )
                named.save(control_path(staged / name, control))
            kept = replace(trained, features=trained.features[:, columns], provenance=facts)
            kept.save(staged / name)
    if Path(out).suffix.lower() == ".csv":
        say(
            f"{out}: CSV, for other programs; it does not keep which run and store it is of, as a "
            "name in .parquet does"
        )
    return Path(out)


def _poolings(encoder: Encoder, pools: Sequence[str] | str) -> list[Pooling]:
    """The encoder's own pooling, then the others that are asked for.

    Raises:
        RunError: an encoder without tokens, or a block that it does not have.
    """
    own = Pooling(encoder.config.pool, encoder.config.block)
    others = parse_poolings(pools)
    if others and encoder.config.backbone != "vit":
        raise RunError(
            f"`pools` are of the tokens of a vision transformer, and the encoder is a "
            f"{encoder.config.backbone}; embed without them"
        )
    depth = encoder.config.shape.get("depth", 0)
    for pooling in others:
        if pooling.block is not None and pooling.block > depth:
            raise RunError(f"pooling {pooling}: the encoder has {counted(depth, 'block')}")
    # All blocks and the last one are the same.
    whole = [p._replace(block=None) if p.block == depth else p for p in (own, *others)]
    return list(dict.fromkeys(whole))


def embed_store(
    encoder: Encoder,
    store: Store,
    *,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    precision: str | None = None,
    any_store: bool = False,
    poolings: Sequence[Pooling] | None = None,
) -> Embeddings:
    """Features of every subject of a store, with its labels and where they are from.

    `Encoder.embed` gives the array alone.

    Args:
        encoder: trained, or `Encoder.untrained` for the control.
        store: prepared like the one that the encoder was trained on.
        batch_size: images at a time; chosen by their size by default.
        device: where to compute; an accelerator if there is one by default.
        precision: other than the encoder's own: `32`, `bf16`, `16` or `auto`.
        any_store: also where the store was prepared in another way than that of the training.
        poolings: other than the encoder's own; their features are joined.

    Raises:
        RunError: the store's images are of another kind, or features are not finite.

    Example:
        >>> encoder = Encoder.from_pretrained("run")                      # doctest: +SKIP
        >>> embeddings = embed_store(encoder, Store("store"))             # doctest: +SKIP
        >>> embeddings.features.shape, embeddings.table.columns.tolist()  # doctest: +SKIP
        ((120, 384), ['subject', 'grade', 'split'])
    """
    check_fits(encoder.config, store)
    differences = check_like(encoder.config, store, any_store)
    say_unlike(encoder.config, store, differences)
    for on, count in store.centred_otherwise().items():
        say(
            f"{store.path}: {count} of {len(store)} crops are centred on the {on}, because they "
            f"have no {store.info.center}"
        )
    lacking = [m for m in encoder.config.modalities if m not in store.info.modalities]
    if lacking:
        say(f"{store.path}: embedded without {', '.join(lacking)}, which the store does not have")
    keep_freed_memory()
    computing = chosen_device(device)
    precision = resolved_precision(precision or encoder.config.precision, computing)
    say_emulated(precision, computing)
    features = encoder.embed(
        store,
        batch_size=batch_size,
        device=computing,
        precision=precision,
        any_store=True,
        poolings=poolings,
    )
    provenance = {
        "store": store.name,
        "images": store.fingerprint(),
        "precision": precision,
        "prepared": asdict(store.info),
        **({"unlike": differences} if differences else {}),
        "method": encoder.config.method,
        "name": encoder.config.name,
    }
    return Embeddings(store.table[["subject", *store.label_columns, "split"]], features, provenance)


def say_unlike(config: EncoderConfig, store: Store, differences: Sequence[str]) -> None:
    """Say how a store differs from that of the encoder's training, or that this is not known."""
    if differences:
        say(f"{store.path}: used as it is, with {', '.join(differences)} in the encoder's training")
    elif config.prepared is None:
        say(
            f"{store.path}: an older version made the encoder, and it is not known how its own "
            "store was prepared; check that this one was prepared alike"
        )


def raw_features(store: Store) -> npt.NDArray[np.float32]:
    """Raw intensities of a store's images, in at most as many coordinates as there are images.

    Images are points; where there are fewer of them than voxels, they are turned (an isometry:
    inner products stay) into a space of as many dimensions as images. So a classifier, or a PCA
    fitted on some of them, gives what it would give on the voxels themselves.

    Returns:
        `(image, coordinate)`, intensities in [0, 1].
    """
    shape = store.info.shape
    count, values = len(store), int(np.prod(shape))
    if values > count > RAW_VALUES:
        # Too many to turn: a table of all pairs would not fit. Coarser images stand in.
        factor = (values / RAW_VALUES) ** (1 / store.info.ndim)
        pooled = tuple(max(1, int(n / factor)) for n in store.info.size)
        adapt: Any = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[store.info.ndim]
        blocks = (
            adapt(torch.from_numpy(block).float(), pooled).flatten(1).numpy()
            for block in store.batches(64)
        )
        return np.concatenate(list(blocks), dtype=np.float32) / np.float32(255)
    step = max(1, 2**27 // values)
    starts = range(0, count, step)

    def block(start: int) -> npt.NDArray[np.float32]:
        rows = range(start, min(start + step, count))
        return store.read(rows).reshape(len(rows), -1).astype(np.float32) / np.float32(255)

    if values <= count:
        return np.concatenate([block(start) for start in starts], dtype=np.float32)
    gram = np.empty((count, count))
    for start in track(starts, "raw intensities", len(starts), unit="blocks"):
        first = block(start)
        for other in range(start, count, step):
            second = first if other == start else block(other)
            part = first.astype(np.float64) @ second.T.astype(np.float64)
            gram[start : start + step, other : other + step] = part
            gram[other : other + step, start : start + step] = part.T
    values_, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(values_.clip(min=0))).astype(np.float32)
