"""Recipe: every setting of a run, typed, validated and documented in one place.

A recipe is read from YAML, changed by dotted paths (`optim.epochs=100`), and written back resolved:
`recipe.yaml` in a run folder holds every setting that made it.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from vitaepp.errors import RecipeError, nearest, one_line, plainly
from vitaepp.recipe.sections import (
    DataSettings,
    LossSettings,
    MoCoV3Settings,
    ModelSettings,
    OptimSettings,
    PerceptualSettings,
    PrepareSettings,
    Section,
    SimSiamSettings,
    TrainerSettings,
    ViewSettings,
)
from vitaepp.system.files import write_text

#: Where the names of settings are, which are too many for one line.
_LISTED = "vitaepp settings lists all"


#: What ViT-AE++ adds to ViT-AE, in the order in which a name lists it, and its sign in print.
ADDITIONS = {"edge": "L_edge", "perceptual": "L_per", "contrastive": "L_CL"}

#: Methods that hide patches, and have these losses.
MASKED = ("vitae++", "vitae")

#: Settings of `optim`, and the one that goes before each where it is set.
INSTEAD = {"epochs": "updates", "base_lr": "lr", "warmup_epochs": "warmup_updates"}

#: What a method is called in print.
METHOD_NAMES = {"vitae++": "ViT-AE++", "vitae": "ViT-AE", "simsiam": "SimSiam", "mocov3": "MoCo-v3"}


class Recipe(Section):
    """Every setting of a run."""

    method: Literal["vitae++", "vitae", "simsiam", "mocov3"] = Field(
        "vitae++",
        description="vitae++, or vitae (plain ViT-AE): they give the edge, perceptual and "
        "contrastive losses the paper's weights or 0, where you give none, and a recipe with one "
        "of these weights at 0 is vitae; or a contrastive baseline, simsiam or mocov3, which has "
        "no masks and none of these losses.",
    )
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of weights, order, masks, views and slices."
    )
    prepare: PrepareSettings = Field(default_factory=PrepareSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    loss: LossSettings = Field(default_factory=LossSettings)
    simsiam: SimSiamSettings = Field(default_factory=SimSiamSettings)
    mocov3: MoCoV3Settings = Field(default_factory=MoCoV3Settings)
    views: ViewSettings = Field(default_factory=ViewSettings)
    optim: OptimSettings = Field(default_factory=OptimSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        # The one place where `vitae` becomes weights. `vitae++` is what weights are by default.
        # Weights that are given stay, so that each row of the paper's Table 3 is a recipe: vitae
        # with loss.edge.weight=10, and so on.
        if isinstance(values, dict) and values.get("method") == "vitae":
            loss = _given(values.get("loss"))
            if isinstance(loss, dict):  # what is no group is told when it is validated
                for term in ADDITIONS:
                    own = _given(loss.get(term))
                    loss[term] = {"weight": 0.0} | own if isinstance(own, dict) else own
            values = values | {"loss": loss}
        return values

    @model_validator(mode="after")
    def _name_by_weights(self) -> Recipe:
        # Whoever reads a resolved recipe is told what was trained, not what was typed.
        if self.method in MASKED:
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
        """
        if self.method not in MASKED:
            return METHOD_NAMES[self.method]
        added = [sign for term, sign in ADDITIONS.items() if getattr(self.loss, term).weight]
        blind = self.loss.perceptual.weights == "none"
        if self.loss.reconstruction.weight and len(added) == len(ADDITIONS):
            return METHOD_NAMES["vitae++"] + " without L_per" * blind
        added = [sign for sign in added if not (blind and sign == ADDITIONS["perceptual"])]
        # Without L_rec no image is decoded for its own sake: Table 3 calls it a ViT.
        return " + ".join(["ViT-AE" if self.loss.reconstruction.weight else "ViT", *added])

    @classmethod
    def load(
        cls, recipe: str | os.PathLike[str] | None = None, settings: str | Sequence[str] = ()
    ) -> Recipe:
        """Read a shipped recipe by name or a YAML file, then apply `name=value` settings.

        `method=vitae` and `method=vitae++` among the settings also set the weights that they stand
        for, unless the settings name these.

        Raises:
            RecipeError: no such recipe, an unknown setting, or a value that does not fit.
        """
        begun = cls()
        if recipe is not None:
            begun = cls.parse(_read_yaml(recipe), where=f"recipe {recipe}")
        return begun.with_settings(settings)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """Validate plain values; every problem becomes one `RecipeError` line."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise RecipeError(f"{where}: {_first_problem(error)}") from None

    def with_settings(self, settings: str | Sequence[str]) -> Recipe:
        """A copy with `name=value` settings applied.

        Raises:
            RecipeError: an unknown setting, or a value that does not fit.
        """
        values: dict[str, Any] = {}
        for setting in as_settings(settings):
            _apply(values, setting)
        return self._with(values, where="settings") if values else self

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some settings replaced, nested as in a recipe; their neighbours stay.

        >>> recipe = Recipe().changed(seed=1, loss={"edge": {"weight": 3.0}})
        >>> recipe.loss.edge.weight, recipe.loss.perceptual.weight
        (3.0, 0.01)
        """
        return self._with(changes, where="recipe")

    def _with(self, changes: Mapping[str, Any], where: str) -> Recipe:
        asked: dict[str, Any] = _plain(changes)
        given, values = flatten(asked), self.model_dump()
        for term in ADDITIONS if asked.get("method") in MASKED else ():
            weighs = asked["method"] == "vitae++" and getattr(self.loss, term).weight
            if not weighs and f"loss.{term}.weight" not in given:
                # It makes room for what the method stands for.
                del values["loss"][term]["weight"]
        if {"loss.perceptual.weights", "loss.perceptual.relative"} & set(given):
            # So do the defaults that belonged to other weights.
            own, ours = self.loss.perceptual, values["loss"]["perceptual"]
            if own.weight == PerceptualSettings(relative=own.relative).weight:
                ours.pop("weight", None)
            if own.relative == PerceptualSettings(weights=own.weights).relative:
                del ours["relative"]
        for name, instead in INSTEAD.items():
            if f"optim.{name}" in given and f"optim.{instead}" not in given:
                values["optim"][instead] = None  # what was asked for last holds
        return Recipe.parse(_merged(values, asked, self), where=where)

    def to_yaml(self) -> str:
        """Every setting as YAML, in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the resolved recipe, whole or not at all."""
        write_text(path, self.to_yaml())


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("vitaepp.recipe") / "shipped"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def describe_settings() -> Iterator[tuple[str, Any, str]]:
    """Every setting as (dotted name, default, description), in the order of this file."""
    for name, field in _fields(Recipe):
        yield name, field.default, field.description or ""


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
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in values.items()
        if not name.startswith("prepare.")
        and value != _as_json(defaults[name])
        and not (name == "method" and value in MASKED)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names.

    >>> flatten({"optim": {"epochs": 3}, "seed": 0})
    {'optim.epochs': 3, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_yaml(recipe: str | os.PathLike[str]) -> dict[str, Any]:
    name = os.fspath(recipe)
    if name in shipped_recipes():
        text = (resources.files("vitaepp.recipe") / "shipped" / f"{name}.yaml").read_text(
            encoding="utf-8"
        )
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise RecipeError(f"{name}: not a text file; a recipe is YAML") from None
    else:
        raise RecipeError(
            f"no recipe {name!r}: no such file, and {nearest(name, shipped_recipes())}"
        )
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{name}: not valid YAML: {one_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(
            f"{name}: a recipe is a mapping of settings, found {type(values).__name__}"
        )
    return values


def as_settings(settings: str | Sequence[str]) -> tuple[str, ...]:
    """Settings as a list; one alone may be given as it is.

    >>> as_settings("seed=1")
    ('seed=1',)
    """
    return (settings,) if isinstance(settings, str) else tuple(settings)


def _given(section: Any) -> Any:
    """What a section was given, as plain values that may be added to; what is none, as it is."""
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return dict(section) if isinstance(section, Mapping) else {} if section is None else section


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _merged(
    values: dict[str, Any], changes: Mapping[str, Any], section: BaseModel
) -> dict[str, Any]:
    """A section's values with some of them replaced; groups are gone into, values are not."""
    for name, change in changes.items():
        own = getattr(section, name, None)
        if isinstance(own, BaseModel) and isinstance(change, Mapping):
            change = _merged(values[name], change, own)
        values[name] = change
    return values


def _apply(values: dict[str, Any], setting: str) -> None:
    """Put `a.b=c` into nested values."""
    path, equals, text = setting.partition("=")
    path = path.strip()
    fields = dict(_fields(Recipe))
    if not equals:
        raise RecipeError(f"--set {setting}: write name=value")
    if path not in fields:
        inside = [name for name in fields if name.startswith(f"{path}.")]
        hint = (
            f"it is a group, of {', '.join(inside)}" if inside else nearest(path, fields, _LISTED)
        )
        raise RecipeError(f"unknown setting {path}; {hint}")
    *sections, name = path.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    try:
        values[name] = _read_value(text, fields[path].annotation)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"--set {setting}: not a value: {one_line(error)}") from None


def _read_value(text: str, kind: Any) -> Any:
    """What somebody typed for a setting of some type.

    Texts are taken as they are: YAML has its own idea of `no`, `0123` and `2020-01-01`. Quotes
    around them, and nothing at all, mean what they mean in YAML.

    >>> _read_value("no", str), _read_value("0123", int), _read_value("1e3", float)
    ('no', 123, 1000.0)
    """
    bare = text.strip()
    if _is_text(kind) and bare[:1] not in ("", "'", '"', "["):
        return bare

    def known(value: Any) -> Any:
        if isinstance(value, list):
            return [known(v) for v in value]
        if isinstance(value, dict):
            return {k: known(v) for k, v in value.items()}
        return value if _is_text(kind) and value else _number_or_text(value)

    return known(yaml.load(bare, yaml.BaseLoader))  # it makes all scalars strings


def _number_or_text(text: Any) -> Any:
    if text in (None, "", "~", "null", "Null", "NULL"):
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _is_text(kind: Any) -> bool:
    """Whether a setting of this type is free text, or a list of such."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    members = [k for k in get_args(kind) if k not in (type(None), ...)]
    if get_origin(kind) in (Union, types.UnionType, tuple):
        return all(_is_text(k) for k in members)
    return kind is str


def _first_problem(error: ValidationError) -> str:
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
    told = ", or ".join(f"{text[0].lower()}{text[1:]}" for text in plain)
    told = told.replace(", or give ", ", or ")
    return f"{path}={problem['input']!r}: {told}"
