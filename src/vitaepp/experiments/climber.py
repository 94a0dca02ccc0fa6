"""How each rung of a ladder is measured, where that is not done yet."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.auditing.facts import facts_of
from vitaepp.auditing.images import look_at
from vitaepp.auditing.shortcuts import NO_CONTROL, design
from vitaepp.data.arrays import Floats
from vitaepp.data.embeddings import Embeddings, are_of, control_path
from vitaepp.data.participants import persons_of
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.downstream.finetune import check_tuning, finetune, tuned_recipe
from vitaepp.downstream.tuning import Base, epochs_of
from vitaepp.encoder.embed import embed, raw_features
from vitaepp.errors import EvaluationError
from vitaepp.evaluation.budget import Budget
from vitaepp.evaluation.features import evaluate_features
from vitaepp.evaluation.folds import Shared
from vitaepp.evaluation.front import SCALED
from vitaepp.evaluation.question import ALL_CONTROLS, MEAN
from vitaepp.evaluation.result import Evaluation
from vitaepp.evaluation.tasks.base import Target
from vitaepp.experiments.gradients import oriented_gradients
from vitaepp.experiments.rungs import Rung
from vitaepp.experiments.simple import radiomics, simple_features
from vitaepp.interop.public import embed_public, load_public, public_id
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import file_stem, read_json, write_json
from vitaepp.system.progress import counted, quieter, say

#: Rungs, from the bottom, and their names in print.
RUNGS = {
    "prior": "the most frequent answer",
    "metadata": "metadata alone",
    "raw": "raw intensities (PCA)",
    "simple": "intensity and shape features",
    "gradients": "oriented gradients (HOG)",
    "untrained": "untrained encoder",
    "public": "public encoder, frozen",
    **{key: METHODS[key].title for key in ("vitae", "vitae++")},
    "scratch": "trained from scratch",
    "finetuned": "fine-tuned",
}

#: A step of fine-tuning sees all patches: an image takes so much longer than in pre-training.
SLOWER = 2.0

#: Seconds of an epoch of fine-tuning besides its images: the held-out part, and weights to keep.
PER_EPOCH = 0.1


@dataclass(frozen=True)
class Climber:
    """Measures the rungs of one label of one store, where that is not done yet.

    `ordered` is the store's table by subject, of which `target` has the label and `shared` the
    folds; `titles` are what the encoders are called; the others are the arguments of `ladder`.
    """

    store: Store
    ordered: pd.DataFrame
    out: Path
    label: str
    task: str
    protocol: str | None
    folds: int
    seed: int
    budget: Sequence[Budget]
    target: Target
    shared: Shared
    titles: Mapping[str, str]

    def check_public(self, public: str | os.PathLike[str]) -> None:
        """Refuse a published encoder that cannot be read, where its features are not there yet."""
        if not are_of(self._public_file(public), self.store):
            with quieter("vitaepp", logging.WARNING):  # it will be said
                load_public(public)

    def check_tuning(self, before: Recipe, settings: Sequence[str], hours: float | None) -> None:
        """Refuse a fine-tuning that cannot be, or that is not the one in OUT.

        Args:
            before: the recipe of the encoder, where none is trained yet.
            settings: of fine-tuning.
            hours: for it.
        """
        run, folder = self._tuned_run, self._tuning_folder
        trained = run.recipe_file.is_file() and run.has_ended()
        begun = (folder / "finetune.yaml").is_file()  # with its length, where it has hours
        length = self._length(run, folder, settings, hours) if begun and hours is not None else []
        recipe = tuned_recipe(run.recipe() if trained else before, self.task, [*length, *settings])
        base = Base(run, self.store, folder, recipe, self.folds, self.seed)
        check_tuning(base, self.label, self.task, self.protocol, trained=trained)

    def frozen(
        self, key: str, trainings: Sequence[str], public: str | os.PathLike[str] | None
    ) -> Rung | str:
        """A rung on features, or why there is none."""
        begun, minutes = time.monotonic(), 0.0
        features: Any
        if key == "prior":
            features = np.zeros((len(self.store), 0))  # nothing is known of the subjects
        elif key == "raw":
            features = raw_features(self.store)
        elif key == "simple":
            features = simple_features(self.store)
        elif key == "gradients":
            features = oriented_gradients(self.store)
        elif key == "metadata":
            metadata = self._metadata()
            if isinstance(metadata, str):
                return metadata
            features = metadata
        elif key == "public":
            if public is None:
                return "no folder of a published encoder was given"
            file = self._public_file(public)
            if not are_of(file, self.store):
                embed_public(public, self.store.path, file)
            features = self._embedded(file)
        else:
            if not trainings:
                return "no encoder could be trained"
            of = trainings[-1] if key == "untrained" else key
            run = RunFolder(self.out / "runs" / file_stem(of) / "seed0")
            file = run.path / "embeddings.parquet"
            took = self.out / "rungs" / f"embedding-{file_stem(of)}.json"
            if not are_of(file, self.store, weights_id(run.path)):
                embed(run.path, self.store.path, file)
                # Half of it is the untrained encoder's, which is embedded beside the trained one.
                write_json(took, {"minutes": (time.monotonic() - begun) / 60 / 2})
            control = key == "untrained"
            minutes = 0.0 if control else self._minutes(run)
            minutes += float(read_json(took)["minutes"]) if took.is_file() else 0.0
            begun = time.monotonic()
            features = self._embedded(control_path(file, "untrained") if control else file)
        evaluation = self._evaluated(key, features, begun)
        spent = float(evaluation["provenance"].get("minutes", 0.0))
        if not spent:
            spent = (time.monotonic() - begun) / 60
        return Rung(key, self._name(key), evaluation, minutes=minutes + spent)

    def tuned(self, settings: Sequence[str], hours: float | None) -> dict[str, Rung]:
        """The rungs of fine-tuning and of training from scratch."""
        run, folder = self._tuned_run, self._tuning_folder
        length = [] if hours is None else self._length(run, folder, settings, hours)
        evaluation = finetune(
            run.path,
            self.store.path,
            folder,
            self.label,
            task=self.task,
            settings=[*length, *settings],
            protocol=self.protocol,
            folds=self.folds,
            seed=self.seed,
        )
        assert isinstance(evaluation, Evaluation)

        def minutes(start: str) -> float:
            return float(sum(one.get("seconds", 0.0) for one in self._tunings(start))) / 60

        whole = self._minutes(run) + minutes("pretrained")
        scratch = Rung("scratch", RUNGS["scratch"], evaluation, "scratch", minutes("scratch"))
        tuned = Rung("finetuned", RUNGS["finetuned"], evaluation, minutes=whole)
        return {rung.key: rung for rung in (scratch, tuned)}

    def lengths(self) -> list[int]:
        """The epochs of the fine-tunings; several where folds differ in size."""
        return sorted({one["epochs"] for one in self._tunings("pretrained")})

    @property
    def _tuned_run(self) -> RunFolder:
        """What is fine-tuned."""
        return RunFolder(self.out / "runs" / file_stem("vitae++") / "seed0", must_exist=False)

    @property
    def _tuning_folder(self) -> Path:
        return self.out / "finetuned" / file_stem(self.label)

    def _tunings(self, start: str) -> list[dict[str, Any]]:
        """The summaries of the fine-tunings from a start."""
        files = self._tuning_folder.glob(f"folds/fold*/{start}/summary.json")
        return [read_json(file) for file in files]

    def _public_file(self, public: str | os.PathLike[str]) -> Path:
        """Where the features of a published encoder are; others at its path have another file."""
        return self.out / "rungs" / f"public-{public_id(public)[:12]}.parquet"

    def _length(
        self, run: RunFolder, folder: Path, settings: Sequence[str], hours: float
    ) -> list[str]:
        """The setting of so many epochs of fine-tuning as the time allows; none where all fit."""
        kept = folder / "finetune.yaml"
        if kept.is_file():  # it goes on with the length that it began with
            optim = Recipe.load(kept).optim
            return [] if optim.updates is not None else [f"optim.epochs={optim.epochs}"]
        summary = read_json(run.summary_file)
        images = summary["epochs"] * summary["trained_on"] / summary["seconds"] / SLOWER
        recipe = tuned_recipe(run.recipe(), self.task, settings)
        most = recipe.finetune.subjects or len(self.store)
        trained = [4 * min(len(part.train), most) // 5 for part in self.shared.folds]
        wanted = [epochs_of(recipe, max(count, 1)) for count in trained]
        allowed = int(hours * 3600 / sum(2 * (count / images + PER_EPOCH) for count in trained))
        if allowed >= max(wanted):
            return []
        epochs = max(1, allowed)
        say(
            f"fine-tuning for {counted(epochs, 'epoch')} instead of {max(wanted)}, which is what "
            "the time allows"
        )
        return [f"optim.epochs={epochs}"]

    def _metadata(self) -> list[Floats] | str:
        """What is known of subjects besides their images, as features for each fold."""
        table, order = self.ordered.reset_index(drop=True), self.ordered.index.to_numpy()
        border = look_at(self.store, order).border
        known = facts_of(table, self.store, border, persons_of(table), self.label)
        facts = [fact for fact in known.usable if fact.name not in NO_CONTROL]
        if not facts:
            return "nothing is known of the subjects besides their images"
        say(f"metadata: {', '.join(fact.name for fact in facts)}")
        matrices = []
        for part in self.shared.folds:
            matrix = design(facts, self.target.rows[part.train])
            in_store = np.empty_like(matrix)
            in_store[order] = matrix
            matrices.append(in_store)
        return matrices

    def _minutes(self, run: RunFolder) -> float:
        return float(read_json(run.summary_file).get("seconds", 0.0)) / 60

    def _embedded(self, file: Path) -> Any:
        """Features in the order of the store."""
        embedded = Embeddings.load(file)
        row_of = {str(s): i for i, s in enumerate(embedded.table["subject"])}
        return embedded.features[[row_of[str(s)] for s in self.store.table["subject"]]]

    def _evaluated(self, key: str, features: Any, begun: float) -> Evaluation:
        """The evaluation of a rung, taken from OUT where it is of the same features.

        It keeps the minutes since `begun`, in which the features were computed, too.
        """
        folder = self.out / "rungs" / file_stem(self.label) / key
        each = [features] if isinstance(features, np.ndarray) else features
        digest = hashlib.sha256()
        for one in each:
            digest.update(np.ascontiguousarray(one).tobytes())
        provenance = {
            "name": self._title(key),
            "features": digest.hexdigest(),
            "budget": list(self.budget),
            "folds": self.folds,
            "labels": self._labels(),
            "task": self.task,
            "model": self.shared.protocol,
            "scaled": SCALED,
        }
        with suppress(EvaluationError):
            kept = Evaluation.load(folder)
            same = {k: kept["provenance"].get(k) for k in provenance} == provenance
            if same and kept["seed"] == self.seed:
                return kept
        evaluation = evaluate_features(
            features,
            self.store.table,
            self.label,
            task=self.task,
            protocol=self.protocol,
            seed=self.seed,
            folds=self.folds,
            budget=self.budget,
            reduce=key == "raw",
            draw_map=False,
            repeats=1,
            provenance=provenance,
        )
        evaluation.metrics["provenance"]["minutes"] = (time.monotonic() - begun) / 60
        return evaluation.save(folder)

    def _name(self, key: str) -> str:
        """Of a rung, in print."""
        more = key == "simple" and radiomics(self.store.info.ndim) is not None
        return self._title(key) + ", with pyradiomics" * more

    def _title(self, key: str) -> str:
        values = key == "prior" and self.task == "regression"
        return ALL_CONTROLS[MEAN] if values else self.titles.get(key, RUNGS[key])

    def _labels(self) -> str:
        columns = [c for c in ("subject", "split", "participant", self.label) if c in self.ordered]
        return hashlib.sha256(self.ordered[columns].to_csv(index=False).encode()).hexdigest()
