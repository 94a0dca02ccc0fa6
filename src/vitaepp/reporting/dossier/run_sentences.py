"""What a run's recipe and training say in the methods, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitaepp.nn.transformer import SIZES
from vitaepp.presentation.numbers import duration
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import AugmentationSettings
from vitaepp.reporting.contents import RunContents
from vitaepp.system.progress import counted
from vitaepp.system.text import be, dimensions, listed

#: What an image's features are pooled from.
_POOLED = {
    "mean": "the mean of all patch tokens",
    "std": "the standard deviation of all patch tokens",
    "max": "the maximum of all patch tokens",
    "cls": "the CLS token",
    "grid": "the mean of the patch tokens in each half of each axis",
    "gridmax": "the maximum of the patch tokens in each half of each axis",
    "gradients": "histograms of oriented gradients of the image itself (Dalal & Triggs 2005), "
    "which no training changes",
}


_SOURCE = {
    "vitae++": "Prabhakar et al. 2023",
    "vitae": "He et al. 2022",
    "simsiam": "Chen and He 2021",
    "mocov3": "Chen et al. 2021",
}


def _cohort(run: RunContents) -> Iterator[str]:
    stored, trained = run.store.get("subjects"), run.summary.get("trained_on")
    if isinstance(stored, int):
        yield f"{counted(stored, 'subject')} {be(stored)} prepared."
    if isinstance(trained, int):
        which = f"{trained:,} of these" if trained != stored else "All of them"
        yield f"{which} {be(trained)} used for pre-training, without any label."


def _images(run: RunContents) -> Iterator[str]:
    size, spacing = run.store.get("size"), run.store.get("spacing")
    recipe = run.settings
    if not isinstance(size, list) or recipe is None:
        return
    if run.modalities not in ([], ["image"]):
        several = len(run.modalities) > 1
        yield f"Images had the channel{'s' * several} {', '.join(run.modalities)}."
    unit = "voxels" if len(size) == 3 else "pixels"
    if not isinstance(spacing, list):
        yield f"Each image was scaled as a whole to fit into {dimensions(size)} {unit}."
        return
    turned = "turned to RAS axes, " if run.directed else ""
    yield (
        f"Each image was {turned}resampled once by linear interpolation to a spacing of "
        f"{dimensions(spacing)} {run.unit}, and cropped to {dimensions(size)} {unit} around "
        f"{_centre(recipe)}."
    )


def _centre(recipe: Recipe) -> str:
    centre = recipe.prepare.center
    whose = {"mask": "the mask", "foreground": "the foreground", "image": "the middle"}
    return whose.get(str(centre), "its centre")


def _intensities(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is None:
        return
    prepare, views = recipe.prepare, recipe.views
    parts = []
    for name, (centre, width) in (prepare.window or {}).items():
        parts.append(f"{name}: the window from {centre - width / 2:g} to {centre + width / 2:g}")
    over = " of the foreground" if prepare.statistics == "foreground" else ""
    ends = (
        "minimum and maximum"
        if prepare.clip is None
        else (f"percentiles {prepare.clip[0]:g} and {prepare.clip[1]:g}")
    )
    parts.append(f"{'else the ' if parts else 'The '}{ends}{over} of each channel")
    if run.store.get("spacing") is None:
        yield "Intensities were kept, or scaled to the range 0 to 255 where they had another one."
    else:
        yield f"{'; '.join(parts)} became 0 and 255."
    voxels = {
        "crop": "each image",
        "foreground": "the foreground of each image",
        "cohort": "all images that were trained on",
    }[views.normalize]
    yield f"For the network, each channel was z-scored by mean and deviation of {voxels}."


def _missing(run: RunContents) -> Iterator[str]:
    if len(run.modalities) > 1:
        yield (
            "A channel that a subject lacked was zero, was marked as missing, and counted in no "
            "loss."
        )


def _privacy(run: RunContents) -> Iterator[str]:
    yield "Of headers, only geometry was kept."
    if run.section("prepare").get("secret"):
        yield "Subjects and files were named by pseudonyms (HMAC with SHA-256 and a secret)."


def _model(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is None:
        return
    model, facts = recipe.model, METHODS[recipe.method]
    parameters = run.parameters.get("encoder")
    count = f" with {parameters:,} parameters" if isinstance(parameters, int) else ""
    source = _SOURCE.get(recipe.method, "")
    yield f"An encoder was trained by {recipe.name} ({source})."
    if model.backbone != "vit":
        yield f"It was a {model.backbone}{count}."
        return
    width, depth, heads = SIZES[model.size]
    width, depth = model.embed_dim or width, model.depth or depth
    size = run.store.get("size") or []
    yield (
        f"It was a vision transformer of width {width}, {depth} blocks and "
        f"{model.num_heads or heads} heads{count}, with patches of "
        f"{dimensions(_per_axis(model.patch_size, len(size)))} "
        f"{'pixels' if len(size) == 2 else 'voxels'}."
    )
    if facts.masked:
        decoder = run.parameters.get("decoder")
        rest = f" A decoder with {decoder:,} parameters reconstructed them." if decoder else ""
        yield f"In each step, {model.mask_ratio:.0%} of the patches were hidden.{rest}"


def _per_axis(values: Sequence[int], ndim: int) -> Sequence[int]:
    return tuple(values) * (ndim or 1) if len(values) == 1 else values


def _initial(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is not None and recipe.model.init is None:
        yield "Its weights were drawn at random before training."
    elif recipe is not None:
        name = str(recipe.model.init).replace("\\", "/").rstrip("/").rpartition("/")[2]
        yield f"Training started from the weights {name}."


def _losses(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is None or not METHODS[recipe.method].masked:
        return
    loss = recipe.loss
    over = "hidden patches" if loss.reconstruction.patches == "masked" else "all patches"
    if loss.reconstruction.normalize_targets:
        over += ", each normalised by its own mean and deviation"
    parts = []
    if loss.reconstruction.weight:
        parts.append(f"{loss.reconstruction.weight:g} times the mean squared error of {over}")
    if loss.perceptual.weight and loss.perceptual.weights != "none":
        parts.append(f"{loss.perceptual.weight:g} times a perceptual loss (VGG-16)")
    if loss.edge.weight:
        weight = f"{loss.edge.weight:g} times"
        if loss.edge.decay == "linear":
            weight = f"with a factor that falls from {loss.edge.weight:g} to 0 over the training,"
        blur = f" (the target blurred by {loss.edge.blur:g} before)" if loss.edge.blur else ""
        parts.append(f"{weight} the squared error of Sobel edge maps{blur}")
    if loss.contrastive.weight:
        tokens = " of single patches" if loss.contrastive.features == "tokens" else ""
        parts.append(
            f"{loss.contrastive.weight:g} times the negative cosine similarity of the features"
            f"{tokens} of two views (SimSiam's predictor, stopped gradient)"
        )
    yield f"The loss was {listed(parts)}."


def _views(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is None:
        return
    first, second = _view(recipe.views.of("first")), _view(recipe.views.of("second"))
    masked = METHODS[recipe.method].masked
    if masked and not recipe.loss.contrastive.weight:
        yield f"Images were augmented by {first}."
    elif first == second:
        yield f"Two views of each image were made by {first}."
    else:
        which = "The reconstructed view" if masked else "The first view"
        yield f"{which} was augmented by {first}; the second one by {second}."


def _view(view: AugmentationSettings) -> str:
    parts = []
    low, high = view.crop
    if low < 1:
        parts.append(f"random resized crops of {low:.0%} to {high:.0%} of the image")
    if view.flip != "none":
        parts.append("mirroring of left and right" if view.flip == "sides" else "mirroring")
    if view.rotation:
        parts.append(f"rotation within ±{view.rotation:g}°")
    if view.scale:
        parts.append(f"scaling within ±{view.scale:.0%}")
    if view.log_gamma:
        parts.append(f"gamma exp(u) with u within ±{view.log_gamma:g}")
    if view.noise:
        parts.append(f"noise of a deviation up to {view.noise:g}")
    return listed(parts) if parts else "nothing"


def _features(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is not None:
        block = recipe.model.pool_block
        after = "" if block is None else f", after {counted(block, 'block')}"
        parts = [_POOLED[part] for part in recipe.model.pool.split("+")]
        yield f"The features of an image were {listed(parts)}{after}."


def _optimisation(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is None:
        return
    optim, devices = recipe.optim, run.summary.get("devices") or 1
    batch = optim.batch_size * optim.accumulate * devices
    rate = optim.lr or optim.base_lr * batch / 256
    images, updates = (run.summary.get(name) for name in ("trained_on", "updates"))
    if isinstance(images, int):
        batch = min(batch, images)
    warmup = "over 4% of the training"
    if optim.warmup_updates is not None:
        length = optim.warmup_updates
        warmup = f"over {min(length, updates) if isinstance(updates, int) else length:,} updates"
    elif optim.warmup_epochs is not None:
        warmup = f"over {counted_epochs(min(optim.warmup_epochs, optim.epochs))}"
    yield (
        f"It was trained with AdamW (betas {optim.betas[0]:g} and {optim.betas[1]:g}, weight decay "
        f"{optim.weight_decay:g}) and a batch of {counted(batch, 'image')}; the learning rate rose "
        f"to {rate:.3g} {warmup} and fell to 0 by a cosine."
    )
    held = []
    if optim.clip_norm is not None:
        held.append(f"gradients were clipped to a norm of {optim.clip_norm:g}")
    if recipe.model.drop_path and METHODS[recipe.method].masked:
        rate = recipe.model.drop_path
        held.append(f"residual branches were left out with a chance of up to {rate:g}")
    if held:
        text = listed(held)
        yield f"{text[0].upper()}{text[1:]}."
    done, wanted = run.epochs
    steps = run.summary.get("steps")
    if wanted is not None:
        end = f" ({steps:,} steps)" if isinstance(steps, int) else ""
        state = f"{done:,} of {wanted:,}" if done < wanted else f"{wanted:,}"
        yield f"Training lasted {state} epochs{end}."


def counted_epochs(epochs: float) -> str:
    """A number of epochs, which need not be whole."""
    return f"{epochs:g} epoch{'s' if epochs != 1 else ''}"


def _selection(run: RunContents) -> Iterator[str]:
    if run.epochs[1] is not None:
        yield "The weights after the last epoch were used; none were selected by a label."


def _software(run: RunContents) -> Iterator[str]:
    versions = run.summary.get("versions")
    if isinstance(versions, dict):
        yield f"{listed([f'{name} {version}' for name, version in versions.items()])} were used."


def _hardware(run: RunContents) -> Iterator[str]:
    seconds, device = run.summary.get("seconds"), run.summary.get("device")
    if device and isinstance(seconds, int | float):
        precision = run.summary.get("precision")
        how = f" in {precision} precision" if precision else ""
        yield f"Pre-training took {duration(float(seconds))} on {device}{how}."


def _seed(run: RunContents) -> Iterator[str]:
    if "seed" in run.recipe:
        yield f"The seed of the training was {run.recipe['seed']}."


OF_RUN = {
    "cohort": _cohort,
    "images": _images,
    "intensities": _intensities,
    "missing": _missing,
    "privacy": _privacy,
    "model": _model,
    "initial": _initial,
    "losses": _losses,
    "views": _views,
    "optimisation": _optimisation,
    "selection": _selection,
    "features": _features,
    "software": _software,
    "hardware": _hardware,
    "seed": _seed,
}
