"""Pre-training: a recipe and a store become a run folder, under Lightning."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from vitaepp.data.checkpoints import newest_checkpoint
from vitaepp.data.inspection import OF_RUN, PAGE_OF_RUN, ContactSheet, save_page
from vitaepp.data.loading import trained_among, training_rows
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.effect import given_names, without_effect
from vitaepp.recipe.recipe import Recipe, as_settings
from vitaepp.system import files
from vitaepp.system.paths import swapped
from vitaepp.system.progress import counted, say
from vitaepp.training.hours import Clock, Pace, recipe_in_hours
from vitaepp.training.launch import devices_per_node, find_cluster, train_in_processes
from vitaepp.training.module import Training
from vitaepp.training.propose import recipe_for
from vitaepp.training.resume import check_folder, recipe_to_resume, subjects_to_resume
from vitaepp.training.run import announce, train
from vitaepp.training.settle import prepare_not_used, settled
from vitaepp.training.threads import free_threads
from vitaepp.training.trainer import Processes, quiet_lightning
from vitaepp.training.watch import watch_of

#: What a training in several processes calls in each of them.
PRETRAIN = f"{__name__}:pretrain"


def pretrain(
    store: str | os.PathLike[str],
    run: str | os.PathLike[str],
    *,
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    settings: str | Sequence[str] = (),
    resume: bool = False,
    subjects: Sequence[str] | None = None,
    hours: float | None = None,
    watch: str | None = None,
) -> Path:
    """Train an encoder on a store.

    Args:
        store: prepared store.
        run: folder for everything that the training leaves; see `RunFolder`.
        recipe: a recipe, its values, its name, or its file. Without it, what suits the store and
            the machine: the paper's settings where they fit. Each choice is printed with its
            reason, and kept in the run's recipe.
        settings: changes to it, such as `"optim.epochs=100"`; one, or several.
        resume: go on with the run from its last checkpoint, with the recipe that it began with.
            Only `optim.epochs` may change, to more than are done, beside settings that change
            no result: the schedules then go on as those of the new length, and a line says so.
        subjects: train on these only, for example a fold's training part; all without it. A line
            names those that are not in the training split. The others are listed in the run's
            subjects.txt.
        hours: end after so much time, from now on. The speed of this machine is measured, and where
            no recipe is named, model and batch are chosen by it, too. Where the speed changes
            later, the training goes on with another length, and a line says so. The run's recipe
            keeps what came out, so that a resumed run has the same length.
        watch: column of labels whose k-NN score is written to metrics.csv every few epochs, as
            `trainer.watch`.

    Returns:
        The run folder.

    Raises:
        RecipeError, StoreError: settings or store do not fit.
        RunError: the folder holds another run, or none to resume.
        TrainingError: a loss term is not finite.
    """
    if message := swapped("pretrain", {"store": store, "run": run}):
        raise RunError(message)
    folder = RunFolder(run, must_exist=False)
    clock = None if hours is None else Clock(hours)
    named = Recipe.parse(recipe) if isinstance(recipe, Mapping) else recipe
    given = given_names(recipe, settings)
    if watch is not None:
        settings = (*as_settings(settings), f"trainer.watch={watch}")
    with free_threads(folder, resume) as threads:
        return _pretrain(
            Store(store), folder, named, settings, resume, subjects, clock, threads, given
        )


def _pretrain(
    opened: Store,
    folder: RunFolder,
    recipe: Recipe | str | os.PathLike[str] | None,
    settings: str | Sequence[str],
    resume: bool,
    subjects: Sequence[str] | None,
    clock: Clock | None,
    threads: str,
    given: Collection[str] = (),
    pace: Pace | None = None,
) -> Path:
    begun = resume and folder.recipe_file.is_file()
    own = resume and (recipe is None or (clock is not None and begun))
    if own:
        # Settings are changes to it.
        recipe = recipe_to_resume(folder, settings, clock is not None)
    if clock is not None and begun:
        say(f"{folder.path}: keeps its length; `hours` is for a run that begins")
        clock = None
    if clock is None:
        chosen, choices = recipe_for(opened, recipe, settings, subjects)
    else:
        chosen, choices = recipe_in_hours(opened, recipe, settings, subjects, clock)
        pace = Pace(clock)
    # What the store was prepared with is a fact, whatever the recipe says.
    not_used = prepare_not_used(chosen, opened.info)
    chosen = chosen.changed(prepare=opened.info.settings)
    with quiet_lightning():
        cluster = find_cluster()
    devices = devices_per_node(chosen.trainer, cluster)
    if cluster is None and devices > 1:
        _say(choices, *without_effect(chosen, given))
        if not_used and not own:  # with the run's own recipe, the first process says it
            say(not_used)
        named, changes = (None, settings) if own else (chosen, ())
        arguments = {
            "store": os.fspath(opened.path),
            "run": os.fspath(folder.path),
            "recipe": None if named is None else named.model_dump(mode="json"),
            "settings": as_settings(changes),
            "resume": resume,
            "subjects": None if subjects is None else list(subjects),
        }
        train_in_processes(devices, PRETRAIN, arguments, folder, resume)
        return folder.path
    first = cluster is None or cluster.global_rank() == 0
    with quiet_lightning(), nullcontext() if first else redirect_stderr(io.StringIO()):
        if resume and folder.recipe_file.is_file():
            subjects = subjects_to_resume(folder, subjects, opened, chosen.data)
        processes = Processes(cluster, devices)
        rows, others = training_rows(opened, chosen.data, subjects), ""
        if subjects is not None:
            subjects, others = trained_among(opened, chosen.data, rows, subjects)
        chosen, notes = settled(chosen, opened, rows, devices * chosen.trainer.nodes)
        checkpoint = newest_checkpoint(folder) if resume else None
        if first:
            check_folder(folder, chosen, resume, own, checkpoint)
        # Whatever does not fit is refused before anything is written.
        _check_classes(opened, chosen)
        watch = watch_of(opened, chosen, rows)
        module = Training(chosen, opened, resumed=checkpoint is not None, rows=rows)
        idle = without_effect(chosen, given)
        _say(choices, *idle, *filter(None, (not_used, others, *notes)))

        def begin(described: Mapping[str, Any]) -> None:
            if threads:
                say(threads)
            sheet = ContactSheet(opened, opened.spread(OF_RUN), PAGE_OF_RUN)
            save_page(next(iter(sheet)), folder.pictures)
            announce(chosen, opened, described)

        more = () if pace is None else (pace,)
        with _claimed(folder, subjects) if first else nullcontext():
            summary = train(opened, rows, module, folder, checkpoint, processes, watch, begin, more)
            if summary is not None and (pace is None or pace.length is None):
                # The last checkpoint has all of it, whatever the weights were spread over.
                Encoder.from_checkpoint(folder.checkpoint).save(folder.encoder)
                files.write_json(folder.summary_file, summary)
                say(
                    f"trained {counted(chosen.optim.epochs, 'epoch')} in "
                    f"{summary['seconds']:.0f} s, {summary['waiting']:.1%} of it waiting for data: "
                    f"{folder.path}"
                )
    if first and pace is not None and pace.length is not None:
        length = (f"optim.epochs={pace.length}",)
        return _pretrain(opened, folder, None, length, True, subjects, None, "", (), pace)
    return folder.path


def check_begun(
    store: Store, run: str | os.PathLike[str], recipe: Recipe, subjects: Sequence[str] | None = None
) -> None:
    """Refuse to go on with a run that began otherwise, as `pretrain` would, without training.

    Args:
        store: what is trained on.
        run: its folder, which need not be there.
        recipe: every setting.
        subjects: those that are trained on; all without it.

    Raises:
        OtherRunError: saying what differs.
    """
    folder = RunFolder(run, must_exist=False)
    checkpoint = newest_checkpoint(folder) if folder.recipe_file.is_file() else None
    if checkpoint is None:
        return
    subjects = subjects_to_resume(folder, subjects, store, recipe.data)
    rows = training_rows(store, recipe.data, subjects)
    with quiet_lightning():
        processes = devices_per_node(recipe.trainer, find_cluster()) * recipe.trainer.nodes
    recipe, _ = settled(recipe.changed(prepare=store.info.settings), store, rows, processes)
    check_folder(folder, recipe, True, False, checkpoint)


@contextmanager
def _claimed(folder: RunFolder, subjects: Sequence[str] | None) -> Iterator[None]:
    """Hold a run folder for a training, without what a killed one left."""
    files.make_folder(folder.path)
    try:
        with files.naming(folder.path), files.locked(folder.path):
            files.clear_temporaries(folder.path, *(path.name for path in folder.of_training))
            if subjects is None:
                folder.subjects_file.unlink(missing_ok=True)
            else:
                files.write_text(folder.subjects_file, "".join(f"{s}\n" for s in subjects))
            yield
    except BlockingIOError:
        raise RunError(f"{folder.path}: another training is writing here; let it end") from None


def _say(choices: Sequence[Choice], *notes: str) -> None:
    for line in (*(f"{choice}: {choice.reason}" for choice in choices), *notes):
        say(line)


def _check_classes(store: Store, recipe: Recipe) -> None:
    """Refuse a store with more classes than the recipe asks for: it was prepared otherwise."""
    wanted = recipe.prepare.classes
    if wanted is not None and "label" in store.label_columns:
        classes = store.table["label"].nunique()
        if classes > wanted:
            raise RecipeError(
                f"prepare.classes={wanted}: {store.path} has {classes} classes; prepare another "
                "store with this recipe"
            )
