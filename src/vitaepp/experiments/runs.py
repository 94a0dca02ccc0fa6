"""The runs of an experiment: trained, embedded and evaluated where that is not done yet.

    OUT/
      experiment.json                 which store the runs are of
      runs/VARIANT/seed0/             a run folder, shared by all experiments in OUT
      folds/LABEL/VARIANT/seed0/      fold0 … fold4: run folders of the strict protocol; evaluation

Every piece is skipped where it is finished, so that an experiment that was interrupted goes on, and
one that shares variants with another takes over its runs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from vitaepp.data.embeddings import are_of, control_path, facts_in
from vitaepp.data.loading import training_rows
from vitaepp.data.participants import of_same_persons
from vitaepp.data.runfolder import RunFolder, weights_id
from vitaepp.data.store import Store
from vitaepp.encoder.embed import embed
from vitaepp.errors import OtherRunError, OtherSubjectsError, RunError
from vitaepp.evaluation.budget import few_labels
from vitaepp.evaluation.evaluation import evaluate
from vitaepp.evaluation.folds import plan_folds
from vitaepp.evaluation.front import SCALED
from vitaepp.evaluation.reconstruction import reconstruct
from vitaepp.experiments.catalogue import Variant
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.files import file_stem, read_json, write_json
from vitaepp.system.progress import counted, say
from vitaepp.system.signals import repeatable
from vitaepp.training.pretrain import check_begun, pretrain


@dataclass(frozen=True)
class Setup:
    """What all runs of an experiment share.

    Attributes:
        store: prepared store.
        out: folder of the experiment.
        recipe: before a variant changes it.
        label: column to predict; empty where nothing is.
        protocol: `svm` or `linear`, or None for what the store's splits say.
        per_fold: pre-train without any scan of the people tested, anew for each fold.
        seeds: repetitions, each with its own weights, masks and folds: 0, 1, …
        subjects: how many are reconstructed; None: all.
        budget: numbers of labels that classifiers are fitted on, too.
    """

    store: Store
    out: Path
    recipe: Recipe
    label: str
    protocol: str | None
    per_fold: bool
    seeds: int = 1
    subjects: int | None = None
    budget: tuple[int, ...] = ()

    def claim(self, beside: Collection[str] = ()) -> None:
        """Use the folder for runs on this store, and for no other.

        Args:
            beside: names of what may be in it before there are runs.

        Raises:
            RunError: it holds runs on another store, or other files.
        """
        file = self.out / "experiment.json"
        claim = {"store": _fingerprint(self.store)}
        if file.is_file():
            if read_json(file) != claim:
                raise RunError(
                    f"{self.out}: holds runs on another store, or its subjects, splits or labels "
                    "have changed since; choose another folder"
                )
        elif self.out.exists() and not self.out.is_dir():
            raise RunError(f"{self.out}: is a file; choose another folder")
        elif self.out.exists():
            # A killed process may have left a temporary file.
            others = {p.name for p in self.out.iterdir() if not p.name.startswith(".tmp-")}
            if others - set(beside):
                raise RunError(
                    f"{self.out}: holds other files, and no experiment; choose another folder"
                )
        write_json(file, claim)

    def recipe_of(self, variant: Variant, seed: int) -> Recipe:
        """The recipe of one run."""
        return variant.recipe(self.recipe).with_settings([f"seed={seed}"])

    def trained(self, variant: Variant, seed: int) -> Path:
        """The run folder of a variant, trained on everything that the recipe trains on."""
        return self._train(self.run_folder(variant, seed).path, self.recipe_of(variant, seed))

    def run_folder(self, variant: Variant, seed: int) -> RunFolder:
        """Where `trained` trains."""
        path = self.out / "runs" / file_stem(variant.key) / f"seed{seed}"
        return RunFolder(path, must_exist=False)

    def _folds_folder(self, variant: Variant, seed: int) -> Path:
        """Where the strict protocol trains."""
        folder = self.out / "folds" / file_stem(self.label)
        return folder / file_stem(variant.key) / f"seed{seed}"

    def evaluated(self, variant: Variant, seed: int) -> Path:
        """The folder with metrics.json of a variant; the seed draws its folds as well."""
        if not self.per_fold:
            run = self.trained(variant, seed)
            name = f"{file_stem(self.label)}-{self.protocol or 'auto'}"
            return self._evaluate([self._embed(run)], run / "evaluation" / name, seed)
        recipe, trainings = self.recipe_of(variant, seed), self._of_folds(variant, seed)
        files = []
        for k, (run, subjects, without) in enumerate(trainings):
            say(f"fold {k + 1} of {len(trainings)}, pre-trained without its {without}")
            files.append(self._embed(self._train(run, recipe, subjects)))
        folder = self._folds_folder(variant, seed)
        # Whose folds are those of another protocol, but for their models.
        of = "evaluation-knn" if self.protocol == "knn" else "evaluation"
        return self._evaluate(files, folder / of, seed)

    def check(self, variants: Sequence[Variant]) -> None:
        """Refuse what OUT has of variants where it began otherwise, before any of them is trained.

        Raises:
            RunError: saying what differs.
        """
        for variant, seed in product(variants, range(self.seeds)):
            runs: list[tuple[Path, list[str] | None]]
            runs = [(self.run_folder(variant, seed).path, None)]
            if self.per_fold:
                runs = [(run, kept) for run, kept, _ in self._of_folds(variant, seed)]
            for run, subjects in runs:
                with _another_out(run):
                    check_begun(self.store, run, self.recipe_of(variant, seed), subjects)

    def _of_folds(self, variant: Variant, seed: int) -> list[tuple[Path, list[str], str]]:
        """Of each fold the run folder, the subjects that it is trained on, and who is left out."""
        table, folder = self.store.table, self._folds_folder(variant, seed)
        rows = training_rows(self.store, self.recipe_of(variant, seed).data)
        every = table["subject"].astype(str).iloc[rows]
        trainings = []
        for k, (_, tested) in enumerate(plan_folds(table, self.label, self.protocol, seed=seed)):
            left_out = of_same_persons(table, tested)
            others = len(left_out) - len(tested)
            without = f"{len(tested)} test subjects"
            if others:
                without += f" and {counted(others, 'other scan')} of these people"
            kept = [subject for subject in every if subject not in left_out]
            trainings.append((folder / f"fold{k}", kept, without))
        return trainings

    def reconstructed(self, variant: Variant, seed: int) -> Path:
        """The folder with the reconstructions of a variant, of the same hidden patches in all."""
        run, subjects = self.trained(variant, seed), self.subjects
        out = run / "reconstruction" if subjects is None else run / f"reconstruction-{subjects}"
        made_with = _kept(out / "reconstruction.json").get("encoder")
        whole = (out / "metrics.csv").is_file()
        # Older ones do not tell which weights made them.
        if not whole or made_with not in (None, weights_id(run)):
            if whole:
                _say_anew(out)
            reconstruct(run, self.store.path, out, subjects=subjects, seed=seed)
        return out

    def run_folders(self, variant: Variant, seed: int) -> list[RunFolder]:
        """The finished runs behind a result."""
        if not self.per_fold:
            return [self.run_folder(variant, seed)]
        folder = self._folds_folder(variant, seed)
        return [RunFolder(path) for path in sorted(folder.glob("fold*"))]

    def _train(self, run: Path, recipe: Recipe, subjects: Sequence[str] | None = None) -> Path:
        begun = (run / "recipe.yaml").is_file()
        with _another_out(run), repeatable(self.out):
            return pretrain(self.store.path, run, recipe=recipe, resume=begun, subjects=subjects)

    def _embed(self, run: Path) -> Path:
        out = run / "embeddings.parquet"
        # The embeddings come last, after their controls.
        whole = out.is_file() and control_path(out, "raw").is_file()
        if not whole or not are_of(out, self.store, weights_id(run)):
            if whole:
                _say_anew(out)
            embed(run, self.store.path, out)
        return out

    def _evaluate(self, files: Sequence[Path], out: Path, seed: int) -> Path:
        done = _kept(out / "metrics.json")
        measured = set(few_labels(done)) if self.budget else set()
        made_with = done.get("provenance", {}).get("encoder")
        encoders = [facts_in(file).get("encoder") for file in files]
        stale = made_with not in (None, encoders[0], encoders)
        stale |= done.get("scaled") != SCALED and self.protocol != "knn"
        if not done or stale or not set(self.budget) <= measured:
            given = list(files) if self.per_fold else files[0]
            # What was measured before stays, for the table that was made of it.
            budget = sorted({*self.budget, *measured})
            evaluate(
                given,
                self.label,
                out,
                protocol=self.protocol,
                seed=seed,
                budget=budget,
                repeats=1,  # each seed draws other folds
            )
        return out


@contextmanager
def _another_out(run: Path) -> Iterator[None]:
    """What a run in OUT that began otherwise is told as."""
    try:
        yield
    except OtherSubjectsError:
        raise RunError(
            f"{run}: was pre-trained for folds of another protocol, or by a version that kept "
            "other scans of the people tested; choose another OUT"
        ) from None
    except OtherRunError as error:
        found = str(error).rpartition("; ")[0]
        raise RunError(f"{found}; choose another OUT") from None


def _kept(file: Path) -> dict[str, Any]:
    """A JSON file of an earlier call; empty where there is none that can be read."""
    try:
        return dict(read_json(file))
    except (OSError, ValueError):
        return {}


def _say_anew(out: Path) -> None:
    """Of results whose run has been trained on since, or that are of other images."""
    say(
        f"{out}: was made with another encoder than the run has now, or of other images; making "
        "it anew"
    )


def _fingerprint(store: Store) -> str:
    table = store.table[["subject", "split", "checksum", *store.label_columns]]
    digest = hashlib.sha256(table.to_csv(index=False).encode())
    digest.update(os.fsencode(str(np.dtype(store.info.dtype))))
    return digest.hexdigest()
