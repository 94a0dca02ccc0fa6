"""Fine-tune an encoder on labels or masks, beside the same network from scratch.

    OUT/
      finetune.yaml               every setting
      finetune.json               what it is of
      folds/fold0/pretrained/     a training: metrics.csv, summary.json, predictions.npy
      folds/fold0/scratch/        the same from random weights
      metrics.json                what was measured on subjects that were not trained on
    of classes or a value, too:
      embeddings.parquet          of the encoder as it is, if RUN has none of this store
      linear/                     the evaluation of these, in the same folds
      predictions.parquet         a row a tested subject
    with keep_model:
      folds/all/                  the training on all labelled subjects
      model/                      what it gave, for `predict`
    of masks, too:
      scores.csv                  a row a tested subject
      masks/SUBJECT.nii.gz        predicted masks, in the space of the scan (3D)

Every piece is skipped where it is finished, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.downstream import keep, labelled, segment
from vitaepp.downstream.fold import Task
from vitaepp.downstream.model import check_classes, skops_io
from vitaepp.downstream.outcome import Outcome
from vitaepp.downstream.tuning import Base, Tuning
from vitaepp.encoder.fits import check_fits, check_like
from vitaepp.encoder.model import Encoder
from vitaepp.errors import EvaluationError, RecipeError, RunError, nearest
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks.classification import Classification
from vitaepp.methods.supervised import LIMIT, trained_parts
from vitaepp.nn.pooling import GRADIENTS
from vitaepp.recipe.effect import given_names, without_effect
from vitaepp.recipe.recipe import Recipe, flatten, resolve
from vitaepp.system.files import locked, make_folder, write_json, write_text
from vitaepp.system.paths import swapped
from vitaepp.system.progress import quieter, say
from vitaepp.system.text import as_typed, first_few
from vitaepp.training.launch import find_cluster
from vitaepp.training.threads import free_threads

#: What fine-tuning changes in the recipe of the pre-training. It lasts for so many epochs at least,
#: and for so many updates: a few subjects are seen more often.
DEFAULTS: dict[str, Any] = {
    "model.drop_path": 0.1,
    "optim.epochs": 30,
    "optim.updates": 500,
    "optim.batch_size": 16,
    "optim.accumulate": 1,
    "optim.warmup_epochs": None,
    "optim.warmup_updates": None,
    "optim.clip_norm": 1.0,
    "trainer.watch": None,
}

#: What it changes besides for classes and values. The head starts as a model of whole images, and
#: with crops or large steps the first ones undo it. A network from scratch has less to lose.
_LABELS: dict[str, Any] = {
    "optim.lr": 2e-4,
    "finetune.scratch_lr": 5e-4,
    "views.first.crop": 1.0,
}

#: What it changes besides, by task. A decoder knows nothing yet.
OF_TASK: dict[str, dict[str, Any]] = {
    "classification": _LABELS,
    "regression": _LABELS,
    "segmentation": {"optim.lr": 1e-3},
}

#: What tells two fine-tunings apart that cannot be shown.
_DIGESTS = ("run", "store", "label's values, masks, folds or persons", "recipe")

TASKS: tuple[Task, ...] = get_args(Task)


def finetune(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    label: str | None = None,
    *,
    task: str = "classification",
    settings: str | Sequence[str] = (),
    protocol: str | None = None,
    folds: int = 5,
    seed: int = 0,
    positive: str | None = None,
    any_store: bool = False,
    keep_model: bool = False,
) -> Evaluation | Outcome:
    """Fine-tune an encoder, and measure it on subjects that it was not trained on.

    In each fold a fifth of the training part is held out: the epoch with the lowest loss there is
    the one that is tested. The same network from random weights, those that pre-training started
    from, is trained for as long, with a learning rate of its own that is the same in all blocks.

    Of classes and values the folds are those of `evaluate`. Linear models of the encoder as it
    is, of an untrained one and of raw intensities go through them, too;
    `compare([out / "linear", out])` sets all beside each other. The head starts as a logistic
    regression on the encoder's features, of a value as a ridge regression.

    Of masks, `prepare` must have kept them with `keep_masks`. The decoder is UNETR's. A store may
    have larger images than the encoder takes, which then sees windows of them.

    Args:
        run: run of the pre-training.
        store: prepared store, like the one of the pre-training.
        out: folder of the results; what is finished there is not made again.
        label: column of classes or values; subjects where it is empty are left out. Not for masks.
        task: `classification`, `regression` or `segmentation`.
        settings: changes to the recipe, such as `"finetune.blocks=2"`; one, or several. It is the
            recipe of the pre-training with `DEFAULTS` and those `OF_TASK`.
        protocol: of classes and values as in `evaluate`; masks have given splits where there are
            any.
        folds: of cross-validation.
        seed: draws the folds and the held-out parts; weights and views are drawn by the recipe's.
        positive: the class that sensitivity is of, as in `evaluate`.
        any_store: also where the store was prepared in another way than that of the training.
        keep_model: of classes: fine-tune once more, on all labelled subjects, and keep the result
            in `out / "model"`, which `predict` takes. Its scores are those of the folds.

    Returns:
        The `Evaluation` of classes and values, or the `Outcome` of masks; it is in `out`, too.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other.
        EvaluationError: labels, masks or splits do not allow it.
        RecipeError: settings do not fit.
        MissingPackageError: skops is not installed, for `keep_model`.
    """
    if hint := swapped("finetune", {"run": run, "store": store}):
        raise RunError(hint)
    if task not in TASKS:
        raise EvaluationError(f"no task {task!r}; {nearest(task, TASKS)}")
    if (label is None) is (task != "segmentation"):
        wanted = "masks; leave out" if label else f"{task}; name the column by"
        raise EvaluationError(f"`task={task}` is of {wanted} `label`")
    for name, value in (("protocol", protocol), ("positive", positive)):
        if value is not None and (label is None or (task, name) == ("regression", "positive")):
            raise EvaluationError(f"`{name}={value}` is of classes; leave it out for {task}")
    if keep_model and task != "classification":
        raise EvaluationError(f"`keep_model` is of classes; leave it out for {task}")
    if keep_model:
        skops_io("keeping a classifier needs")
    if find_cluster() is not None:
        raise RecipeError(
            "finetune starts its processes by itself: run it without torchrun or srun, with "
            "trainer.devices"
        )
    folder, opened, out = RunFolder(run), Store(store), Path(out)
    encoder = Encoder.from_pretrained(run)
    if task == "segmentation":
        segment.check_windows(encoder, opened)
    else:
        check_fits(encoder.config, opened)
    check_like(encoder.config, opened, any_store)
    if (want := encoder.config.modalities) != (have := opened.info.modalities):
        raise RunError(
            f"{store}: modalities {','.join(have)}, but the encoder was trained on "
            f"{','.join(want)}; prepare the store with the run as `recipe`"
        )
    recipe = tuned_recipe(folder.recipe(), task, settings)
    for line in without_effect(recipe, given_names(None, settings), task):
        say(line)
    recipe = recipe.changed(prepare=opened.info.settings)
    if keep_model and recipe.finetune.subjects is not None:
        raise RecipeError(
            f"finetune.subjects={recipe.finetune.subjects}: `keep_model` is a training on all "
            "labelled subjects; give only one of the two"
        )
    last = None if label is None else recipe.model.pool_block
    trained_parts(encoder.backbone.parts(last), recipe.finetune.blocks)
    if label is not None and (most := recipe.finetune.subjects) is not None:
        say(
            f"finetune.subjects={most}: the linear models beside it are fitted on all labelled "
            "subjects of the training parts; finetune.blocks=0 is one on as few"
        )
    base = Base(folder, opened, out, recipe, folds, seed)
    if label is None:
        tuning = segment.planned(base)
        with _claimed(tuning, None, protocol, positive):
            outcome = segment.measured(tuning)
            tuning.say_what_did_not_learn()
            return outcome
    tuning, target, chosen = labelled.planned(base, label, task, protocol, positive)
    if keep_model:
        check_classes(label, target.classes)
    with _claimed(tuning, label, chosen, positive):
        evaluation = labelled.measured(tuning, target, chosen, positive, any_store)
        tuning.say_what_did_not_learn()
        if keep_model:
            assert isinstance(target, Classification)
            say(f"a model for predict: {keep.keep_model(tuning, target, evaluation)}")
        return evaluation


def tuned_recipe(before: Recipe, task: str, settings: str | Sequence[str]) -> Recipe:
    """The recipe of a fine-tuning, of that of the pre-training.

    Raises:
        RecipeError: settings do not fit.
    """
    recipe = resolve(before, DEFAULTS | OF_TASK[task]).with_settings(settings)
    if recipe.trainer.strategy == "fsdp":
        raise RecipeError("trainer.strategy=fsdp: finetune takes ddp; leave it out")
    for name, value in recipe.model:
        if name not in ("drop_path", "pool", "pool_block") and value != getattr(before.model, name):
            raise RecipeError(
                f"model.{name}: the encoder is what it was trained as; leave the setting out"
            )
    return recipe


def check_tuning(base: Base, label: str, task: str, protocol: str | None, *, trained: bool) -> None:
    """Refuse what `finetune` of classes or values would, before its encoder is trained.

    Args:
        base: with the recipe of the fine-tuning.
        label: column to predict.
        task: `classification` or `regression`.
        protocol: as in `finetune`.
        trained: whether the encoder is the one that will be fine-tuned; else what a fine-tuning
            that is there was made of is not compared with it.

    Raises:
        RunError, EvaluationError, RecipeError: as `finetune`.
    """
    store, recipe = base.store, base.recipe
    untrained = Encoder.untrained(recipe, store.info)
    trained_parts(untrained.backbone.parts(recipe.model.pool_block), recipe.finetune.blocks)
    with quieter("vitaepp", logging.WARNING):  # it will be said
        tuning, _, chosen = labelled.planned(base, label, task, protocol, None)
    for k in range(len(tuning.parts)):
        tuning.job(k)
    facts = _facts(replace(tuning, recipe=recipe.changed(prepare=store.info.settings)))
    facts |= {"label": label, "protocol": chosen, "positive class": None}
    of_encoder = () if trained else ("run", "recipe")
    _refuse_other(base.out, {k: v for k, v in facts.items() if k not in of_encoder})


def _facts(tuning: Tuning) -> dict[str, Any]:
    """What a fine-tuning is of; its label is not among it. What a user gives comes first."""
    gradients = tuning.task != "segmentation" and GRADIENTS in tuning.recipe.model.pool.split("+")
    limit = {"limit of gradients": LIMIT} if gradients else {}
    return limit | {
        "task": tuning.task,
        "folds": tuning.folds,
        "seed": tuning.seed,
        "run": weights_id(tuning.run.path),
        "store": tuning.store.fingerprint(),
        "label's values, masks, folds or persons": tuning.digest(),
        "recipe": tuning.recipe.model_dump(mode="json"),
    }


def _refuse_other(out: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a folder with a fine-tuning of other facts, and name what differs."""
    file = out / "finetune.json"
    if not file.is_file():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    other = [name for name in facts if before.get(name) != facts[name]]
    if not other:
        return
    name, then, now = other[0], before.get(other[0]), facts[other[0]]
    what = f"another {name}"
    if name == "recipe" and isinstance(then, Mapping):
        then, now = flatten(then), flatten(now)
        name, *more = [s for s in then | now if then.get(s) != now.get(s)]
        what = f"the setting {name}={as_typed(then.get(name))}, now {as_typed(now.get(name))}"
        what += f", and with another {first_few(more)}" if more else ""
    elif name not in _DIGESTS and name in before:
        what = f"`{name}`={then}, now {now}"
    raise RunError(f"{out}: holds a fine-tuning with {what}; choose another folder")


@contextmanager
def _claimed(
    tuning: Tuning, label: str | None, protocol: str | None, positive: str | None
) -> Iterator[None]:
    """Use the folder for this fine-tuning, and for no other, and only in this process.

    Raises:
        RunError: it holds another, or other files.
    """
    out, file = tuning.out, tuning.out / "finetune.json"
    given = {"label": label, "protocol": protocol, "positive class": positive}
    facts = given | _facts(tuning)
    _refuse_other(out, facts)
    if not file.is_file() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: holds something else; choose another folder")
    make_folder(out)
    with locked(out), free_threads():
        write_text(out / "finetune.yaml", tuning.recipe.to_yaml())
        write_json(file, facts)
        yield
