"""Pre-training: a recipe and a store become a run folder, under Lightning."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from vitaepp.data.checkpoints import load_checkpoint, newest_checkpoint, progress_of
from vitaepp.data.inspection import OF_RUN, PAGE_OF_RUN, ContactSheet, save_page
from vitaepp.data.loading import EpochOrder, TrainingLoader, training_loader, training_rows
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError, TrainingError, one_line
from vitaepp.methods import Method
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe, as_settings, flatten
from vitaepp.system.compat import compile_error, lightning_hint
from vitaepp.system.devices import Machine, chosen_device, device_name, resolved_precision
from vitaepp.system.files import (
    clear_temporaries,
    locked,
    make_folder,
    naming,
    write_json,
    write_text,
)
from vitaepp.system.host import keep_freed_memory
from vitaepp.system.paths import swapped
from vitaepp.system.progress import counted, say
from vitaepp.system.text import dimensions
from vitaepp.training.batchnorm import join_batch_norms
from vitaepp.training.callbacks import Checkpoints, History, LossBalance, TrainingProgress
from vitaepp.training.checkpoints import AtomicCheckpoints
from vitaepp.training.launch import devices_per_node, find_cluster, train_in_processes
from vitaepp.training.module import Training
from vitaepp.training.propose import Images, proposed_recipe
from vitaepp.training.sharding import ShardedStrategy
from vitaepp.training.step import prepare_for_training

#: The one setting that may change when a training goes on.
EPOCHS = "optim.epochs"

#: What Lightning calls a precision.
LIGHTNING_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def pretrain(
    store: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    resume: bool = False,
    subjects: Sequence[str] | None = None,
) -> Path:
    """Train an encoder on a store.

    Args:
        store: prepared store.
        run: folder for everything that the training leaves; see `RunFolder`.
        recipe: a recipe, its name, or its file. Without it, what suits the store and the machine:
            the paper's settings where they fit; each choice is said, and kept in the run's recipe.
        settings: changes to it, such as `"optim.epochs=100"`; one, or several.
        resume: go on with the run from its last checkpoint, with the recipe that it began with.
            Of the settings, `optim.epochs` may be another then, above what is done: the schedules
            go on as those of the new length, which is told.
        subjects: train on these only, for example a fold's training part; all without it. They
            are listed in the run's subjects.txt.

    Returns:
        The run folder.

    Raises:
        RecipeError, StoreError: settings or store do not fit.
        RunError: the folder holds another run, or none to resume.
        TrainingError: a loss term is not finite.
    """
    if told := swapped("pretrain", {"store": store, "run": run}):
        raise RunError(told)
    opened = Store(store)
    folder = RunFolder(run, must_exist=False)
    own = resume and recipe is None
    if own:
        if folder.recipe_file.is_file():
            recipe = folder.recipe_file  # settings are changes to what the run began with
        elif not settings:
            # Starting anew with the defaults, which take days, is not what was meant.
            raise RunError(
                f"{folder.path}: a checkpoint without its recipe.yaml; name the recipe that it "
                "began with by --recipe"
                if folder.checkpoint.is_file()
                else f"{folder.path}: no run to resume; leave out --resume to start one"
            )
    chosen, choices = recipe_for(opened, recipe, settings, subjects)
    # What the store was prepared with is a fact, whatever the recipe says.
    chosen = chosen.changed(prepare=opened.info.settings)
    with _quiet_lightning():
        cluster = find_cluster()
    devices = devices_per_node(chosen.trainer, cluster)
    if cluster is None and devices > 1:
        _tell(choices)
        asked, changes = (None, settings) if own else (chosen, ())
        train_in_processes(devices, store, run, asked, changes, resume, subjects)
        return folder.path
    first = cluster is None or cluster.global_rank() == 0
    with _quiet_lightning(), nullcontext() if first else redirect_stderr(io.StringIO()):
        if resume and folder.recipe_file.is_file():
            began = folder.subjects()
            if subjects is not None and began != list(subjects):
                raise RunError(
                    f"{folder.path}: began with other subjects; resume without --subjects, or "
                    "start another run"
                )
            subjects = began
        if first:
            _check_folder(folder, chosen, resume, own)
        checkpoint = newest_checkpoint(folder) if resume else None
        # Whatever does not fit is refused before anything is written.
        _check_classes(opened, chosen)
        rows = training_rows(opened, chosen.data, subjects)
        module = Training(chosen, opened, resumed=checkpoint is not None, rows=rows)
        _tell(choices)
        place = _Place(cluster, devices)
        if not first:
            _train(opened, rows, module, folder, checkpoint, place)
            return folder.path
        make_folder(folder.path)
        try:
            with naming(folder.path), locked(folder.path):
                clear_temporaries(folder.path, *(path.name for path in folder.of_training))
                if subjects is None:
                    folder.subjects_file.unlink(missing_ok=True)
                else:
                    write_text(folder.subjects_file, "".join(f"{s}\n" for s in subjects))
                _train(opened, rows, module, folder, checkpoint, place)
        except BlockingIOError:
            raise RunError(f"{folder.path}: another training is writing here; let it end") from None
    return folder.path


@dataclass(frozen=True)
class _Place:
    """Who started this process, and how many there are on each machine."""

    cluster: ClusterEnvironment | None
    devices: int


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool, own: bool) -> None:
    """Refuse to write over what is there, or to go on with another run.

    Args:
        folder: of the run.
        recipe: to train with.
        resume: go on with the run.
        own: the recipe is the run's, with what the user changes in it.
    """
    saved = folder.checkpoint.is_file() or folder.checkpoint_before.is_file()
    if saved or folder.encoder.is_dir():
        if not resume:
            raise RunError(
                f"{folder.path}: holds a run already; add --resume to go on with it, or choose "
                "another folder"
            )
        if not saved:
            # What it would leave until it ends is an encoder of another training.
            raise RunError(
                f"{folder.path}: holds an encoder, but no checkpoint to go on from; choose another "
                "folder"
            )
        _check_same(folder, recipe, own)
    elif folder.path.exists() and not folder.path.is_dir():
        raise RunError(f"{folder.path}: is a file; a run is a folder")
    elif (
        folder.path.is_dir()
        and not folder.recipe_file.is_file()
        and any(not path.name.startswith(".") for path in folder.path.iterdir())
    ):
        raise RunError(f"{folder.path}: not empty and not a run; choose another folder")
    elif resume:
        say(f"{folder.path}: nothing to go on from; starting anew")


def _train(
    store: Store,
    rows: list[int],
    module: Training,
    folder: RunFolder,
    checkpoint: Path | None,
    place: _Place,
) -> None:
    recipe = module.recipe
    history = History(folder)
    trainer = _trainer(recipe, folder, history, place, damaged=checkpoint != folder.checkpoint)
    method, processes = module.method, trainer.world_size
    order = EpochOrder(
        rows,
        recipe.optim.batch_size,
        recipe.seed,
        trainer.global_rank,
        processes,
        smallest=method.smallest_batch,
        accumulate=recipe.optim.accumulate,
    )
    if len(order) == 0:
        raise TrainingError(
            f"{len(rows)} subjects to train on in batches of {recipe.optim.batch_size} on "
            f"{processes} devices, but {recipe.method} needs batches of at least {order.smallest}, "
            "those of all devices together"
        )
    if checkpoint is not None and not _go_on(checkpoint, folder, module, store, order):
        kept, file = recipe.to_yaml(), folder.recipe_file
        if trainer.is_global_zero and not (file.is_file() and file.read_text("utf-8") == kept):
            recipe.save(file)  # a change of the length may have been taken back
        return
    device = trainer.strategy.root_device
    loader = training_loader(store, recipe.data, order, device, place.devices)
    described = _describe(store, recipe, method, len(rows), device, processes)
    if trainer.is_global_zero:
        recipe.save(folder.recipe_file)
        write_json(folder.summary_file, described)
        sheet = ContactSheet(store, store.spread(OF_RUN), PAGE_OF_RUN)
        save_page(next(iter(sheet)), folder.pictures)
        _announce(recipe, store, described)
    keep_freed_memory()
    prepare_for_training(method)
    if processes > 1:
        join_batch_norms(method, device)
    started = time.monotonic()
    with _errors_of_others(processes):
        _fit(trainer, module, loader, checkpoint)
    if trainer.is_global_zero:
        # The last checkpoint has all of it, whatever the weights were spread over.
        Encoder.from_checkpoint(folder.checkpoint).save(folder.encoder)
        described |= {
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - started + module.seconds_before, 1),
            "waiting": round(history.waiting, 4),
            **({"lengths": module.lengths} if module.lengths else {}),
        }
        write_json(folder.summary_file, described)
        say(
            f"trained {counted(recipe.optim.epochs, 'epoch')} in {described['seconds']:.0f} s, "
            f"{described['waiting']:.1%} of it waiting for data: {folder.path}"
        )


def _go_on(
    checkpoint: Path, folder: RunFolder, module: Training, store: Store, order: EpochOrder
) -> bool:
    """Begin where the checkpoint ended; whether there is anything left to do.

    Raises:
        RunError: the training began on other images.
    """
    recipe = module.recipe
    if checkpoint != folder.checkpoint:
        say(f"{folder.checkpoint}: missing or damaged; going on from {checkpoint.name} before it")
    loaded = load_checkpoint(checkpoint)
    epochs, steps = progress_of(loaded)
    began = loaded["vitaepp"].get("images")
    same = began in (None, module.images)
    length, before = recipe.optim.epochs, loaded["vitaepp"]["recipe"]["optim"]["epochs"]
    if epochs >= length and length != before:
        raise RunError(
            f"{folder.path}: {epochs} epochs are done already, {EPOCHS}={length} must be more; to "
            "use the training as it is, embed with --last; for a shorter one, start another run"
        )
    if epochs >= length:
        if not _is_of(folder.encoder, epochs):
            return True
        other = "" if same else f", on other images than those of {store.path} today"
        say(f"{folder.path}: training has ended already, after {epochs} epochs{other}")
        return False
    if not same:
        raise RunError(
            f"{folder.path}: began on other images than those of {store.path} today: another "
            "store, or one whose subjects, scans or preparation have changed since; go on with "
            "the store as it was, or start another run"
        )
    if began is None:
        say(f"{checkpoint}: of an older version, does not tell on which images training began")
    order.go_on(epochs, steps)
    after = f" and {steps} of {len(order)} steps" if steps else ""
    say(f"going on after epoch {epochs} of {recipe.optim.epochs}{after}")
    return True


def _trainer(
    recipe: Recipe, folder: RunFolder, history: History, place: _Place, damaged: bool
) -> L.Trainer:
    precision = resolved_precision(recipe.trainer.precision, chosen_device())
    plugins: list[Any] = [AtomicCheckpoints(folder, damaged)]
    if place.cluster is not None:
        plugins.append(place.cluster)
    return L.Trainer(
        max_epochs=recipe.optim.epochs,
        accelerator="auto",
        devices=place.devices,
        num_nodes=recipe.trainer.nodes,
        strategy=_strategy(recipe, place.devices * recipe.trainer.nodes),
        precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        accumulate_grad_batches=recipe.optim.accumulate,
        gradient_clip_val=recipe.optim.clip_norm,
        plugins=plugins,
        callbacks=[LossBalance(), history, Checkpoints(folder, history), TrainingProgress()],
        logger=_tensorboard(folder),
        default_root_dir=folder.path,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        benchmark=torch.cuda.is_available(),
    )


def _strategy(recipe: Recipe, processes: int) -> str | Strategy:
    if processes == 1:
        return "auto"
    if recipe.trainer.strategy == "fsdp":
        if recipe.trainer.compile != "none":
            raise RecipeError(
                f"trainer.compile={recipe.trainer.compile} does not go with trainer.strategy=fsdp; "
                "set one of them to none or ddp"
            )
        return ShardedStrategy(processes)
    return DDPStrategy(gradient_as_bucket_view=True)


def _fit(
    trainer: L.Trainer, module: Training, loader: TrainingLoader, checkpoint: Path | None
) -> None:
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into a silent exit.
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except compile_error() as error:
        raise TrainingError(
            f"trainer.compile={module.recipe.trainer.compile}: torch could not compile the model "
            f"({one_line(error)[:200]}); a C++ compiler is needed. Set trainer.compile=none"
        ) from None


@contextmanager
def _errors_of_others(processes: int) -> Iterator[None]:
    """When a process fails, the others only see that it no longer answers."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if processes > 1 and lost:
            raise TrainingError(
                "another process of this training has ended; what it said before tells why"
            ) from None
        raise


def _is_of(encoder: Path, epochs: int) -> bool:
    """Whether an encoder is there, and of so many epochs as far as it tells."""
    return encoder.is_dir() and Encoder.from_pretrained(encoder).config.epochs in (None, epochs)


def _tell(choices: Sequence[Choice]) -> None:
    for choice in choices:
        say(f"{choice}: {choice.reason}")


def recipe_for(
    store: Store,
    recipe: Recipe | str | os.PathLike[str] | None,
    settings: str | Sequence[str],
    subjects: Sequence[str] | None,
) -> tuple[Recipe, tuple[Choice, ...]]:
    """What the user asked for, or where no recipe was named what suits store and machine."""
    settings = as_settings(settings)
    if isinstance(recipe, Recipe):
        return recipe.with_settings(settings), ()
    asked = Recipe.load(recipe, settings)
    if recipe is not None:
        return asked, ()
    rows = training_rows(store, asked.data, subjects)
    images = Images.of(store.info, trained=len(rows), stored=len(store))
    return proposed_recipe(images, Machine.here(), settings)


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


def _check_same(folder: RunFolder, now: Recipe, own: bool) -> None:
    """Refuse to go on with another recipe; only the run's own may have another length."""
    before, after = flatten(folder.recipe().model_dump()), flatten(now.model_dump())
    names = before | after  # a modality's window is a name that the other may not have
    other = [k for k in names if before.get(k) != after.get(k) and not (own and k == EPOCHS)]
    if not other:
        return
    name = other[0]
    how = "resume without settings, or start another run"
    if name == EPOCHS:
        how = f"to change the length, leave out --recipe: --resume --set {EPOCHS}={after[name]}"
    raise RunError(
        f"{folder.path}: began with {name}={before.get(name)}, now asked to go on with "
        f"{after.get(name)}; {how}"
    )


def _tensorboard(folder: RunFolder) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.path, name="tensorboard", version="")


def _describe(
    store: Store,
    recipe: Recipe,
    method: Method,
    trained_on: int,
    device: torch.device,
    processes: int,
) -> dict[str, Any]:
    info = store.info
    encoder = sum(
        p.numel()
        for name, p in method.backbone.named_parameters()
        if not name.startswith(("decoder_", "mask_token"))
    )
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return {
        "method": recipe.method,
        "name": recipe.name,
        "store": {
            "subjects": len(store),
            "modalities": list(info.modalities),
            "size": list(info.size),
            "spacing": None if info.spacing is None else list(info.spacing),
            "unit": info.unit,
            "label_columns": store.label_columns,
        },
        "trained_on": trained_on,
        "parameters": {"encoder": encoder, "decoder": trained - encoder},
        "epochs": recipe.optim.epochs,
        "device": device_name(device),
        "devices": processes,
        "precision": LIGHTNING_PRECISION[resolved_precision(recipe.trainer.precision, device)],
        "versions": {name: version(name) for name in ("vitaepp", "torch", "lightning")},
    }


def _announce(recipe: Recipe, store: Store, described: Mapping[str, Any]) -> None:
    size = dimensions(store.info.size)
    images, epochs = counted(described["trained_on"], "image"), recipe.optim.epochs
    say(
        f"{recipe.name} on {images} of {len(store.info.modalities)} × {size}, "
        f"{described['parameters']['encoder'] / 1e6:.1f} M encoder parameters, "
        f"{counted(epochs, 'epoch')}, on {described['device']} in {described['precision']}"
        + (f", {described['devices']} processes" if described["devices"] > 1 else "")
    )
    if incomplete := int((~store.present.all(axis=1)).sum()):
        say(f"{incomplete} of {len(store)} subjects lack a modality, which then counts in no loss")
    facts = METHODS[recipe.method]
    if facts.smallest_batch > 1 and recipe.optim.accumulate > 1:
        say(
            f"optim.accumulate={recipe.optim.accumulate}: {recipe.method} compares and normalises "
            "the images of one step, so that this is not the same as a larger batch"
        )
    perceptual = recipe.loss.perceptual
    if facts.masked and perceptual.weight and perceptual.weights == "random":
        say(
            "the perceptual loss looks through a VGG-16 with random weights; for medical images "
            "the paper uses ImageNet's: --set loss.perceptual.weights=imagenet"
        )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's banners and hints say nothing that a user of this library could act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lightning_hint())
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
