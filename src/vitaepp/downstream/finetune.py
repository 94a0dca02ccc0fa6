"""Fine-tune an encoder on labels, in the folds of `evaluate`, beside the same network from scratch.

    OUT/
      finetune.yaml               every setting
      embeddings.parquet          of the encoder as it is, with its controls
      linear/                     the evaluation of these, in the same folds
      folds/fold0/pretrained/     a training: metrics.csv, summary.json, predictions.parquet
      folds/fold0/scratch/        the same from random weights
      metrics.json                the evaluation of the fine-tuned networks and their controls
      predictions.parquet

Every piece is skipped where it is finished, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.downstream.fold import TRAIN_FOLD, Job, train_fold
from vitaepp.encoder.embed import embed
from vitaepp.encoder.model import Encoder, check_fits, check_like
from vitaepp.errors import EvaluationError, RecipeError, RunError
from vitaepp.evaluation.classifier import hold_out
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import Fold, by_subject, labelled_folds
from vitaepp.evaluation.labels import Labels
from vitaepp.evaluation.result import METHOD, Evaluation, score_columns
from vitaepp.evaluation.scores import fold_scores, spread
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.system.files import locked, make_folder, write_json, write_text
from vitaepp.system.paths import swapped
from vitaepp.system.progress import counted, say
from vitaepp.training.launch import devices_per_node, find_cluster, train_in_processes
from vitaepp.training.threads import free_threads

#: What fine-tuning changes in the recipe of the pre-training.
DEFAULTS: dict[str, Any] = {
    "model.drop_path": 0.1,
    "optim.epochs": 50,
    "optim.batch_size": 16,
    "optim.accumulate": 1,
    "optim.updates": None,
    "optim.lr": 5e-4,
    "optim.warmup_epochs": 5.0,
    "optim.warmup_updates": None,
    "optim.clip_norm": 1.0,
    "trainer.watch": None,
}

#: What the control from random weights is.
SCRATCH = "the same network, trained from scratch"

#: Where a training starts from, and how messages say it.
STARTS = {"pretrained": "fine-tuned", "scratch": "from scratch"}


def finetune(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    label: str,
    *,
    settings: str | Sequence[str] = (),
    protocol: str | None = None,
    folds: int = 5,
    seed: int = 0,
    positive: str | None = None,
    any_store: bool = False,
) -> Evaluation:
    """Fine-tune an encoder on a label, and measure it on subjects that it was not trained on.

    The folds are those of `evaluate`. In each of them, a fifth of the training part is held out:
    the epoch with the lowest loss there is the one that is tested. The head starts as the best
    logistic regression on the encoder's features. The same network from random weights, those that
    pre-training started from, is trained in the same way. Linear classifiers of the encoder as it
    is, of an untrained one and of raw intensities go through the same folds.

    Args:
        run: run of the pre-training.
        store: prepared store, like the one of the pre-training.
        out: folder of the results; what is finished there is not made again.
        label: column of classes; subjects where it is empty are left out.
        settings: changes to the recipe, such as `"finetune.blocks=2"`; one, or several. It is the
            recipe of the pre-training with `DEFAULTS`.
        protocol: `svm` for cross-validation or `linear` for given splits, as in `evaluate`.
        folds: of cross-validation.
        seed: draws the folds and the held-out parts; weights and views are drawn by the recipe's.
        positive: the class that sensitivity is of, as in `evaluate`.
        any_store: also where the store was prepared in another way than that of the training.

    Returns:
        The evaluation in `out`; `compare([out / "linear", out])` sets both beside each other.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other.
        EvaluationError: the label or the splits do not allow it.
        RecipeError: settings do not fit.
    """
    if hint := swapped("finetune", {"run": run, "store": store}):
        raise RunError(hint)
    folder, opened, out = RunFolder(run), Store(store), Path(out)
    encoder = Encoder.from_pretrained(run)
    check_fits(encoder.config, opened)
    check_like(encoder.config, opened, any_store)
    if (want := encoder.config.modalities) != (have := opened.info.modalities):
        raise RunError(
            f"{store}: modalities {','.join(have)}, but the encoder was trained on "
            f"{','.join(want)}; prepare the store with the run as `recipe`"
        )
    recipe = _recipe(folder.recipe(), opened, settings)
    ordered = by_subject(opened.table)
    labels, chosen, parts = labelled_folds(ordered, label, protocol, folds, seed)
    if find_cluster() is not None:
        raise RecipeError(
            "finetune starts its processes by itself: run it without torchrun or srun, with "
            "trainer.devices"
        )
    _claim(out, recipe, run, opened, label, chosen, folds, seed, positive)
    with free_threads(), locked(out):
        how: dict[str, Any] = {"protocol": chosen, "folds": folds, "seed": seed}
        linear = _linear(run, opened, out, label, any_store, **how, positive=positive)
        plan = _Plan(folder, opened, out, recipe, ordered, labels, parts, seed)
        decisions = {
            start: [plan.decision(k, start) for k in range(len(parts))] for start in STARTS
        }
        return _evaluation(linear, plan, positive, decisions).save(out)


def _recipe(before: Recipe, store: Store, settings: str | Sequence[str]) -> Recipe:
    recipe = resolve(before, DEFAULTS).with_settings(settings)
    if recipe.trainer.strategy == "fsdp":
        raise RecipeError("trainer.strategy=fsdp: finetune takes ddp; leave it out")
    if recipe.model != before.model.model_copy(update={"drop_path": recipe.model.drop_path}):
        names = sorted(
            name
            for name, value in recipe.model
            if value != getattr(before.model, name) and name != "drop_path"
        )
        raise RecipeError(
            f"model.{names[0]}: the encoder is what it was trained as; leave the setting out"
        )
    return recipe.changed(prepare=store.info.settings)


def _claim(out: Path, recipe: Recipe, run: Any, store: Store, label: str, *how: Any) -> None:
    """Use the folder for this fine-tuning, and for no other.

    Raises:
        RunError: it holds another, or other files.
    """
    facts = {
        "run": weights_id(run),
        "store": store.fingerprint(),
        "label": label,
        "folds": list(how),
        "recipe": recipe.model_dump(mode="json"),
    }
    file = out / "finetune.json"
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        other = [name for name in facts if before.get(name) != facts[name]]
        if other:
            raise RunError(
                f"{out}: holds a fine-tuning with another {other[0]}; choose another folder"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: holds something else; choose another folder")
    make_folder(out)
    write_text(out / "finetune.yaml", recipe.to_yaml())
    write_json(file, facts)


def _linear(
    run: str | os.PathLike[str],
    store: Store,
    out: Path,
    label: str,
    any_store: bool,
    **how: Any,
) -> Evaluation:
    """The evaluation of the encoder as it is, by a linear classifier."""
    file, folder = out / "embeddings.parquet", out / "linear"
    if not file.is_file():
        embed(run, store.path, file, any_store=any_store)
    if not (folder / "metrics.json").is_file():
        evaluate(file, label, folder, **how)
    return Evaluation.load(folder)


@dataclass(frozen=True)
class _Plan:
    """What is trained on, fold by fold.

    Attributes:
        run: of the pre-training.
        store: prepared store.
        out: folder of the results.
        recipe: every setting.
        table: of the store, `by_subject`.
        labels: of its rows.
        parts: folds of the labelled rows.
        seed: draws the held-out parts.
    """

    run: RunFolder
    store: Store
    out: Path
    recipe: Recipe
    table: pd.DataFrame
    labels: Labels
    parts: list[Fold]
    seed: int

    def folder(self, k: int, start: str) -> RunFolder:
        """Where a training is."""
        return RunFolder(self.out / "folds" / f"fold{k}" / start, must_exist=False)

    def decision(self, k: int, start: str) -> npt.NDArray[np.float64]:
        """Scores of a fold's test subjects, `(subject,)` or `(subject, class)`."""
        folder, job = self.folder(k, start), self.job(k)
        if not job.predictions(folder).is_file():
            what = f"fold {k + 1} of {len(self.parts)}, {STARTS[start]}"
            say(f"{what}: {counted(len(job.fit), 'subject')}, and {len(job.held)} held out")
            make_folder(folder.path)
            job.save(folder)
            devices = devices_per_node(self.recipe.trainer, None)
            arguments = {
                "folder": os.fspath(folder.path),
                "store": os.fspath(self.store.path),
                "run": os.fspath(self.run.path),
                "start": start,
                "recipe": self.recipe.model_dump(mode="json"),
            }
            if devices > 1:
                train_in_processes(devices, TRAIN_FOLD, arguments, folder, resume=True)
            else:
                train_fold(**arguments)
        scores = pd.read_parquet(job.predictions(folder)).set_index("subject").loc[job.test]
        values = scores.to_numpy(np.float64)
        return values[:, 1] - values[:, 0] if values.shape[1] == 2 else values

    def job(self, k: int) -> Job:
        """The subjects of a fold and their classes."""
        labelled = self.table.iloc[self.labels.rows]
        subjects, persons = labelled["subject"].to_numpy(), persons_of(labelled)
        train, test = self.parts[k].train, self.parts[k].test
        inner, held = hold_out(
            self.labels.codes[train], seed=[self.seed + k, 0], persons=persons[train]
        )
        return Job(
            fit=subjects[train[inner]].tolist(),
            held=subjects[train[held]].tolist(),
            test=subjects[test].tolist(),
            targets=dict(zip(subjects[train], self.labels.codes[train].tolist(), strict=True)),
            classes=len(self.labels.classes),
        )


def _evaluation(
    linear: Evaluation,
    plan: _Plan,
    positive: str | None,
    decisions: Mapping[str, Sequence[npt.NDArray[np.float64]]],
) -> Evaluation:
    """The evaluation of the fine-tuned networks, with those of the linear classifiers' controls."""
    shown = plan.labels.with_positive(positive)
    sign = 1 if shown.classes == plan.labels.classes else -1
    measured: dict[str, dict[str, Any]] = {}
    labelled = plan.table.iloc[plan.labels.rows]["subject"].to_numpy()
    assert linear.predictions is not None
    predictions = linear.predictions.drop(columns=score_columns(METHOD, shown.classes))
    key = ["fold", "subject"]
    for name, start in ((METHOD, "pretrained"), ("scratch", "scratch")):
        scores = [sign * d if d.ndim == 1 else d for d in decisions[start]]
        every = [
            fold_scores(shown.codes[part.test], score)
            for part, score in zip(plan.parts, scores, strict=True)
        ]
        mean, std = spread(every)
        epochs = [_best_epoch(plan.folder(k, start)) for k in range(len(plan.parts))]
        measured[name] = {"folds": every, "mean": mean, "std": std, "epochs": epochs}
        columns = score_columns(name, shown.classes)
        table = pd.DataFrame(np.concatenate(scores).reshape(-1, len(columns)), columns=columns)
        table["fold"] = np.repeat(np.arange(len(scores)), [len(s) for s in scores])
        table["subject"] = np.concatenate([labelled[part.test] for part in plan.parts])
        predictions = predictions.merge(table, on=key, validate="one_to_one")
    blocks = plan.recipe.finetune.blocks
    provenance = dict(linear.metrics["provenance"])
    part = "" if blocks == "all" else f" {counted(blocks, 'block')}" if blocks else " head"
    provenance["name"] = f"{provenance['name']}, fine-tuned{part}"
    own = {k: v for k, v in linear.metrics.items() if k not in ("C", "map", "features")}
    scratch = measured["scratch"] | {"what": SCRATCH}
    metrics = own | measured[METHOD]
    metrics |= {
        "classifier": "finetune",
        "controls": {"scratch": scratch} | linear.metrics["controls"],
        "provenance": provenance,
        "finetune": plan.recipe.finetune.model_dump(mode="json"),
    }
    return Evaluation(metrics, predictions)


def _best_epoch(folder: RunFolder) -> int:
    """The epoch whose weights were tested."""
    try:
        return int(json.loads(folder.summary_file.read_text(encoding="utf-8"))["best_epoch"])
    except (OSError, ValueError, KeyError):
        raise EvaluationError(
            f"{folder.path}: has predictions, but no summary; remove the folder, and repeat the "
            "command"
        ) from None
