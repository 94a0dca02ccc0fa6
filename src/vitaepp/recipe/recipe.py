"""Recipe: every setting of a run, typed, validated and documented in one place.

A recipe is read from YAML, changed by dotted paths (`optim.epochs=100`), and written back resolved:
`recipe.yaml` in a run folder holds every setting that made it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from vitaepp.errors import RecipeError, nearest, one_line, plainly
from vitaepp.recipe import sections
from vitaepp.recipe.methods import CONTRASTIVE, METHODS, MethodKey
from vitaepp.recipe.values import read_mapping, read_text_file, read_value, split_setting
from vitaepp.system.files import write_text
from vitaepp.system.progress import say
from vitaepp.system.text import as_typed

#: Where the names of settings are, which are too many for one line.
_LISTED = "vitaepp settings lists all"


#: What ViT-AE++ adds to ViT-AE, in the order in which a name lists it, and its sign in print.
ADDITIONS = {"edge": "L_edge", "perceptual": "L_per", "contrastive": "L_CL"}

#: The settings that say which of them a recipe has.
_WEIGHTS = tuple(f"loss.{term}.weight" for term in ADDITIONS)

#: Settings of `optim`, and the one that goes before each where it is set.
INSTEAD = {"epochs": "updates", "base_lr": "lr", "warmup_epochs": "warmup_updates"}


class Setting(NamedTuple):
    """A setting as its section defines it.

    Attributes:
        name: dotted path into the recipe, or into the section that was asked for.
        default: its value where nobody sets it.
        description: what it means.
        kind: its type.
    """

    name: str
    default: Any
    description: str
    kind: Any

    @property
    def typed(self) -> str:
        """Its default as people type it, or `unset`."""
        return "unset" if self.default is None else as_typed(self.default)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        return {
            "name": self.name,
            "default": _as_json(self.default),
            "description": self.description,
        }


class Recipe(sections.Section):
    """Every setting of a run."""

    method: MethodKey = Field(
        "vitae++",
        description="vitae++, or vitae (plain ViT-AE): they give the edge, perceptual and "
        "contrastive losses the paper's weights or 0, where you give none, and a recipe with one "
        f"of these weights at 0 is vitae; or a contrastive baseline, {' or '.join(CONTRASTIVE)}, "
        "which has no masks and none of these losses.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of weights, order, masks, views and slices."
    )
    prepare: sections.PrepareSettings = Field(default_factory=sections.PrepareSettings)
    model: sections.ModelSettings = Field(default_factory=sections.ModelSettings)
    loss: sections.LossSettings = Field(default_factory=sections.LossSettings)
    simsiam: sections.SimSiamSettings = Field(default_factory=sections.SimSiamSettings)
    mocov3: sections.MoCoV3Settings = Field(default_factory=sections.MoCoV3Settings)
    views: sections.ViewSettings = Field(default_factory=sections.ViewSettings)
    optim: sections.OptimSettings = Field(default_factory=sections.OptimSettings)
    finetune: sections.FinetuneSettings = Field(default_factory=sections.FinetuneSettings)
    data: sections.DataSettings = Field(default_factory=sections.DataSettings)
    trainer: sections.TrainerSettings = Field(default_factory=sections.TrainerSettings)

    @model_validator(mode="before")
    @classmethod
    def _expand_method(cls, values: Any) -> Any:
        # `vitae++` is what the weights are by default, and weights that are given stay, so that
        # each row of the paper's Table 3 is a recipe: vitae with loss.edge.weight=10, and so on.
        if isinstance(values, dict) and values.get("method") == "vitae":
            return _nested(_merged(dict.fromkeys(_WEIGHTS, 0.0), flatten(values)))
        return values

    @model_validator(mode="after")
    def _name_by_weights(self) -> Recipe:
        # Whoever reads a resolved recipe is told what was trained, not what was typed.
        if METHODS[self.method].masked:
            whole = all(getattr(self.loss, term).weight for term in ADDITIONS)
            object.__setattr__(self, "method", "vitae++" if whole else "vitae")
        return self

    def __repr__(self) -> str:
        return f"Recipe({', '.join([self.name, *changed_settings(self)])})"

    __str__ = __repr__

    @property
    def name(self) -> str:
        """What the method is called in print, with the losses that it has.

        >>> Recipe().name, Recipe.load(settings="method=vitae").name
        ('ViT-AE++', 'ViT-AE')
        >>> Recipe.load(settings=["method=vitae", "loss.edge.weight=10"]).name
        'ViT-AE + L_edge'
        >>> Recipe.load(settings="loss.perceptual.weights=none").name
        'ViT-AE++ without L_per'

        A term that is not the paper's comes last, as `+ L_NAME`.
        """
        if not METHODS[self.method].masked:
            return METHODS[self.method].title
        added = [sign for term, sign in ADDITIONS.items() if getattr(self.loss, term).weight]
        blind = self.loss.perceptual.weights == "none"
        papers = {"reconstruction", *ADDITIONS}
        others = [f"L_{t}" for t, own in self.loss if own.weight and t not in papers]
        if self.loss.reconstruction.weight and len(added) == len(ADDITIONS):
            return " + ".join([METHODS["vitae++"].title + " without L_per" * blind, *others])
        added = [sign for sign in added if not (blind and sign == ADDITIONS["perceptual"])]
        # Without L_rec no image is decoded for its own sake: Table 3 calls it a ViT.
        plain = METHODS["vitae"].title if self.loss.reconstruction.weight else "ViT"
        return " + ".join([plain, *added, *others])

    @classmethod
    def load(
        cls,
        recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | str | Sequence[str] = (),
    ) -> Recipe:
        """A recipe with some settings changed, as `resolve` has it."""
        return resolve(recipe, settings)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """A recipe of plain values, nested or by their dotted names."""
        return resolve({}, values, where=where)

    @classmethod
    def of_run(cls, values: Mapping[str, Any], where: str) -> Recipe:
        """The recipe that a run keeps.

        What it says of fine-tuning is used by `finetune` alone. Where that is of another version,
        it is replaced by the defaults, and a line says so.

        Args:
            values: all settings, nested.
            where: the file that they are from, for errors.
        """
        try:
            return resolve({}, values, where=where)
        except RecipeError as error:
            rest = {name: value for name, value in values.items() if name != "finetune"}
            recipe = resolve({}, rest, where=where)
            say(f"{error}; its settings of finetune are replaced by the defaults")
            return recipe

    def with_settings(self, settings: Mapping[str, Any] | str | Sequence[str]) -> Recipe:
        """A copy with some settings changed, as `resolve` has it."""
        return resolve(self, settings)

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some settings changed, nested as in a recipe; their neighbours stay.

        >>> recipe = Recipe().changed(seed=1, loss={"edge": {"weight": 3.0}})
        >>> recipe.loss.edge.weight, recipe.loss.perceptual.weight
        (3.0, 0.01)
        """
        return resolve(self, changes, where="recipe")

    def to_yaml(self) -> str:
        """Every setting as YAML, in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the resolved recipe, whole or not at all."""
        write_text(path, self.to_yaml())


def resolve(
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | str | Sequence[str] = (),
    *,
    where: str = "",
) -> Recipe:
    """Every setting of a run: the defaults, changed by a recipe, changed by settings.

    Here, and nowhere else, presets become settings. A preset among `settings` replaces what the
    recipe says of the settings that it stands for, unless `settings` give these, too:

    - the name of a recipe stands for the settings in its file;
    - `method=vitae` sets the weights of the edge, perceptual and contrastive losses to 0;
      `method=vitae++` sets those that are 0 to the paper's;
    - `model.size` stands for width, depth and heads of encoder and decoder;
    - `loss.perceptual.weights` stands for the weight of the loss that suits their scale;
    - `optim.epochs`, `optim.base_lr` and `optim.warmup_epochs` put aside what would go before them,
      in the recipe and among the settings before them. Values by their names have no order: there,
      what goes before them holds.

    Args:
        recipe: a shipped recipe's name, a YAML file, values, or a recipe. Unset: the defaults.
        settings: as `"optim.epochs=3"`, one or several, or as values by their names, nested or
            dotted. A section that is given as an object is given whole.
        where: what errors say before a setting. The name of a group, `prepare`, stands for settings
            that are arguments of a function, which errors then name.

    Raises:
        RecipeError: no such recipe, an unknown setting, or a value that does not fit.

    >>> resolve("demo").model.embed_dim, resolve("demo", "model.size=small").model.embed_dim
    (192, None)
    >>> resolve("demo", {"optim": {"epochs": 3}}).optim.batch_size
    8
    """
    if recipe is None:
        recipe = Recipe()
    elif not isinstance(recipe, Recipe):
        named = where if isinstance(recipe, Mapping) else f"recipe {recipe}"
        recipe = _validated(said_by(recipe), named)
    changes = _changes(settings)
    if not changes:
        return recipe
    values = flatten(recipe.model_dump())
    for name in {*_replaced(changes, values)}:
        del values[name]
    return _validated(_merged(values, changes), where)


def said_by(recipe: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The settings that a recipe names, by their dotted names.

    Args:
        recipe: a shipped recipe's name, a YAML file, or values.

    Raises:
        RecipeError: no such recipe, or not one.
    """
    return flatten(recipe if isinstance(recipe, Mapping) else _read(recipe))


def _replaced(changes: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """The settings of a recipe that the presets among some changes replace."""
    method, names = changes.get("method"), []
    if isinstance(method, str) and method in METHODS and METHODS[method].masked:
        names += [name for name in _WEIGHTS if method == "vitae" or not values[name]]
    if "model.size" in changes:
        names += [
            f"model.{part}{name}"
            for part in ("", "decoder_")
            for name in ("embed_dim", "depth", "num_heads")
        ]
    perceptual = "loss.perceptual."
    if {perceptual + "weights", perceptual + "relative"} & set(changes):
        # What is the default beside some weights is not what was asked for beside others.
        weights, relative = values[perceptual + "weights"], values[perceptual + "relative"]
        if values[perceptual + "weight"] == sections.PerceptualSettings(relative=relative).weight:
            names.append(perceptual + "weight")
        if relative == sections.PerceptualSettings(weights=weights).relative:
            names.append(perceptual + "relative")
    for name, instead in INSTEAD.items():
        if f"optim.{name}" in changes:
            names.append(f"optim.{instead}")
    return names


def _changes(settings: Mapping[str, Any] | str | Sequence[str]) -> dict[str, Any]:
    """Settings by their dotted names, whichever way they are given."""
    if isinstance(settings, Mapping):
        return flatten(settings)
    changes, fields = {}, dict(_fields(Recipe))
    for name, text in map(split_setting, as_settings(settings)):
        if name not in fields:
            inside = [field for field in fields if field.startswith(f"{name}.")]
            raise RecipeError(
                f"unknown setting {name}; it is a group, of {', '.join(inside)}"
                if inside
                else f"unknown setting {name}; {nearest(name, fields, _LISTED)}"
            )
        changes[name] = read_value(text, fields[name].annotation)
        group, _, last = name.rpartition(".")
        if group == "optim" and last in INSTEAD:  # the one that is given last holds
            changes.pop(f"optim.{INSTEAD[last]}", None)
    return changes


def as_settings(settings: str | Sequence[str]) -> tuple[str, ...]:
    """Settings as a list; one alone may be given as it is.

    >>> as_settings("seed=1")
    ('seed=1',)
    """
    return (settings,) if isinstance(settings, str) else tuple(settings)


def _validated(flat: Mapping[str, Any], where: str) -> Recipe:
    """A recipe of settings by their dotted names; every problem becomes one line."""
    try:
        return Recipe.model_validate(_nested(flat))
    except ValidationError as error:
        argument = f"{where}." if where in Recipe.model_fields else ""
        begin = f"{where}: " if where and not argument else ""
        raise RecipeError(begin + _first_problem(error, argument)) from None


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names with some replaced; what is no group replaces a group."""
    stay = {k: v for k, v in values.items() if not any(k.startswith(f"{c}.") for c in changes)}
    return stay | dict(changes)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names as a recipe has them, in groups."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        inside = nested
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = value
    return nested


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("vitaepp.recipe") / "shipped"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def describe_settings(section: type[BaseModel] = Recipe) -> Iterator[Setting]:
    """Every setting of a recipe, or of one section, in the order of their definitions."""
    for name, field in _fields(section):
        yield Setting(name, field.default, field.description or "", field.annotation)


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its dotted name."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def changed_settings(recipe: Recipe) -> list[str]:
    """The settings of a recipe that are not the defaults, as `name=value`, without `prepare`'s.

    Of a method that hides patches the weights of its losses tell which it is.
    """
    values, defaults = flatten(recipe.model_dump(mode="json")), flatten(Recipe().model_dump())
    return [
        f"{name}={as_typed(value)}"
        for name, value in values.items()
        if not name.startswith("prepare.")
        and value != _as_json(defaults[name])
        and not (name == "method" and METHODS[value].masked)
    ]


def flatten(values: Mapping[str, Any], section: type[BaseModel] = Recipe) -> dict[str, Any]:
    """Nested settings by their dotted names; an empty group has none.

    Raises:
        RecipeError: a setting is given nested and by its dotted name.

    >>> flatten({"optim": {"epochs": 3}, "seed": 0})
    {'optim.epochs': 3, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        field = section.model_fields.get(name)
        kind = None if field is None else field.annotation
        group = value.model_dump() if isinstance(value, BaseModel) else value
        inside: dict[str, Any] = {}
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            inside[str(name)] = value
        elif isinstance(group, Mapping):
            inside = {f"{name}.{inner}": v for inner, v in flatten(group, kind).items()}
        elif group is not None:  # it is told when it is validated
            inside[name] = group
        if twice := flat.keys() & inside.keys():
            raise RecipeError(f"{min(twice)} is given twice; give it once")
        flat |= inside
    return flat


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read(recipe: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in a shipped recipe or a file."""
    name = os.fspath(recipe)
    if name in shipped_recipes():
        shipped = resources.files("vitaepp.recipe") / "shipped" / f"{name}.yaml"
        return read_mapping(shipped.read_text(encoding="utf-8"), name)
    if Path(name).is_file():
        return read_mapping(read_text_file(Path(name)), name)
    raise RecipeError(f"no recipe {name!r}: no such file, and {nearest(name, shipped_recipes())}")


def _first_problem(error: ValidationError, argument: str = "") -> str:
    """What is wrong with a setting; one whose name begins with `argument` is an argument."""
    known = [name for name, _ in _fields(Recipe)]
    problem = error.errors()[0]
    # Union members and tuple positions follow the setting's own name in pydantic's location.
    parts: list[str] = []
    for part in problem["loc"]:
        candidate = ".".join([*parts, str(part)])
        if problem["type"] != "extra_forbidden" and not any(
            name == candidate or name.startswith(f"{candidate}.") for name in known
        ):
            break
        parts.append(str(part))
    path = ".".join(parts)
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {path}; {nearest(path, known, _LISTED)}"
    # A setting that may be of several types has a problem with each of them.
    same = [p for p in error.errors() if p["loc"][: len(parts)] == problem["loc"][: len(parts)]]
    messages = [one_line(Exception(p["msg"])).removeprefix("Value error, ") for p in same]
    plain = dict.fromkeys(plainly(text) for text in messages)
    remedy = ", or ".join(f"{text[0].lower()}{text[1:]}" for text in plain)
    remedy = remedy.replace(", or give ", ", or ")
    if argument and path.startswith(argument):
        return f"`{path.removeprefix(argument)}={as_typed(problem['input'])}`: {remedy}"
    return f"{path}={problem['input']!r}: {remedy}"
