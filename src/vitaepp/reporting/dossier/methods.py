"""The methods, as sentences: every number is a recipe's, a training's or an evaluation's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vitaepp.data.storeinfo import Account
from vitaepp.evaluation import classifier, cox, knn, ordinal, regression
from vitaepp.evaluation.bootstrap import LEVEL, RESAMPLES
from vitaepp.evaluation.choice import DRAWS, ENOUGH, HELD_OUT
from vitaepp.evaluation.front import COMPONENTS
from vitaepp.evaluation.measures import measures_of, task_of
from vitaepp.nn.transformer import SIZES
from vitaepp.presentation.names import metric_name, model_name
from vitaepp.presentation.numbers import duration
from vitaepp.recipe.methods import METHODS
from vitaepp.recipe.recipe import Recipe
from vitaepp.recipe.sections import AugmentationSettings
from vitaepp.reporting.contents import RunContents
from vitaepp.reporting.dossier.questions import Question
from vitaepp.system.progress import counted
from vitaepp.system.text import dimensions

#: Sentences by what they are about; an empty one is not known.
Facts = Mapping[str, str]

#: Paragraphs, each of some facts in this order.
_PARAGRAPHS = {
    "Subjects": ("cohort", "excluded", "persons"),
    "Images": ("images", "intensities", "missing", "privacy"),
    "Pre-training": (
        "model",
        "initial",
        "losses",
        "views",
        "optimisation",
        "selection",
        "features",
    ),
    "Evaluation": ("partition", "folds", "disjoint", "classifier", "controls", "threshold"),
    "Statistics": ("metrics", "tests", "uncertainty"),
    "Software and hardware": ("software", "hardware", "seed"),
}

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

#: How folds of tasks other than classes are balanced.
_BALANCED = {
    "regression": "balanced over ranges of the value",
    "survival": "stratified by event",
    "multilabel": "stratified by the rarest label of each subject",
}

#: What was chosen of each model, by task and protocol: its name, the values, and their unit.
_STRENGTHS = {
    **{("classification", p): ("C", grid, "") for p, grid in classifier.GRID.items()},
    ("classification", "svm"): (
        "C",
        classifier.GRID["svm"],
        " divided by the number of features",
    ),
    ("classification", "knn"): ("number of neighbours", knn.GRID, ""),
    ("ordinal", "linear"): ("C", ordinal.GRID, ""),
    ("regression", "linear"): ("alpha", regression.GRID["ridge"], ""),
    ("regression", "svm"): ("C", regression.GRID["svr"], " divided by the number of features"),
    ("survival", "linear"): ("alpha", cox.GRID, " times the number of features"),
}

#: What a reader must know of the metrics of a task.
_OF_METRICS = {
    "survival": (
        "The AUC is the mean over the quartiles of the training part's event times, weighted by "
        "the estimated share of events between them; the weights of censoring are the training "
        "part's."
    ),
    "ordinal": (
        "Kappa has quadratic weights, the MAE is in grades, and the AUC is the mean over the "
        "splits into lower and higher grades."
    ),
    "regression": "MAE and RMSE are in the unit of the label.",
}

_SOURCE = {
    "vitae++": "Prabhakar et al. 2023",
    "vitae": "He et al. 2022",
    "simsiam": "Chen and He 2021",
    "mocov3": "Chen et al. 2021",
}


def facts_of(
    runs: Sequence[RunContents],
    questions: Sequence[Question],
    accounts: Mapping[str, Account | None],
) -> Facts:
    """What runs and questions tell, as sentences.

    What all runs share is said once; what differs, by run.

    Args:
        runs: the runs.
        questions: what was asked of them.
        accounts: what `prepare` left out, by run.
    """
    facts = {name: _by_run(runs, of) for name, of in _OF_RUN.items()}
    facts["excluded"] = " ".join(
        dict.fromkeys(_excluded(accounts.get(run.name)) for run in runs)
    ).strip()
    for name, about in _OF_QUESTION.items():
        facts[name] = _by_question(questions, about)
    crossed = (q for q in questions if len(q.metrics["folds"]) > 1 and not _alone(q.metrics))
    drawn = sorted({draw["seed"] for question in crossed for draw in question.draws})
    if drawn:
        number = "seed" if len(drawn) == 1 else "seeds"
        facts["folds"] = f"Folds were drawn with the {number} {_listed(map(str, drawn))}."
    facts["results"] = " ".join(
        sentence + "." for q in questions if q.comparison for sentence in q.comparison.sentences
    )
    return facts


def paragraphs(facts: Facts) -> list[tuple[str, str]]:
    """The methods section: titles with their text."""
    texts = (
        (title, " ".join(filter(None, (facts.get(name) for name in names))))
        for title, names in _PARAGRAPHS.items()
    )
    return [(title, text) for title, text in texts if text]


def _by_run(runs: Sequence[RunContents], of: Any) -> str:
    texts = {run.name: " ".join(of(run)) for run in runs}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return " ".join(f"{run}: {text}" for run, text in texts.items() if text)


def _by_question(questions: Sequence[Question], of: Any) -> str:
    texts: dict[str, list[str]] = {}
    for question in questions:
        texts.setdefault(" ".join(of(question)), []).append(question.title)
    texts.pop("", None)
    if len(texts) == 1:
        return next(iter(texts))
    return " ".join(f"For {' and '.join(titles)}: {text}" for text, titles in texts.items())


def _cohort(run: RunContents) -> Iterator[str]:
    stored, trained = run.store.get("subjects"), run.summary.get("trained_on")
    if isinstance(stored, int):
        yield f"{counted(stored, 'subject')} {_be(stored)} prepared."
    if isinstance(trained, int):
        which = f"{trained:,} of these" if trained != stored else "All of them"
        yield f"{which} {_be(trained)} used for pre-training, without any label."


def _excluded(account: Account | None) -> str:
    if account is None:
        return ""
    failed, images = sum(account.failed.values()), sum(account.left_out.values())
    why = "; ".join(f"{count:,}: {reason}" for reason, count in account.failed.items())
    text = f"The source had {counted(account.found, 'subject')}, of which {failed:,} could not be "
    text += f"prepared{f' ({why})' if why else ''}."
    if images:
        why = "; ".join(f"{count:,}: {reason}" for reason, count in account.left_out.items())
        text += f" {counted(images, 'image')} of the source {_be(images)} not used ({why})."
    return text


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
    parts = []
    if loss.reconstruction.weight:
        parts.append(f"{loss.reconstruction.weight:g} times the mean squared error of {over}")
    if loss.perceptual.weight and loss.perceptual.weights != "none":
        parts.append(f"{loss.perceptual.weight:g} times a perceptual loss (VGG-16)")
    if loss.edge.weight:
        weight = f"{loss.edge.weight:g} times"
        if loss.edge.decay == "linear":
            weight = f"with a factor that falls from {loss.edge.weight:g} to 0 over the training,"
        parts.append(f"{weight} the squared error of Sobel edge maps")
    if loss.contrastive.weight:
        parts.append(
            f"{loss.contrastive.weight:g} times the negative cosine similarity of the features of "
            "two views (SimSiam's predictor, stopped gradient)"
        )
    yield f"The loss was {_listed(parts)}."


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
    return _listed(parts) if parts else "nothing"


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
        yield f"{_listed([f'{name} {version}' for name, version in versions.items()])} were used."


def _hardware(run: RunContents) -> Iterator[str]:
    seconds, device = run.summary.get("seconds"), run.summary.get("device")
    if device and isinstance(seconds, int | float):
        precision = run.summary.get("precision")
        how = f" in {precision} precision" if precision else ""
        yield f"Pre-training took {duration(float(seconds))} on {device}{how}."


def _seed(run: RunContents) -> Iterator[str]:
    if "seed" in run.recipe:
        yield f"The seed of the training was {run.recipe['seed']}."


def _persons(question: Question) -> Iterator[str]:
    metrics = question.metrics
    members, task = metrics.get("members"), task_of(metrics)
    n = counted(metrics["n"], "subject")
    classes = ""
    if isinstance(members, Mapping) and members:
        classes = f" ({', '.join(f'{count:,} {name}' for name, count in members.items())})"
    if task == "survival":
        follow = metrics["follow_up"]
        classes = (
            f" ({metrics['events']:,} with an event; follow-up in the unit of {metrics['time']}, "
            f"median {follow['median']:g}, at most {follow['most']:g})"
        )
    elif task == "regression":
        values = metrics["values"]
        classes = f" (median {values['median']:g}, from {values['least']:g} to {values['most']:g})"
    several = task in ("multilabel", "survival")
    column = f"values in the columns {metrics['label'].replace(',', ', ').replace('  ', ' ')}"
    column = column if several else f"a label in the column {metrics['label']}"
    yield f"{n} with {column} {_be(metrics['n'])} evaluated{classes}."
    left_out = metrics.get("left_out") or {}
    if left_out.get("unlabelled"):
        count = left_out["unlabelled"]
        yield f"{counted(count, 'subject')} without this label {_be(count)} left out."
    if left_out.get("other splits"):
        count = left_out["other splits"]
        yield f"{counted(count, 'subject')} of other splits {_be(count)} left out."


def _partition(question: Question) -> Iterator[str]:
    metrics = question.metrics
    folds = len(metrics["folds"])
    group = metrics.get("group") or {}
    if _alone(metrics):
        only = len(group["not_tested"])
        each = f"{folds} of {group['groups']} groups" if only else f"Each of {folds} groups"
        yield (
            f"{each} of {group['column']} {_be(folds if only else 1)} tested once, by models that "
            "were fitted on the others"
            + "; what cannot be scored alone was not tested" * bool(only)
            + "."
        )
    elif folds > 1:
        whole = f", in which no fold splits a group of {group['column']}" if group else ""
        over = _BALANCED.get(task_of(metrics), "stratified by class")
        yield f"Features were evaluated in {folds}-fold cross-validation, {over}{whole}."
        if len(question.draws) > 1:
            seeds = _listed(str(draw["seed"]) for draw in question.draws)
            yield (
                f"It was repeated with {len(question.draws)} draws of the folds (seeds {seeds}); "
                "means and tests are over all of them."
            )
        elif repeats := metrics.get("repeats"):
            yield (
                f"It was repeated with {repeats['number']} draws of the folds; tables and tests "
                "here are of the first."
            )
    elif sizes := metrics.get("sizes"):
        yield (
            f"Models were fitted on the given training split of {sizes[0]['train']:,} "
            f"subjects and tested on the given test split of {sizes[0]['test']:,}."
        )
    if metrics.get("pretraining") == "without each fold's test subjects":
        yield "Each fold's encoder was pre-trained without its test subjects."
    elif any(_saw_all(entry.run, metrics) for entry in question.entries):
        yield "The encoder saw the images of the test subjects in pre-training, without labels."


def _saw_all(run: RunContents, metrics: Mapping[str, Any]) -> bool:
    """Whether a run was trained on all of its store, and evaluated on as many subjects."""
    stored = run.store.get("subjects")
    embedded = metrics["n"] + sum((metrics.get("left_out") or {}).values())
    return stored is not None and run.summary.get("trained_on") == stored == embedded


def _disjoint(question: Question) -> Iterator[str]:
    metrics = question.metrics
    if metrics.get("persons_by") == "participant":
        yield (
            f"The {metrics['n']:,} subjects were of {counted(metrics['persons'], 'person')}; "
            f"{_apart(metrics)}."
        )
    elif "persons" in metrics:
        yield "Each subject counted as a person, as the data do not say otherwise."


def _alone(metrics: Mapping[str, Any]) -> list[str]:
    """The groups that were each left out once; [] of another design, which draws its folds."""
    return (metrics.get("group") or {}).get("tested_alone") or []


def _apart(metrics: Mapping[str, Any]) -> str:
    """How persons of several subjects were kept from being both trained on and tested."""
    if _alone(metrics):
        return "images of a tested person at other groups were left out of training"
    if len(metrics["folds"]) > 1:
        return "all subjects of a person were in the same fold"
    return "no person was in both the training and the test split"


def _classifier(question: Question) -> Iterator[str]:
    metrics = question.metrics
    protocol = str(metrics.get("classifier") or metrics["protocol"])
    task = task_of(metrics)
    title = model_name(task, protocol)
    features = metrics.get("features")
    several = metrics.get("candidates")
    of = f" on {features:,} features" if isinstance(features, int) and not several else ""
    how = "centred" if protocol == "knn" else "standardised"
    each = ", one for each label" * (task == "multilabel")
    yield f"The model was a {title}{of}{each}, {how} on the training part."
    if metrics.get("reduced"):
        yield "Before, features were reduced by PCA, fitted to the training part."
    if harmonized := metrics.get("harmonized"):
        done = (
            "centred and scaled by"
            if harmonized["how"] == "scale"
            else "harmonised by ComBat between"
        )
        yield f"Before, features were {done} {harmonized['column']}, fitted to the training part."
    if strength := _STRENGTHS.get((_kind(task), protocol)):
        name, grid, unit = strength
        tried = ", ".join(f"{c:g}" for c in grid)
        draws = f"{DRAWS} draws" if metrics["sizes"][0]["train"] < ENOUGH else "one draw"
        yield (
            f"Its {name} was chosen among {tried}{unit} on {HELD_OUT:.0%} of the training part "
            f"({draws}), and it was fitted again on all of it."
        )
    if candidates := metrics.get("candidates"):
        yield (
            f"The features were one of {_listed(candidates)}, chosen by the same held-out subjects "
            "together with the strength of the classifier, in each training part anew."
        )


def _kind(task: str) -> str:
    """Several labels have the classifiers of one."""
    return "classification" if task == "multilabel" else task


def _in_methods(metric: str) -> str:
    return "Harrell's C-index" if metric == "c_index" else metric_name(metric)


def _controls(question: Question) -> Iterator[str]:
    texts = {
        "untrained": "the same network with the random weights that training started from",
        "raw": f"raw intensities, reduced to at most {COMPONENTS} principal components fitted on "
        "the training part",
        "mean": "the mean of the training part",
    }
    controls = {c for e in question.entries for c in e.evaluation.get("controls") or {}}
    if parts := [text for key, text in texts.items() if key in controls]:
        where = "in the same folds" if len(question.metrics["folds"]) > 1 else "on the same split"
        yield f"The same model {where} had as controls {_listed(parts)}."


def _threshold(question: Question) -> Iterator[str]:
    metrics = question.metrics
    if metrics.get("positive") is not None:
        yield (
            f"Sensitivity is that for {metrics['label']} = {metrics['positive']}, where the "
            "decision score is above 0; no threshold was chosen."
        )


def _metrics(question: Question) -> Iterator[str]:
    metrics = question.metrics
    over = ", as mean and sample standard deviation over folds" * (len(metrics["folds"]) > 1)
    task, macro = task_of(metrics), ""
    if task == "multilabel":
        macro = ", averaged over labels"
    elif task == "classification" and len(metrics["classes"]) > 2:
        macro = ", each class against the rest and averaged"
    names = _listed(map(_in_methods, measures_of(metrics).names))
    yield f"{names[0].upper()}{names[1:]} are given{macro}{over}."
    if note := _OF_METRICS.get(task):
        yield note


def _tests(question: Question) -> Iterator[str]:
    if question.comparison is None:
        return
    rows = question.comparison.rows
    names = {r.difference.test for r in rows if r.difference and r.difference.test}
    tests = [
        name if name.startswith(("McNemar", "DeLong", "Wilcoxon")) else f"the {name}"
        for name in sorted(names)
    ]
    if tests:
        yield f"Differences from {rows[0].name} were tested by {_listed(tests)}, two-sided."
    if sum(row.p_holm is not None for row in rows) > 1:
        yield "P-values were corrected for the number of comparisons (Holm)."


def _uncertainty(question: Question) -> Iterator[str]:
    if question.comparison and any(
        r.difference and r.difference.interval for r in question.comparison.rows
    ):
        within = " within classes" if task_of(question.metrics) == "classification" else ""
        yield (
            f"Intervals of differences are {LEVEL:.0%} percentile bootstrap intervals over tested "
            f"persons ({RESAMPLES:,} resamples{within}, trained models held fixed)."
        )


def _features(run: RunContents) -> Iterator[str]:
    recipe = run.settings
    if recipe is not None:
        block = recipe.model.pool_block
        after = "" if block is None else f", after {counted(block, 'block')}"
        parts = [_POOLED[part] for part in recipe.model.pool.split("+")]
        yield f"The features of an image were {_listed(parts)}{after}."


_OF_RUN = {
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
_OF_QUESTION = {
    "persons": _persons,
    "partition": _partition,
    "disjoint": _disjoint,
    "classifier": _classifier,
    "controls": _controls,
    "threshold": _threshold,
    "metrics": _metrics,
    "tests": _tests,
    "uncertainty": _uncertainty,
}


def _be(count: int) -> str:
    return "was" if count == 1 else "were"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
