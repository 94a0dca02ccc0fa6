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
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from vitaepp.errors import RecipeError, nearest, one_line, plainly
from vitaepp.files import write_text

#: Where the names of settings are, which are too many for one line.
_LISTED = "vitaepp settings lists all"


def _one_or_per_axis(value: Any) -> Any:
    """Accept `96`, `"96,96,64"`, `[96]` or `(96, 96, 64)`; one value stands for every axis."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, int | float):
        value = (value,)
    return value


PerAxisInt = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    BeforeValidator(_one_or_per_axis),
    Field(min_length=1, max_length=3),
]
PerAxisFloat = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...],
    BeforeValidator(_one_or_per_axis),
    Field(min_length=1, max_length=3),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda v: [n.strip() for n in v.split(",")] if isinstance(v, str) else v),
]
Integers = Annotated[
    tuple[int, ...], BeforeValidator(_one_or_per_axis), AfterValidator(lambda v: tuple(sorted(v)))
]
Weight = Annotated[float, Field(ge=0)]

#: Usual windows of CT by name: centre and width in Hounsfield units.
WINDOWS = {
    "brain": (40.0, 80.0),
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "abdomen": (50.0, 400.0),
    "bone": (400.0, 1800.0),
}


def _percentiles(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] < value[1] <= 100:
        raise ValueError("two percentiles are needed, from 0 to 100, the lower one first")
    return value


def _window(value: Any) -> Any:
    """Accept the name of a window, `"40,400"` or `(40, 400)`."""
    if not isinstance(value, str):
        return value
    if "," in value:
        return value.split(",")
    if value not in WINDOWS:
        raise ValueError(f"no window {value}, nor CENTRE,WIDTH; {nearest(value, WINDOWS)}")
    return WINDOWS[value]


def _windows(value: Any) -> Any:
    """Accept `{"ct": "lung"}`, or `"ct=lung"` as on a command line, one or several."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    if not all(name and text for name, _, text in pairs):
        raise ValueError("write modality=window, such as ct=lung or ct=40,400")
    return {name.strip(): text.strip() for name, _, text in pairs}


Percentiles = Annotated[tuple[float, float], BeforeValidator(_percentiles), AfterValidator(_rising)]
Window = Annotated[tuple[float, Annotated[float, Field(gt=0)]], BeforeValidator(_window)]


def per_axis(values: Sequence[Any], ndim: int, what: str) -> tuple[Any, ...]:
    """Spread one value over `ndim` axes, or check that there is one for each.

    >>> per_axis((8,), 3, "model.patch_size")
    (8, 8, 8)
    """
    if len(values) == 1:
        return tuple(values) * ndim
    if len(values) != ndim:
        found = ",".join(str(v) for v in values)
        raise RecipeError(
            f"{what}={found} has {len(values)} values, but the images have {ndim} axes; "
            f"give one value or {ndim}"
        )
    return tuple(values)


#: What ViT-AE++ adds to ViT-AE, in the order in which a name lists it, and its sign in print.
ADDITIONS = {"edge": "L_edge", "perceptual": "L_per", "contrastive": "L_CL"}

#: Methods that hide patches, and have these losses.
MASKED = ("vitae++", "vitae")

#: What a method is called in print.
METHOD_NAMES = {"vitae++": "ViT-AE++", "vitae": "ViT-AE", "simsiam": "SimSiam", "mocov3": "MoCo-v3"}


class Section(BaseModel):
    """A group of settings: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class PrepareSettings(Section):
    """How raw files become a store."""

    size: PerAxisInt | None = Field(
        None,
        description="Crop in voxels, one value or one an axis. Unset: 96 for volumes of scans, "
        "224 for image folders, less where the images are smaller; their own size for arrays.",
    )
    spacing: PerAxisFloat | None = Field(
        None,
        description="Voxel size in mm. Unset: 1 mm for scans, unless theirs is far from it; images "
        "without a physical spacing are scaled as a whole to fit into the size.",
    )
    modalities: Names | None = Field(
        None, description="Channels, in order. Unset: those that the layout finds."
    )
    center: Literal["mask", "foreground", "image"] | None = Field(
        None,
        description="What the crop is centred on. Unset: the mask where there is one, else the "
        "image.",
    )
    layout: str | None = Field(
        None,
        description="The only layout to try: manifest, bids, decathlon, brats, subject-folders, "
        "named-files, dicom, scans, pictures, …. Unset: the first that fits.",
    )
    mask_pattern: str | None = Field(
        None,
        description="Which files are masks, by name or path, with * for anything: *_roi.nii.gz; "
        "an empty one takes every file for an image. Unset: told by words, and by voxels.",
    )
    mask_values: Integers | None = Field(
        None,
        description="Values of a mask that are the lesion to centre on: 1,4. Unset: all but 0.",
    )
    clip: Percentiles | None = Field(
        None,
        description="Percentiles of each scan that become 0 and 255, such as 0.5,99.5; beyond is "
        "clipped. Unset: its minimum and maximum.",
    )
    window: Annotated[dict[str, Window], BeforeValidator(_windows)] | None = Field(
        None,
        description="Modalities that have a window instead, by name: centre and width, or brain, "
        "lung, mediastinum, abdomen, bone (CT, in Hounsfield units).",
    )
    statistics: Literal["foreground"] | None = Field(
        None,
        description="foreground: percentiles and range do not depend on how much background there "
        "is: they are those of the voxels that are not 0 where 0 surrounds the scan, else the "
        "upper one is of those above Otsu's lower threshold of two. Unset: of the whole scan.",
    )
    archive_gib: float | None = Field(
        None,
        gt=0,
        description="What a .zip or .tar as source may hold when extracted, in GiB. Unset: 200 "
        "times its own size and 1 GiB.",
    )
    archive_files: int = Field(
        1_000_000, ge=1, description="How many files a .zip or .tar as source may hold."
    )
    series: str | None = Field(
        None,
        description="CSV, TSV or XLSX with columns pattern and modality: which DICOM series are "
        "which modality, by their description, before the built-in patterns are tried.",
    )
    secret: str | None = Field(
        None,
        description="File with a secret of 16 bytes or more: subjects and files are then named by "
        "a hash that only it tells. Unset: by their own names.",
    )
    dtype: Literal["float16", "uint8"] = Field(
        "float16", description="How intensities in [0, 255] are stored."
    )
    keep_masks: bool = Field(
        False,
        description="Keep each subject's mask beside its images, on their grid, with its labels.",
    )
    classes: int | None = Field(
        None,
        ge=1,
        description="Only the first so many classes, in the source's own order. Unset: all.",
    )


class ModelSettings(Section):
    """The network."""

    backbone: Literal["vit", "resnet18", "resnet50"] = Field(
        "vit", description="Encoder architecture; a ResNet (MONAI's) for simsiam and mocov3 only."
    )
    size: Literal["tiny", "small", "base", "large"] = Field(
        "base", description="Width, depth and heads of the transformer by name."
    )
    embed_dim: int | None = Field(None, ge=2, description="Width, instead of the size's own.")
    depth: int | None = Field(None, ge=1, description="Blocks, instead of the size's own.")
    num_heads: int | None = Field(None, ge=1, description="Heads, instead of the size's own.")
    patch_size: PerAxisInt = Field((8,), description="Patch in voxels, one value or one an axis.")
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="Share of patches hidden.")
    pool: Literal["mean", "cls"] = Field(
        "mean", description="Embedding: mean of the patch tokens, or the CLS token."
    )
    decoder_embed_dim: int = Field(512, ge=2, description="Width of the decoder.")
    decoder_depth: int = Field(8, ge=1, description="Blocks of the decoder.")
    decoder_num_heads: int = Field(16, ge=1, description="Heads of the decoder.")
    init: str | None = Field(
        None,
        description="What training starts from: a checkpoint file (MAE, timm, Hugging Face, "
        "ViT-AE++), a Hugging Face folder, a run, or an encoder folder. Channels, patches, "
        "positions and axes are adapted. Unset: fresh weights.",
    )


class ReconstructionSettings(Section):
    """L_rec, the mean squared error of intensities."""

    weight: Weight = Field(1.0, description="Factor of L_rec.")
    patches: Literal["masked", "all"] = Field("masked", description="Patches it is taken over.")
    normalize_targets: bool = Field(
        False, description="Standardise each target patch by its own mean and variance."
    )


class PerceptualSettings(Section):
    """L_per, the distance of VGG-16 features (Johnson et al. 2016)."""

    weight: Weight = Field(0.01, description="λ_per.")
    weights: str = Field(
        "random",
        description="VGG-16 weights: imagenet (downloaded once), random, or a file with "
        "torchvision's key names.",
    )
    slices: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None,
        description="2D slices drawn per volume and step in 3D, or all. Unset: one in 24, which is "
        "4 of the paper's 96.",
    )
    axis: Annotated[int, Field(ge=0, le=2)] | Literal["any"] = Field(
        2, description="Axis that slices are taken along in 3D; any takes each for a third."
    )
    channels: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None,
        description="Channels looked at on each slice, in turn, or all. Unset: one where not all "
        "slices are looked at, else all. Colours always go together.",
    )


class EdgeSettings(Section):
    """L_edge, the mean squared error of Sobel gradient magnitudes."""

    weight: Weight = Field(10.0, description="λ_edge at the start of training.")
    decay: Literal["linear", "none"] = Field(
        "linear", description="linear: falls to 0 over the training."
    )
    blur: float = Field(
        0.0, ge=0, description="Gaussian blur of the target before its edges, sigma in voxels."
    )


class ContrastiveSettings(Section):
    """L_cl of ViT-AE++, SimSiam's loss between the pooled features of two masked views."""

    weight: Weight = Field(1.0, description="λ_cl.")


class LossSettings(Section):
    """L = L_rec + λ_per L_per + λ_edge(t) L_edge + λ_cl L_cl."""

    reconstruction: ReconstructionSettings = Field(default_factory=ReconstructionSettings)
    perceptual: PerceptualSettings = Field(default_factory=PerceptualSettings)
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    contrastive: ContrastiveSettings = Field(default_factory=ContrastiveSettings)


class SimSiamSettings(Section):
    """Heads of method=simsiam (Chen & He 2021)."""

    projection_dim: int = Field(2048, ge=1, description="Width of the projector, and its output.")
    prediction_dim: int = Field(512, ge=1, description="Bottleneck of the predictor.")


class MoCoV3Settings(Section):
    """Heads, momentum and temperature of method=mocov3 (Chen, Xie & He 2021)."""

    hidden_dim: int = Field(4096, ge=1, description="Hidden width of projector and predictor.")
    projection_dim: int = Field(256, ge=1, description="Width of what is compared.")
    temperature: float = Field(0.2, gt=0, description="Temperature of InfoNCE.")
    momentum: float = Field(
        0.99, ge=0, le=1, description="Momentum at the start; it rises to 1 by a cosine."
    )
    freeze_patch_embed: bool = Field(
        True, description="Leave a ViT's patch embedding as it began, against instability."
    )


class ViewSettings(Section):
    """Random views, and the normalisation of every image."""

    normalize: Literal["crop", "foreground"] = Field(
        "crop", description="Voxels whose mean and deviation z-score a channel."
    )
    log_gamma: float = Field(0.3, ge=0, description="Gamma is exp(u), u within ± this.")
    rotation: float = Field(10.0, ge=0, le=180, description="Rotation within ± this, in degrees.")
    scale: float = Field(0.1, ge=0, lt=1, description="Scaling of each axis within 1 ± this.")
    noise: float = Field(
        0.1,
        ge=0,
        description="The noise's deviation is drawn from [0, this], intensities in [0, 1].",
    )
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Chance that a modality is hidden from the encoder, per image and view; one "
        "always stays. It is still reconstructed.",
    )


class OptimSettings(Section):
    """AdamW and its schedule."""

    epochs: int = Field(1000, ge=1, le=1_000_000, description="Passes over the data.")
    batch_size: int = Field(4, ge=1, description="Images per step and device.")
    accumulate: int = Field(1, ge=1, description="Steps whose gradients make one update.")
    base_lr: float = Field(
        1e-3, gt=0, description="Learning rate per 256 images of the effective batch."
    )
    warmup_epochs: float | None = Field(
        None, ge=0, description="Linear warm-up. Unset: 4 % of the epochs."
    )
    weight_decay: float = Field(0.05, ge=0, description="None on biases and norms.")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's betas.")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest gradient norm. Unset: no limit."
    )


class DataSettings(Section):
    """How a store is read during training."""

    cache: Literal["auto", "none", "memory", "device"] = Field(
        "auto",
        description="Where the store is held. auto: on the GPU or in memory where it fits.",
    )
    split: str | None = Field(
        None, description="Train on this split only. Unset: train where the store has it, else all."
    )
    without_label: str | None = Field(
        None, description="Train only on subjects without this label. Unset: labels play no part."
    )
    workers: int = Field(2, ge=0, description="Reading processes, used when nothing is cached.")


class TrainerSettings(Section):
    """What the training runs on."""

    devices: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="Devices per node, or auto for all."
    )
    nodes: int = Field(1, ge=1, description="Machines.")
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        description="How devices share work. ddp, which auto is: each has all weights; fsdp: "
        "each has a share of them.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Compute a transformer's blocks again in the backward pass instead of keeping "
        "what they gave: less memory, more time, the same gradients.",
    )
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = Field(
        "none",
        description="Mode of torch.compile for the parts that take the time; reduce-overhead uses "
        "CUDA graphs. The first steps then take minutes; a compiler is needed. Not with fsdp.",
    )
    # YAML takes 32 for a number.
    precision: Annotated[
        Literal["auto", "32", "bf16", "16"],
        BeforeValidator(lambda v: str(v) if isinstance(v, int) else v),
    ] = Field(
        "auto",
        description="auto: bf16 on a GPU or CPU that multiplies it in hardware, else 32. A ResNet "
        "on a CPU is computed in 32 whatever is set.",
    )
    checkpoint_every: float = Field(
        60.0, ge=0, description="Seconds between checkpoints; the last two are kept."
    )


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
        """
        if self.method not in MASKED:
            return METHOD_NAMES[self.method]
        added = [sign for term, sign in ADDITIONS.items() if getattr(self.loss, term).weight]
        if self.loss.reconstruction.weight and len(added) == len(ADDITIONS):
            return METHOD_NAMES["vitae++"]
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
        return Recipe.parse(_merged(values, asked, self), where=where)

    def to_yaml(self) -> str:
        """Every setting as YAML, in the order of this file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the resolved recipe, whole or not at all."""
        write_text(path, self.to_yaml())


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("vitaepp") / "recipes"
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
        text = (resources.files("vitaepp") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
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
