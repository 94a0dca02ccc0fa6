"""What a report knows of a run: what is missing is None, and what is broken is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from vitaepp.data.origin import other_encoder
from vitaepp.errors import RecipeError
from vitaepp.evaluation.measures import task_of
from vitaepp.presentation.names import model_name
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.reporting.extras import Section


@dataclass(frozen=True)
class Result:
    """What was measured of an encoder.

    Attributes:
        folder: where it lies, inside the run or as it was given.
        weights: the id of the encoder's weights, a list where each fold has its own; None where
            the files do not say.
    """

    folder: Path
    weights: str | list[Any] | None

    @property
    def whose(self) -> str:
        """Which encoder made it, if it is not that of the run."""
        return other_encoder(self.weights, None)


@dataclass(frozen=True)
class Evaluation(Result):
    """The content of a metrics.json and of the tables beside it."""

    metrics: dict[str, Any]
    predictions: pd.DataFrame | None
    points: pd.DataFrame | None

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is known of the embeddings."""
        return _section(self.metrics, "provenance")

    @property
    def title(self) -> str:
        """The label and the protocol, in words."""
        protocol = str(self.metrics.get("classifier") or self.metrics["protocol"])
        return f"{self.metrics['label']}, {model_name(self.task, protocol)}"

    @property
    def task(self) -> str:
        """What kind of label it is."""
        return task_of(self.metrics)

    @property
    def fine_tuned(self) -> bool:
        """Whether it is of networks that were trained on the label, and not of the encoder."""
        return self.metrics.get("classifier") == "finetune"


@dataclass(frozen=True)
class Reconstruction(Result):
    """Files of a reconstruction: metrics per subject, and what there is to look at.

    Attributes:
        metrics: `subject`, `psnr` in dB, `ssim`.
        volumes: `.npz` files by subject, with `original`, `masked` and `reconstruction`.
        panels: `.png` files by subject, of those without an `.npz`.
    """

    metrics: pd.DataFrame
    volumes: dict[str, Path]
    panels: dict[str, Path]


@dataclass(frozen=True)
class Explanation(Result):
    """Files of `explain`: numbers, and the maps of each subject.

    Attributes:
        facts: the content of explain.json.
        volumes: `.npz` files by subject.
    """

    facts: dict[str, Any]
    volumes: dict[str, Path]


@dataclass(frozen=True)
class RunContents:
    """Everything a report says about one run.

    Attributes:
        name: the folder's name, made unique among the runs of a report.
        path: the folder as it was given, for the commands that make what is missing.
        recipe: settings as plain values, and their text.
        summary: what pretrain wrote about data, model and machine; every key is optional.
        training: a row an epoch, or None.
        prepared: contact sheet of the store that it was trained on, or None.
        evaluations: in the order of their label, protocol and folder; fine-tuned ones last.
        reconstructions: in the order of their folders.
        explanations: likewise.
        broken: a line for everything that is not shown, or outdated.
        weights: the id of its weights; None before the first checkpoint.
        extras: sections of other verbs, each with the place of its file in the run.
    """

    name: str
    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    summary: dict[str, Any]
    training: pd.DataFrame | None
    prepared: Image.Image | None
    evaluations: list[Evaluation]
    reconstructions: list[Reconstruction]
    explanations: list[Explanation]
    broken: list[str] = field(default_factory=list)
    weights: str | None = None
    extras: list[tuple[str, Section]] = field(default_factory=list)

    def owns(self, result: Result) -> bool:
        """Whether a result was made with the weights that this run has now."""
        return self.weights is not None and not other_encoder(result.weights, self.weights)

    def location_of(self, result: Result) -> str:
        """Where a result lies, from the run on if it is there."""
        inside = result.folder.is_relative_to(self.path)
        return str(result.folder.relative_to(self.path) if inside else result.folder)

    @cached_property
    def settings(self) -> Recipe | None:
        """Its recipe; None of another version's, or a damaged one."""
        try:
            return Recipe.of_run(self.recipe, str(self.path)) if self.recipe else None
        except RecipeError:
            return None

    def section(self, name: str) -> dict[str, Any]:
        """A section of its recipe; empty where there is none."""
        return _section(self.recipe, name)

    @property
    def store(self) -> dict[str, Any]:
        """Facts about the store that it was trained on; every key is optional."""
        return _section(self.summary, "store")

    @property
    def parameters(self) -> dict[str, Any]:
        """Numbers of parameters, by part of the model; every key is optional."""
        counts, recipe = _section(self.summary, "parameters"), self.settings
        plain = recipe and METHODS[recipe.method].masked and not recipe.loss.contrastive.weight
        if not plain and "heads" not in counts:
            # An older version counted heads as part of the decoder.
            return {part: count for part, count in counts.items() if part != "decoder"}
        return counts

    @property
    def modalities(self) -> list[str]:
        """Names of the channels."""
        names = self.store.get("modalities")
        return [str(name) for name in names] if isinstance(names, list) else []

    @property
    def unit(self) -> str:
        """The unit of the spacing."""
        return str(self.store.get("unit") or "mm")

    @property
    def directed(self) -> bool:
        """Whether the axes of its volumes run to the patient's right, front and head."""
        spacing = self.store.get("spacing")
        return isinstance(spacing, list) and len(spacing) == 3 and not self.store.get("unit")

    @property
    def epochs(self) -> tuple[int, int | None]:
        """How many epochs were trained, and how many are wanted, if that is known."""
        wanted = self.summary.get("epochs") or self.section("optim").get("epochs")
        wanted = wanted if isinstance(wanted, int) else None
        if wanted is not None and "seconds" in self.summary:  # written when training has ended
            return wanted, wanted
        return 0 if self.training is None else self.training["epoch"].nunique(), wanted


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = values.get(name)
    return section if isinstance(section, dict) else {}
