"""What each experiment trains, shipped or in a file, and what its results are held against."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vitaepp.errors import RecipeError, nearest
from vitaepp.nn.backbones import BACKBONES
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe, resolve
from vitaepp.recipe.values import read_mapping, read_text_file

#: What is measured: a classifier on frozen features, the loss over epochs, or reconstructions.
Kind = Literal["classification", "loss", "reconstruction"]

_NO_PERCEPTUAL, _NO_EDGE = "loss.perceptual.weight=0", "loss.edge.weight=0"
_NO_CONTRAST = "loss.contrastive.weight=0"

#: What a file of variants may hold.
_PARTS = ("title", "base", "seeds", "variants")


@dataclass(frozen=True)
class Variant:
    """One row of a table: a recipe, told by what it changes.

    Attributes:
        key: names its folder, and itself on the command line.
        name: in print; empty: what its recipe is called.
        settings: what it changes in the recipe of the experiment; they come last. As
            `name=value`, or as a file has them.
        against: key of the variant that it is compared with; empty for a reference.
        at: its position on the figure's horizontal axis, where there is one.
    """

    key: str
    name: str
    settings: tuple[str, ...] | Mapping[str, Any]
    against: str = ""
    at: float | None = None

    def recipe(self, base: Recipe) -> Recipe:
        """The experiment's recipe with this variant's settings.

        A variant that asks for `resnet` takes the recipe's own ResNet, or the smaller one.
        """
        if isinstance(self.settings, Mapping):
            return base.with_settings(self.settings)
        own = base.model.backbone
        resnet = own if own.startswith("resnet") else "resnet18"
        return base.with_settings([s.replace("=resnet", f"={resnet}") for s in self.settings])

    def title(self, base: Recipe) -> str:
        """Its name in print: the losses that it really has, or the ResNet that it takes."""
        recipe = self.recipe(base)
        return self.name.replace("ResNet", BACKBONES[recipe.model.backbone]) or recipe.name


@dataclass(frozen=True)
class Experiment:
    """A set of variants and what is shown of them.

    Attributes:
        key: its name on the command line.
        title: what it reproduces.
        kind: what is measured.
        variants: rows, in the paper's order.
        metrics: columns, the compared one first; empty: as the protocol has them.
    """

    key: str
    title: str
    kind: Kind
    variants: tuple[Variant, ...]
    metrics: tuple[str, ...] = ()

    def choose(self, keys: Sequence[str] | None) -> Experiment:
        """This experiment with some of its variants.

        Raises:
            RecipeError: one does not exist.
        """
        if keys is None:
            return self
        known = [v.key for v in self.variants]
        for key in keys:
            if key not in known:
                raise RecipeError(
                    f"experiment {self.key} has no variant {key}; {nearest(key, known)}"
                )
        if not keys:
            raise RecipeError(
                f"experiment {self.key}: no variant is left; known are {', '.join(known)}"
            )
        chosen = tuple(v for v in self.variants if v.key in set(keys))
        return Experiment(self.key, self.title, self.kind, chosen, self.metrics)


def _vit(
    key: str, *settings: str, against: str = "", name: str = "", at: float | None = None
) -> Variant:
    """A masked autoencoder. Losses are switched off one by one, so that the weights of those that
    are on remain the recipe's.
    """
    return Variant(key, name, ("model.backbone=vit", *settings), against, at)


def _contrastive(method: str, backbone: str, against: str = "") -> Variant:
    resnet = backbone == "resnet"
    return Variant(
        method if resnet else f"{method}-{backbone}",
        f"{METHODS[method].title} ({'ResNet' if resnet else BACKBONES[backbone]})",
        (f"method={method}", f"model.backbone={backbone}", *(["model.pool=mean"] * resnet)),
        against,
    )


def _masking(percent: int) -> Variant:
    ratio = percent / 100
    reference = percent == 75
    return _vit(
        "vitae++" if reference else f"vitae++-mask{percent}",
        f"model.mask_ratio={ratio}",
        against="" if reference else "vitae++",
        name=f"p = {ratio:.2f}",
        at=ratio,
    )


_PLAIN = (_NO_PERCEPTUAL, _NO_EDGE, _NO_CONTRAST)
_EDGE = ("vitae+edge", _NO_PERCEPTUAL, _NO_CONTRAST)
_PERCEPTUAL = ("vitae+per", _NO_EDGE, _NO_CONTRAST)
_BOTH = ("vitae+edge+per", _NO_CONTRAST)

_ALL = (
    Experiment(
        "methods",
        "Table 2: ViT-AE++ and other self-supervised methods",
        "classification",
        (
            _contrastive("mocov3", "resnet", against="vitae++"),
            _contrastive("simsiam", "resnet", against="vitae++"),
            _vit("vitae", *_PLAIN, against="vitae++"),
            _vit("vitae++"),
        ),
    ),
    Experiment(
        "ablation",
        "Table 3: what each loss adds",
        "classification",
        (
            _vit(
                "contrastive",
                *("loss.reconstruction.weight=0", _NO_PERCEPTUAL, _NO_EDGE),
                against="vitae",
            ),
            _vit("vitae", *_PLAIN),
            _vit(*_EDGE, against="vitae"),
            _vit(*_PERCEPTUAL, against="vitae"),
            _vit(*_BOTH, against="vitae"),
            _vit("vitae++", against="vitae"),
        ),
    ),
    Experiment(
        "backbone",
        "Table 4: ResNet against ViT in contrastive methods",
        "classification",
        (
            _contrastive("mocov3", "resnet"),
            _contrastive("simsiam", "resnet"),
            _contrastive("simsiam", "vit", against="simsiam"),
            _contrastive("mocov3", "vit", against="mocov3"),
        ),
    ),
    Experiment(
        "linear-probe",
        "Table 1: ViT-AE++ and ViT-AE on 2D images",
        "classification",
        (_vit("vitae", *_PLAIN), _vit("vitae++", against="vitae")),
    ),
    Experiment(
        "masking-ratio",
        "Figure 2, left: the masking ratio p",
        "classification",
        tuple(_masking(percent) for percent in (55, 65, 75, 85, 95)),
        ("auc", "specificity"),
    ),
    Experiment(
        "edge-decay",
        "Figure 2, right: training with and without the decay of λ_edge",
        "loss",
        (
            _vit(
                "vitae++-nodecay", "loss.edge.decay=none", against="vitae++", name="without decay"
            ),
            _vit("vitae++", "loss.edge.decay=linear", name="with decay"),
        ),
    ),
    Experiment(
        "reconstruction",
        "Table 5 and Figure 3: reconstruction under different losses",
        "reconstruction",
        (_vit("vitae", *_PLAIN), _vit(*_EDGE, against="vitae"), _vit(*_BOTH, against="vitae")),
        ("psnr", "ssim"),
    ),
)

#: Every experiment by its name.
EXPERIMENTS: Mapping[str, Experiment] = {experiment.key: experiment for experiment in _ALL}


def find(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        RecipeError: there is none.
    """
    if name not in EXPERIMENTS:
        raise RecipeError(f"no experiment {name!r}; {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


@dataclass(frozen=True)
class Plan:
    """What is to be run: an experiment, and what its file says beside the variants.

    Attributes:
        experiment: shipped, or read from a file.
        base: settings of all variants, by name; None for a shipped experiment.
        seeds: repetitions.
    """

    experiment: Experiment
    base: Mapping[str, Any] | None = None
    seeds: int = 1


#: Other files that a folder of experiments may have beside their tables.
_TAKEN = ("experiment", "hours", "ladder")


def read_experiment(name: str | os.PathLike[str]) -> Plan:
    """A shipped experiment by its name, or the one that a user wrote as a file of variants:

        title: Learning rates          # optional
        base: {optim.epochs: 40}       # optional: settings of all variants
        seeds: 3                       # optional
        variants:
          lr-1e-3: {optim.lr: 1e-3}    # the first one is what the others are compared with
          lr-3e-4: {optim.lr: 3e-4}

    Raises:
        RecipeError: there is none, or the file says something that cannot be.
    """
    path = Path(name)
    if not path.is_file() and path.suffix not in (".yaml", ".yml"):
        return Plan(find(str(name)))
    if not path.is_file():
        raise RecipeError(f"{path}: no such file; an experiment is a file of variants or a name")
    values = read_mapping(read_text_file(path), str(path))
    for part in values:
        if part not in _PARTS:
            raise RecipeError(f"{path}: unknown entry {part}; {nearest(str(part), _PARTS)}")
    if path.stem.casefold() in {*EXPERIMENTS, *_TAKEN}:
        raise RecipeError(
            f"{path}: {path.stem} is the name of a shipped experiment, or of a file in its folder; "
            "name the file otherwise"
        )
    base = _settings(values.get("base"), f"{path}: base")
    seeds = values.get("seeds", 1)
    if type(seeds) is not int or seeds < 1:
        raise RecipeError(f"{path}: seeds={seeds}: give a whole number of at least 1")
    variants = _variants(path, values.get("variants"), base)
    title = str(values.get("title") or f"Sweep {path.stem}")
    return Plan(Experiment(path.stem, title, "classification", variants), base, seeds)


def _variants(path: Path, values: Any, base: Mapping[str, Any]) -> tuple[Variant, ...]:
    if not isinstance(values, Mapping) or not values:
        raise RecipeError(
            f"{path}: variants: write one or more as NAME: {{SETTING: VALUE}}, for example "
            "fast: {optim.lr: 1e-3}"
        )
    recipe, variants = resolve(None, base, where=f"{path}: base"), []
    first = str(next(iter(values)))
    for key, settings in values.items():
        name = str(key)
        if not re.fullmatch(r"[\w.+=-]+", name):
            raise RecipeError(
                f"{path}: variant {name!r}: a name has letters, digits and - _ . + = only, because "
                "it names a folder"
            )
        where = f"{path}: variant {name}"
        changes = _settings(settings, where)
        resolve(recipe, changes, where=where)
        variants.append(Variant(name, name, changes, "" if name == first else first))
    return tuple(variants)


def _settings(values: Any, where: str) -> dict[str, Any]:
    if values is not None and not isinstance(values, Mapping):
        raise RecipeError(f"{where}: write settings as SETTING: VALUE, found {values!r}")
    return {str(name): value for name, value in (values or {}).items()}
