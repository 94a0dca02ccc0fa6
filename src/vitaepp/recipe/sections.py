"""Sections of the recipe: every setting with its type, its default and its description."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from vitaepp.recipe import fields

#: Mark of a setting of `prepare` that shapes the images of a store: it is kept with the store, and
#: stores are compared by it.
OF_IMAGES: JsonDict = {"shapes_images": True}

#: Mark of one that says what to find and keep of a source: a new source has its own.
OF_SOURCE: JsonDict = {"of_source": True}

Kind = TypeVar("Kind")
OfImages = Annotated[Kind, Field(json_schema_extra=OF_IMAGES)]
OfSource = Annotated[Kind, Field(json_schema_extra=OF_SOURCE)]


class Section(BaseModel):
    """A group of settings: immutable, and closed to names that it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _as_people_write_numbers(cls, value: Any, info: Any) -> Any:
        # To Python true is 1, and a whole number has no exponent.
        kinds = fields.kinds_in(cls.model_fields[info.field_name].annotation)
        if int not in kinds and float not in kinds:
            return value
        many = isinstance(value, list | tuple)
        values = [fields.number(v) for v in (value if many else [value])]
        if bool not in kinds and any(isinstance(v, bool) for v in values):
            raise ValueError("give a number")
        return values if many else values[0]


class PrepareSettings(Section):
    """How raw files become a store."""

    size: OfImages[fields.PerAxisInt | None] = Field(
        None,
        description="Crop in voxels, one value or one an axis: 96,96,64. Unset: 96 for volumes of "
        "scans, 224 for image folders, less where the images are smaller; for arrays their own "
        "size.",
    )
    spacing: OfImages[fields.PerAxisFloat | None] = Field(
        None,
        description="Voxel size in mm. Unset: 1 mm for scans, unless theirs is far from it; images "
        "without a physical spacing are scaled as a whole to fit into the size.",
    )
    modalities: OfImages[fields.Names | None] = Field(
        None,
        description="Channels, in order: flair,t1,t1ce,t2. Unset: those that the layout finds.",
    )
    center: OfImages[Literal["mask", "foreground", "image"] | None] = Field(
        None,
        description="What the crop is centred on. Unset: the mask where there is one, else the "
        "image.",
    )
    layout: OfSource[str | None] = Field(
        None,
        description="The only layout to try: manifest, bids, decathlon, brats, subject-folders, "
        "named-files, dicom, scans, pictures, …. Unset: the first that fits.",
    )
    mask_pattern: OfSource[str | None] = Field(
        None,
        description="Which files are masks, by name or path, with * for anything: *_roi.nii.gz; "
        "an empty one takes every file for an image. Unset: recognised by their names and voxels.",
    )
    mask_values: OfImages[fields.Integers | None] = Field(
        None,
        description="Values of a mask that are the lesion to centre on: 1,4. Unset: all but 0.",
    )
    clip: OfImages[fields.Percentiles | None] = Field(
        None,
        description="Percentiles of each scan that become 0 and 255, such as 0.5,99.5; beyond is "
        "clipped. Unset: its minimum and maximum.",
    )
    window: OfImages[fields.Windows | None] = Field(
        None,
        description="Modalities that have a window instead, by name: centre and width, or brain, "
        "lung, mediastinum, abdomen, bone (CT, in Hounsfield units).",
    )
    statistics: OfImages[Literal["foreground"] | None] = Field(
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
        "a hash that only this secret gives. Unset: by their own names.",
    )
    dtype: OfImages[Literal["float16", "uint8"]] = Field(
        "float16",
        description="How intensities in [0, 255] are stored.",
    )
    keep_masks: OfSource[bool] = Field(
        False,
        description="Keep each subject's mask beside its images, on their grid, with its labels.",
    )
    classes: OfSource[int | None] = Field(
        None,
        ge=1,
        description="Only the first so many classes, in the source's own order. Unset: all.",
    )


def marked(settings: type[BaseModel], mark: JsonDict) -> list[str]:
    """Names of the settings of a section that have a mark.

    >>> marked(PrepareSettings, OF_SOURCE)
    ['layout', 'mask_pattern', 'keep_masks', 'classes']
    """
    known = settings.model_fields.items()
    return [name for name, field in known if field.json_schema_extra == mark]


class ModelSettings(Section):
    """The network."""

    backbone: Literal["vit", "resnet18", "resnet50"] = Field(
        "vit", description="Encoder architecture; a ResNet (MONAI's) for simsiam and mocov3 only."
    )
    size: Literal["light", "tiny", "small", "base", "large"] = Field(
        "base",
        description="The whole model by name: width, depth and heads of encoder and decoder.",
    )
    embed_dim: int | None = Field(None, ge=2, description="Width, instead of the size's own.")
    depth: int | None = Field(None, ge=1, description="Blocks, instead of the size's own.")
    num_heads: int | None = Field(None, ge=1, description="Heads, instead of the size's own.")
    patch_size: fields.PerAxisInt = Field(
        (8,), description="Patch in voxels, one value or one an axis."
    )
    mask_ratio: float = Field(0.75, ge=0, lt=1, description="Share of patches hidden.")
    pool: fields.Pool = Field(
        "grid+gridmax+gradients",
        description="Embedding, one or several joined by +: mean, std or max of the patch tokens; "
        "cls, the CLS token; grid or gridmax, the mean or the maximum in each half of each axis "
        "(4 cells in 2D, 8 in 3D); gradients, histograms of oriented gradients of the image, which "
        "no training changes.",
    )
    pool_block: int | None = Field(
        None,
        ge=1,
        description="Number of the encoder's blocks that the embedding passes. Unset: all.",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Chance that a residual branch of the encoder's last block is left out for a "
        "sample, less in those before it (stochastic depth); of vitae and vitae++.",
    )
    decoder_embed_dim: int | None = Field(
        None, ge=2, description="Width of the decoder, instead of the size's own."
    )
    decoder_depth: int | None = Field(
        None, ge=1, description="Blocks of the decoder, instead of the size's own."
    )
    decoder_num_heads: int | None = Field(
        None, ge=1, description="Heads of the decoder, instead of the size's own."
    )
    init: str | None = Field(
        None,
        description="What training starts from: a checkpoint file (MAE, timm, Hugging Face, "
        "ViT-AE++), a Hugging Face folder, a run, or an encoder folder. Channels, patches, "
        "positions and axes are adapted. Unset: fresh weights.",
    )


class ReconstructionSettings(Section):
    """L_rec, the mean squared error of intensities."""

    weight: fields.Weight = Field(1.0, description="Factor of L_rec.")
    patches: Literal["masked", "all"] = Field("masked", description="Patches it is taken over.")
    normalize_targets: bool = Field(
        False, description="Standardise each target patch by its own mean and variance."
    )


class PerceptualSettings(Section):
    """L_per, the distance of VGG-16 features (Johnson et al. 2016)."""

    weight: fields.Weight = Field(
        0.01, description="λ_per. By default 0.01, and 1 where loss.perceptual.relative is on."
    )
    weights: str = Field(
        "auto",
        description="VGG-16 weights: imagenet (torchvision's, downloaded once), a file with "
        "torchvision's key names, random (the paper's choice for natural images), or none, which "
        "leaves the term out. auto: imagenet where it has been downloaded before, else none.",
    )
    relative: bool = Field(
        False,
        description="Divide each level's distance by the mean square of the target's features "
        "there, which makes λ_per independent of the scale of VGG's weights. On by default where "
        "the weights are not torchvision's, to whose scale 0.01 belongs.",
    )
    images: Annotated[int, Field(ge=1)] | Literal["all"] | None = Field(
        None,
        description="Images of a batch that are looked at, drawn anew each step, or all. Unset: "
        "all in 3D; in 2D 16, or one in eight of a larger batch.",
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

    @model_validator(mode="after")
    def _suit_the_weights(self) -> PerceptualSettings:
        if "relative" not in self.model_fields_set:
            relative = self.weights not in ("auto", "imagenet", "none")
            object.__setattr__(self, "relative", relative)
        if "weight" not in self.model_fields_set:
            object.__setattr__(self, "weight", 1.0 if self.relative else 0.01)
        return self


class EdgeSettings(Section):
    """L_edge, the mean squared error of Sobel gradient magnitudes."""

    weight: fields.Weight = Field(10.0, description="λ_edge at the start of training.")
    decay: Literal["linear", "none"] = Field(
        "linear", description="linear: falls to 0 over the training."
    )
    blur: float = Field(
        0.0, ge=0, description="Gaussian blur of the target before its edges, sigma in voxels."
    )


class ContrastiveSettings(Section):
    """L_cl of ViT-AE++, SimSiam's loss between the pooled features of two masked views."""

    weight: fields.Weight = Field(1.0, description="λ_cl.")
    features: Literal["pooled", "tokens"] = Field(
        "pooled",
        description="What is compared: one vector an image (the CLS token where model.pool is cls, "
        "else the mean of the visible patch tokens), or token by token in their order, as the "
        "authors' released code.",
    )
    norm: Literal["layer", "batch", "none"] = Field(
        "layer", description="Normalisation inside the predictor; batch is SimSiam's."
    )


#: Terms of the loss that look at features alone; the others look at a decoded image.
OF_FEATURES = frozenset({"contrastive"})


class LossSettings(Section):
    """L = L_rec + λ_per L_per + λ_edge(t) L_edge + λ_cl L_cl."""

    reconstruction: ReconstructionSettings = Field(default_factory=ReconstructionSettings)
    perceptual: PerceptualSettings = Field(default_factory=PerceptualSettings)
    edge: EdgeSettings = Field(default_factory=EdgeSettings)
    contrastive: ContrastiveSettings = Field(default_factory=ContrastiveSettings)

    @property
    def terms(self) -> frozenset[str]:
        """The terms that count: those with a weight, but the perceptual one without a VGG.

        >>> sorted(LossSettings(perceptual={"weights": "none"}, edge={"weight": 0}).terms)
        ['contrastive', 'reconstruction']
        """
        blind = {"perceptual"} if self.perceptual.weights == "none" else set()
        return frozenset(term for term, own in self if own.weight) - blind

    @property
    def needs_decoder(self) -> bool:
        """Whether a term that counts looks at a decoded image."""
        return not self.terms <= OF_FEATURES


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


class AugmentationSettings(Section):
    """How one view of an image differs from it."""

    crop: fields.Shares = Field(
        (0.4, 1.0),
        description="Random resized crops: smallest and largest share of the area, in 3D of the "
        "volume. 1: no crop, the size of things stays.",
    )
    aspect: float = Field(
        4 / 3, ge=1, le=4, description="A crop's side is up to so many times another."
    )
    flip: fields.Flips = Field(
        "sides",
        description="Axes that are mirrored in every other view: sides (left and right, a "
        "volume's first axis and a picture's second), all, none, or numbers from 0.",
    )
    rotation: float = Field(10.0, ge=0, le=180, description="Rotation within ± this, in degrees.")
    scale: float = Field(0.1, ge=0, lt=1, description="Scaling of each axis within 1 ± this.")
    log_gamma: float = Field(0.3, ge=0, description="Gamma is exp(u), u within ± this.")
    noise: float = Field(
        0.1,
        ge=0,
        description="The noise's deviation is drawn from [0, this], intensities in [0, 1].",
    )


class FirstViewSettings(AugmentationSettings):
    """The view that is reconstructed."""

    scale: float = Field(
        0.0, ge=0, lt=1, description="As views.second.scale, of what is reconstructed."
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="As views.second.noise; noise that is reconstructed teaches nothing.",
    )


#: What a view's settings were called when only the second one was augmented.
OLD_VIEW_NAMES = ("log_gamma", "rotation", "scale", "noise")


class ViewSettings(Section):
    """Random views, and the normalisation of every image."""

    normalize: Literal["crop", "foreground", "cohort"] = Field(
        "crop",
        description="Voxels whose mean and deviation z-score a channel: those of each crop, of its "
        "foreground, or of all images that are trained on, which keeps what intensities mean (CT).",
    )
    cohort_mean: fields.Intensities | None = Field(
        None,
        description="Mean of each channel for normalize=cohort, of intensities in [0, 1], given "
        "together with views.cohort_std. Unset: that of the images that are trained on.",
    )
    cohort_std: fields.Intensities | None = Field(
        None,
        description="Deviation of each channel, likewise. 0: a channel that is constant.",
    )
    keep: fields.Kept = Field(
        (),
        description="What a label may be, which no view then changes: size (no crops, no scaling), "
        "side (left and right are not mirrored), or both.",
    )
    first: FirstViewSettings = Field(default_factory=FirstViewSettings)
    second: AugmentationSettings = Field(default_factory=AugmentationSettings)
    modality_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Chance that a modality is hidden from the encoder, per image and view; one "
        "always stays. It is still reconstructed.",
    )

    @property
    def cohort(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and deviation of each channel over the cohort, where they are used and known."""
        if self.normalize != "cohort" or self.cohort_mean is None or self.cohort_std is None:
            return None
        return self.cohort_mean, self.cohort_std

    def of(self, which: Literal["first", "second"]) -> AugmentationSettings:
        """How a view differs from the image, with what is to be kept kept."""
        view: AugmentationSettings = getattr(self, which)
        if "size" in self.keep:
            view = view.model_copy(update={"crop": (1.0, 1.0), "scale": 0.0})
        return view

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_version(cls, values: Any) -> Any:
        # A run's recipe names them all. Its first view was the image, its second was not cropped.
        if isinstance(values, dict) and all(name in values for name in OLD_VIEW_NAMES):
            still = {"crop": 1.0, "flip": "none"}
            second = still | {name: values[name] for name in OLD_VIEW_NAMES}
            first = still | dict.fromkeys(OLD_VIEW_NAMES, 0.0)
            rest = {k: v for k, v in values.items() if k not in OLD_VIEW_NAMES}
            values = rest | {"first": first, "second": second}
        return values


class OptimSettings(Section):
    """AdamW and its schedule."""

    epochs: int = Field(1000, ge=1, le=1_000_000, description="Passes over the data.")
    batch_size: int = Field(4, ge=1, description="Images per step and device.")
    accumulate: int = Field(1, ge=1, description="Steps whose gradients make one update.")
    updates: int | None = Field(
        None,
        ge=1,
        description="Length in updates of the weights instead of optim.epochs, which becomes as "
        "many whole passes as have them.",
    )
    lr: float | None = Field(
        None,
        gt=0,
        description="Learning rate after the warm-up, whatever the batch. Unset: by optim.base_lr.",
    )
    base_lr: float = Field(
        1e-3, gt=0, description="Learning rate per 256 images of the effective batch."
    )
    warmup_epochs: float | None = Field(
        None, ge=0, description="Linear warm-up. Unset: 4 % of the epochs."
    )
    warmup_updates: int | None = Field(
        None, ge=0, description="Linear warm-up in updates, instead of optim.warmup_epochs."
    )
    weight_decay: float = Field(0.05, ge=0, description="None on biases and norms.")
    betas: fields.Betas = Field((0.9, 0.95), description="AdamW's betas.")
    clip_norm: float | None = Field(
        None, gt=0, description="Largest gradient norm. Unset: no limit."
    )


class FinetuneSettings(Section):
    """What `vitaepp finetune` trains on labels; its schedule is that of optim.*."""

    blocks: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        "all",
        description="The encoder's last blocks (of a ResNet its stages) that are trained with the "
        "head. 0: the head alone; all: with what comes before the blocks.",
    )
    layer_decay: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Factor of the learning rate from a block to the one before it; the head has "
        "optim.lr itself. The same network from scratch learns alike in all blocks.",
    )
    scratch_lr: float | None = Field(
        None, gt=0, description="Learning rate of the same network from scratch. Unset: optim.lr."
    )
    class_weights: Literal["balanced", "none"] = Field(
        "balanced",
        description="balanced: each class counts alike, however many subjects it has; of masks, "
        "labels count by the square root of how rare they are at first, alike in the end. none: as "
        "many as there are.",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="Images and labels of a batch are mixed in pairs, with shares from "
        "Beta(this, this); 0 switches it off.",
    )
    width: int = Field(
        16,
        ge=1,
        description="Channels of the segmentation decoder at the image's own size; twice as many "
        "at each size below.",
    )
    subjects: int | None = Field(
        None,
        ge=4,
        description="Train on so many of each training part, drawn by the seed; the held-out fifth "
        "is among them. Unset: all.",
    )
    patience: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Training ends after this share of its epochs without a lower loss on the "
        "held-out part, after three of them at least.",
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
    replay: bool = Field(
        True,
        description="On one NVIDIA GPU, record the step of a masked autoencoder once and launch it "
        "whole (a CUDA graph): the same computation, several times as fast where the model is "
        "small. Not with trainer.compile, activation_checkpointing or precision 16.",
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
    watch: str | None = Field(
        None,
        description="Column of labels. Every few epochs, metrics.csv gets a k-NN score of it on "
        "the training part, to watch a training; not to choose between models. Labels play no part "
        "in the training.",
    )
    checkpoint_every: float = Field(
        60.0, ge=0, description="Seconds between checkpoints; the last two are kept."
    )
