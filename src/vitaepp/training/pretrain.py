"""Pre-training: a recipe and a store become a run folder, under Lightning."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

from vitaepp.choices import Choice
from vitaepp.encoder import Encoder, EncoderConfig
from vitaepp.errors import RecipeError, RunError, TrainingError
from vitaepp.files import locked, write_json, write_text
from vitaepp.methods import Method
from vitaepp.progress import say
from vitaepp.recipe import Recipe, flatten
from vitaepp.runfolder import RunFolder
from vitaepp.store import Store
from vitaepp.training.callbacks import Checkpoints, History, TrainingProgress
from vitaepp.training.checkpoints import AtomicCheckpoints, load_checkpoint
from vitaepp.training.data import EpochOrder, training_loader, training_rows
from vitaepp.training.machine import Machine, has_bf16
from vitaepp.training.module import Training
from vitaepp.training.proposal import Images, proposed_recipe


def pretrain(
    store: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    settings: Sequence[str] = (),
    resume: bool = False,
    subjects: Sequence[str] | None = None,
) -> Path:
    """Train an encoder on a store.

    Args:
        store: prepared store.
        run: folder for everything that the training leaves; see `RunFolder`.
        recipe: a recipe, its name, or its file. Without it, what suits the store and the machine:
            the paper's settings where they fit; each choice is said, and kept in the run's recipe.
        settings: changes to it, such as `"optim.epochs=100"`.
        resume: go on with the run from its last checkpoint, with the recipe that it began with.
        subjects: train on these only, for example a fold's training part; all without it. They
            are listed in the run's subjects.txt.

    Returns:
        The run folder.

    Raises:
        RecipeError, StoreError: settings or store do not fit.
        RunError: the folder holds another run, or none to resume.
        TrainingError: a loss term is not finite.
    """
    opened = Store(store)
    folder = RunFolder(run, must_exist=False)
    if resume and recipe is None:
        if folder.recipe_file.is_file():
            recipe = folder.recipe_file  # settings are changes to what the run began with
        elif not settings:
            # Starting anew with the defaults, which take days, is not what was meant.
            raise RunError(f"{folder.path}: no run to resume; leave out --resume to start one")
    chosen, choices = _recipe(opened, recipe, settings, subjects)
    # What the store was prepared with is a fact, whatever the recipe says.
    chosen = chosen.changed(prepare=_prepare_settings(opened))
    if resume and folder.recipe_file.is_file():
        began = folder.subjects()
        if subjects is not None and began != list(subjects):
            raise RunError(
                f"{folder.path}: began with other subjects; resume without --subjects, or start "
                "another run"
            )
        subjects = began
    checkpoint = None
    if folder.checkpoint.is_file():
        if not resume:
            raise RunError(
                f"{folder.path}: holds a run already; add --resume to go on with it, or choose "
                "another folder"
            )
        _check_same(folder, chosen)
        checkpoint = folder.checkpoint
    elif folder.path.exists() and not folder.path.is_dir():
        raise RunError(f"{folder.path}: is a file; a run is a folder")
    elif folder.path.is_dir() and not folder.recipe_file.is_file() and any(folder.path.iterdir()):
        raise RunError(f"{folder.path}: not empty and not a run; choose another folder")
    elif resume:
        say(f"{folder.path}: nothing to go on from; starting anew")
    # Whatever does not fit is refused before anything is written.
    _check_classes(opened, chosen)
    rows = training_rows(opened, chosen.data, subjects)
    module = Training(chosen, opened, resumed=checkpoint is not None)
    for choice in choices:
        say(f"{choice}: {choice.reason}")
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder.path), _quiet_lightning():
            if subjects is None:
                folder.subjects_file.unlink(missing_ok=True)
            else:
                write_text(folder.subjects_file, "".join(f"{s}\n" for s in subjects))
            _train(opened, rows, module, folder, checkpoint)
    except BlockingIOError:
        raise RunError(f"{folder.path}: another training is writing here; let it end") from None
    return folder.path


def _train(
    store: Store, rows: list[int], module: Training, folder: RunFolder, checkpoint: Path | None
) -> None:
    recipe = module.recipe
    if checkpoint is not None:
        epoch = int(load_checkpoint(checkpoint)["epoch"]) + 1
        if epoch >= recipe.optim.epochs and folder.encoder.is_dir():
            say(f"{folder.path}: training has ended already, after {epoch} epochs")
            return
        say(f"going on after epoch {epoch} of {recipe.optim.epochs}")
    recipe.save(folder.recipe_file)
    trainer = L.Trainer(
        max_epochs=recipe.optim.epochs,
        accelerator="auto",
        devices=recipe.trainer.devices,
        num_nodes=recipe.trainer.nodes,
        strategy=recipe.trainer.strategy,
        precision=_precision(recipe),  # type: ignore[arg-type]
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm,
        plugins=[AtomicCheckpoints()],
        callbacks=[History(folder), Checkpoints(folder), TrainingProgress()],
        logger=_tensorboard(folder),
        default_root_dir=folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        # Batch norm over all devices; torch has it for GPUs only.
        sync_batchnorm=torch.cuda.is_available(),
        benchmark=torch.cuda.is_available(),
    )
    order = EpochOrder(
        rows,
        recipe.optim.batch_size,
        recipe.seed,
        trainer.global_rank,
        trainer.world_size,
        smallest=module.method.smallest_batch,
    )
    if len(order) == 0:
        least = module.method.smallest_batch
        raise TrainingError(
            f"{len(rows)} subjects to train on in batches of {recipe.optim.batch_size}, but "
            f"{recipe.method} needs batches of at least {least} on each of {trainer.world_size} "
            "devices"
        )
    device = trainer.strategy.root_device
    loader = training_loader(store, recipe.data, order, device)
    described = _describe(store, recipe, module.method, len(rows), device)
    if trainer.is_global_zero:
        write_json(folder.summary_file, described)
        _announce(recipe, store, described)
    started = time.monotonic()
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into a silent exit.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    if trainer.is_global_zero:
        encoder = Encoder(EncoderConfig.of(recipe, store.info.modalities, store.info.size))
        trained = module.method.backbone.state_dict()
        encoder.backbone.load_state_dict({k: trained[k] for k in encoder.backbone.state_dict()})
        encoder.save(folder.encoder)
        described |= {
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - started + module.seconds_before, 1),
        }
        write_json(folder.summary_file, described)
        say(f"trained {recipe.optim.epochs} epochs in {described['seconds']:.0f} s: {folder.path}")


def _recipe(
    store: Store,
    recipe: Recipe | str | os.PathLike[str] | None,
    settings: Sequence[str],
    subjects: Sequence[str] | None,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """What the user asked for, or where no recipe was named what suits store and machine."""
    if isinstance(recipe, Recipe):
        return recipe, ()
    asked = Recipe.load(recipe, settings)
    if recipe is not None:
        return asked, ()
    rows = training_rows(store, asked.data, subjects)
    images = Images.of(store.info, trained=len(rows), stored=len(store))
    return proposed_recipe(images, Machine.here(), settings)


def _prepare_settings(store: Store) -> dict[str, Any]:
    info = store.info
    return {
        "size": info.size,
        "spacing": info.spacing,
        "modalities": info.modalities,
        "center": info.center,
        "dtype": info.dtype,
    }


def _check_classes(store: Store, recipe: Recipe) -> None:
    """A store does not say which classes were left out, so that a recipe's word is checked."""
    wanted = recipe.prepare.classes
    if wanted is not None and "label" in store.label_columns:
        found = store.table["label"].nunique()
        if found > wanted:
            raise RecipeError(
                f"prepare.classes={wanted}: {store.path} has {found} classes; prepare another "
                "store with this recipe"
            )


def _check_same(folder: RunFolder, now: Recipe) -> None:
    began = folder.recipe()
    if began != now:
        before, after = flatten(began.model_dump()), flatten(now.model_dump())
        name = next(k for k in before if before[k] != after[k])
        raise RunError(
            f"{folder.path}: began with {name}={before[name]}, now asked to go on with "
            f"{after[name]}; resume without settings, or start another run"
        )


def _precision(recipe: Recipe) -> str:
    chosen = recipe.trainer.precision
    if chosen == "auto":
        chosen = "bf16" if has_bf16() else "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]


def _tensorboard(folder: RunFolder) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.path, name="tensorboard", version="")


def _describe(
    store: Store, recipe: Recipe, method: Method, trained_on: int, device: torch.device
) -> dict[str, Any]:
    info = store.info
    encoder = sum(
        p.numel()
        for name, p in method.backbone.named_parameters()
        if not name.startswith(("decoder_", "mask_token"))
    )
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "method": recipe.method,
        "store": {
            "subjects": len(store),
            "modalities": list(info.modalities),
            "size": list(info.size),
            "spacing": None if info.spacing is None else list(info.spacing),
            "label_columns": store.label_columns,
        },
        "trained_on": trained_on,
        "parameters": {"encoder": encoder, "decoder": trained - encoder},
        "epochs": recipe.optim.epochs,
        "device": name,
        "precision": _precision(recipe),
        "versions": {name: version(name) for name in ("vitaepp", "torch", "lightning")},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    except OSError:
        pass
    return f"{platform.machine()}, {os.cpu_count()} cores"


def _announce(recipe: Recipe, store: Store, described: Mapping[str, Any]) -> None:
    size = " × ".join(map(str, store.info.size))
    say(
        f"{recipe.method} on {described['trained_on']} images of {len(store.info.modalities)} × "
        f"{size}, {described['parameters']['encoder'] / 1e6:.1f} M encoder parameters, "
        f"{recipe.optim.epochs} epochs, on {described['device']} in {described['precision']}"
    )
    perceptual = recipe.loss.perceptual
    masked = recipe.method in ("vitae++", "vitae")
    if masked and perceptual.weight and perceptual.weights == "random":
        say(
            "the perceptual loss looks through a VGG-16 with random weights; for medical images "
            "the paper uses ImageNet's: --set loss.perceptual.weights=imagenet"
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's banners and hints say nothing that a user of this library could act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
