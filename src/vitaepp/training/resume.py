"""Whether a run folder can be begun, or gone on with, and from where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitaepp.data.checkpoints import load_checkpoint, progress_of
from vitaepp.data.loading import EpochOrder, training_rows
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import OtherRunError, OtherSubjectsError, RecipeError, RunError
from vitaepp.recipe.recipe import Recipe, flatten
from vitaepp.recipe.sections import DataSettings
from vitaepp.system.progress import counted, say
from vitaepp.system.text import as_typed, first_few
from vitaepp.training.module import Training

#: The setting that may change when a training goes on and changes what comes out: its length.
EPOCHS = "optim.epochs"

#: Those that may change because they do not: how steps are launched, how images are read, what is
#: looked at and when it is saved.
HARMLESS = {
    "trainer.replay",
    "trainer.watch",
    "trainer.checkpoint_every",
    "data.cache",
    "data.workers",
}


def recipe_to_resume(
    folder: RunFolder, settings: str | Sequence[str], hours: bool = False
) -> Recipe | None:
    """The recipe that a run began with; None for a run that what is given can begin.

    Args:
        folder: of the run.
        settings: that the user gave.
        hours: the user gave a time.

    Raises:
        RunError: there is none, and neither settings nor a time. Beginning anew with the defaults,
            which takes days, is not what was meant then.
    """
    if folder.recipe_file.is_file():
        return folder.recipe()
    if settings or (hours and not folder.checkpoint.is_file()):
        return None
    raise RunError(
        f"{folder.path}: a checkpoint without its recipe.yaml; name the recipe that it began with "
        "by `recipe`"
        if folder.checkpoint.is_file()
        else f"{folder.path}: no run to resume; leave out `resume` to start one"
    )


def subjects_to_resume(
    folder: RunFolder, subjects: Sequence[str] | None, store: Store, settings: DataSettings
) -> Sequence[str] | None:
    """The subjects that a run began with; None if these were all.

    Args:
        folder: of the run.
        subjects: that the user listed; their order is no matter, and neither are those that are
            not trained on.
        store: what is trained on.
        settings: which subjects of it are.

    Raises:
        RunError: others are given.
    """
    began = folder.subjects()
    if subjects is None:
        return began
    rows = [training_rows(store, settings, listed) for listed in (began, subjects)]
    if began is None or rows[0] != rows[1]:
        raise OtherSubjectsError(
            f"{folder.path}: began with other subjects; resume without `subjects`, or start "
            "another run"
        )
    return began


def check_folder(
    folder: RunFolder, recipe: Recipe, resume: bool, own: bool, checkpoint: Path | None
) -> None:
    """Refuse to write over what is there, or to go on with another run.

    Args:
        folder: of the run.
        recipe: to train with.
        resume: go on with the run.
        own: the recipe is the run's, with what the user changes in it.
        checkpoint: of the run, to go on from.

    Raises:
        RunError: saying which.
    """
    saved = folder.checkpoint.is_file() or folder.checkpoint_before.is_file()
    if saved or folder.encoder.is_dir():
        if not resume:
            raise RunError(
                f"{folder.path}: holds a run already; add `resume=True` to go on with it, or "
                "choose another folder"
            )
        if checkpoint is None:
            # What it would leave until it ends is an encoder of another training.
            raise RunError(
                f"{folder.path}: holds an encoder, but no checkpoint to go on from; choose another "
                "folder"
            )
        _check_same(folder, recipe, own, checkpoint)
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


def _check_same(folder: RunFolder, now: Recipe, own: bool, checkpoint: Path) -> None:
    """Refuse to go on with another recipe; only the run's own may have another length.

    What the training began with is in its checkpoint: recipe.yaml may have been edited since.
    """
    try:
        began = Recipe.of_run(load_checkpoint(checkpoint)["vitaepp"]["recipe"], str(checkpoint))
    except RecipeError as error:  # nobody can mend a checkpoint, as one can recipe.yaml
        say(f"{error}: compared with {folder.recipe_file.name} alone")
        began = folder.recipe()
    before, after = flatten(began.model_dump()), flatten(now.model_dump())
    kept = flatten(folder.recipe().model_dump()) if folder.recipe_file.is_file() else before
    before[EPOCHS] = kept[EPOCHS]  # another length is there before a checkpoint has it
    free = {*HARMLESS, EPOCHS} if own else HARMLESS
    other = [
        name
        for name in before | after  # a modality's window is a name that the other may not have
        if before.get(name) != after.get(name)
        and name not in free
        and not name.startswith("finetune.")
    ]
    if not other:
        return
    name, *more = other
    if name == EPOCHS:
        how = "to change the length, leave out `recipe`: `resume=True` "
        how += f"`settings={EPOCHS}={after[name]}`"
    elif kept.get(name) != before.get(name):
        how = f"undo the change in {folder.recipe_file.name}, or start another run"
    else:
        how = "resume without settings, or start another run"
    raise OtherRunError(
        f"{folder.path}: began with {name}={as_typed(before.get(name))}, now asked to go on with "
        f"{as_typed(after.get(name))}"
        + (f", and with another {first_few(more)}" if more else "")
        + f"; {how}"
    )


def go_on(
    checkpoint: Path, folder: RunFolder, module: Training, store: Store, order: EpochOrder
) -> bool:
    """Let a training begin where its checkpoint ended.

    Args:
        checkpoint: the last one, or the one before.
        folder: of the run.
        module: what is trained.
        store: what it is trained on.
        order: of the images, which skips what is done.

    Returns:
        Whether there is anything left to do.

    Raises:
        RunError: the training began on other images, or more epochs are done than are wanted.
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
            f"{folder.path}: {counted(epochs, 'epoch')} {'is' if epochs == 1 else 'are'} done "
            f"already, {EPOCHS}={length} must be more; to use the training as it is, embed with "
            "`last=True`; for a shorter one, start another run"
        )
    if epochs >= length and _is_of(folder.encoder, epochs):
        other = "" if same else f", on other images than those of {store.path} today"
        say(f"{folder.path}: training has ended already, after {counted(epochs, 'epoch')}{other}")
        return False
    if not same:
        raise RunError(
            f"{folder.path}: began on other images than those of {store.path} today: another "
            "store, or one whose subjects, scans or preparation have changed since; go on with "
            "the store as it was, or start another run"
        )
    if epochs >= length:  # the encoder alone is to be written
        return True
    if began is None:
        say(f"{checkpoint}: of an older version, does not tell on which images training began")
    order.go_on(epochs, steps)
    after = f" and {steps} of {len(order)} steps" if steps else ""
    say(f"going on after epoch {epochs} of {recipe.optim.epochs}{after}")
    return True


def _is_of(encoder: Path, epochs: int) -> bool:
    """Whether an encoder is there, and of so many epochs as far as it tells."""
    return encoder.is_dir() and Encoder.from_pretrained(encoder).config.epochs in (None, epochs)
