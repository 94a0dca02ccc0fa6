"""`explain`: what an encoder and a classifier look at in each subject, and whether that holds."""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vitaepp.data.runfolder import weights_id
from vitaepp.data.store import Store
from vitaepp.downstream.model import Model
from vitaepp.encoder.embed import say_unlike
from vitaepp.encoder.fits import check_fits, check_like
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RunError, StoreError
from vitaepp.evaluation.reconstruction import choose_rows
from vitaepp.explanation import networks
from vitaepp.explanation.checks import NUMBERS, averaged
from vitaepp.explanation.patchmaps import patch_features, patch_maps
from vitaepp.explanation.subject import earlier_maps, explain_one, files_of
from vitaepp.explanation.words import map_lines
from vitaepp.system.devices import chosen_device, device_name
from vitaepp.system.files import file_stem, without_nan, write_json, write_text
from vitaepp.system.host import keep_freed_memory
from vitaepp.system.paths import refuse_as_results, swapped
from vitaepp.system.progress import counted, say, track, warn
from vitaepp.system.results import ResultFiles

#: What `explain` writes besides the files of each subject.
FILES = ResultFiles(
    "explain",
    {"explain.json": ("maps", "subjects"), "explain.csv": ("subject", "map", *NUMBERS)},
    last=("explain.csv", "explain.json"),
)


def explain(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model | None = None,
    subjects: int | None = 8,
    parts: int | None = None,
    pairs: int = 16,
    seed: int = 0,
    device: str | None = None,
    any_store: bool = False,
) -> pd.DataFrame:
    """Map what an encoder, and a classifier of its features, look at, and test the maps.

    Writes for each subject a panel `<subject>.png`, arrays `<subject>.npz` on the grid of patches
    and, in 3D, NIfTI files in the original scan's space: `<subject>_patches` (three principal
    components of patch features, 0 to 1), `_regions` (groups of like patches), `_shapley` with
    `_shapley_error`, `_occlusion` and `_rollout`, each shared evenly among the voxels of a part.
    `explain.csv` has a row a subject and map, `explain.json` all numbers. It comes last: a folder
    without it is of a command that was interrupted, and the same command makes it whole. Maps of an
    earlier call in the same folder are kept until then.

    The Shapley values are of the decision score of `model`, and sum to that of the subject less
    that of the cohort's mean. Parts of the image are taken away by leaving out their patches. With
    no model, they are of the subject's distance from the mean of the store's subjects. A ResNet has
    no patches: parts of the image are made grey for it, and there is no attention.

    Args:
        run: trained run folder, or an encoder folder.
        store: store like the one of the training.
        out: folder for the results, for example `RUN/explain`, where a report finds them.
        model: folder of `vitaepp fit`, or what it returned; fitted to embeddings of this run.
        subjects: how many, evenly over the store, those that were not trained on first; all with
            None.
        parts: of how many parts an image consists at most; patches are joined to cubes of equal
            size until they are so few. Unset: 64, or 32 where there are more than 1,000 patches.
        pairs: of random orders; the standard error falls with their root, and time grows with them.
        seed: of the orders, and of k-means.
        device: where to compute.
        any_store: also where the store was prepared in another way than that of the training.

    Returns:
        The table in explain.csv: `subject`, `map`, and the numbers of `explain.checks`.

    Raises:
        RunError, StoreError: run and store are missing or do not fit each other, or `out` holds
            something else.
        ModelError: the model is of another encoder.
    """
    if hint := swapped("explain", {"run": run, "store": store, "out": out}):
        raise RunError(hint)
    target = Path(out)
    refuse_as_results(target, "explain")
    if (parts is not None and parts < 2) or pairs < 1:
        given = "" if parts is None else f"`parts={parts}`, "
        raise RunError(f"{given}`pairs={pairs}`: give at least 2 parts and 1 pair")
    encoder, opened = Encoder.from_pretrained(run), Store(store)
    check_fits(encoder.config, opened)
    say_unlike(encoder.config, opened, check_like(encoder.config, opened, any_store))
    if len(opened) < 2:
        raise StoreError(f"{opened.path}: one subject cannot be compared with others; give more")
    fitted = model if isinstance(model, Model) or model is None else Model.load(model)
    if fitted is not None:
        networks.check_of(fitted, encoder, run)
    rows, former = choose_rows(opened, subjects), earlier_maps(target)
    earlier = {name for names in former.values() for name in names}
    chosen = opened.table["subject"].iloc[rows].astype(str)
    FILES.check(target, [n for s in chosen for n in files_of(file_stem(s)) if n not in earlier])
    keep_freed_memory()
    on = chosen_device(device)
    wanted = encoder.config.precision if fitted is None else fitted.precision
    untrained = networks.untrained_like(encoder, run).to(on)
    both, facts = networks.networks_of(encoder.to(on), untrained, opened, fitted, parts, wanted, on)
    if facts["parts"] != parts and (parts or prod(facts["grid"]) > networks.MANY):
        say(f"an image is divided into {facts['parts']} parts; `parts` says how many at most")
    name = model if isinstance(model, str | os.PathLike) else None
    facts |= networks.explained_by(fitted, None if name is None else Path(name).resolve().name)
    if caveat := networks.caveat_of(both[0]):
        facts["caveat"] = caveat
        warn(caveat)
    if len(rows) < len(opened):
        say(f"{len(rows)} of {counted(len(opened), 'subject')} explained; `subjects` says how many")
    features = [
        patch_features(encoder, networks.image_of(encoder, opened, row, on), both[0].precision)
        for row in track(rows, "features of patches", len(rows))
    ]
    maps = patch_maps(np.stack(features), seed)
    numbers: list[dict[str, Any]] = []
    subjects_facts: list[dict[str, Any]] = []
    with FILES.written(target) as staged:
        for index, row in enumerate(track(rows, "explaining", len(rows))):
            one, of_each = explain_one(both, opened, row, maps, index, staged, pairs, seed)
            subjects_facts.append(one)
            numbers += [{"subject": one["subject"], "map": k, **v} for k, v in of_each.items()]
        table = pd.DataFrame(numbers, columns=["subject", "map", *NUMBERS])
        write_text(staged / "explain.csv", table.to_csv(index=False))
        write_json(
            staged / "explain.json",
            {
                "run": Path(run).resolve().name,
                "encoder": weights_id(run),
                "store": opened.name,
                "images": opened.fingerprint(),
                **facts,
                "pairs": pairs,
                "seed": seed,
                "device": device_name(on),
                "seconds_per_subject": round(
                    float(np.mean([t["seconds"] for t in subjects_facts])), 1
                ),
                "patch_maps": {"variance": maps.variance, "position": without_nan(maps.position)},
                "maps": averaged(table),
                "subjects": subjects_facts,
            },
        )
        written = {path.name for path in staged.iterdir()}
    for name in earlier - written:
        (target / name).unlink(missing_ok=True)
    if former:
        subjects_before = counted(len(former), "subject")
        say(f"{target}: maps of {subjects_before} from an earlier call are removed")
    return table


def explain_summary(table: pd.DataFrame) -> str:
    """What the maps are worth, a line each.

    Args:
        table: what `explain` returned.
    """
    head = f"{counted(table['subject'].nunique(), 'subject')}; means over them:"
    return "\n".join([head, *map_lines(averaged(table))])
