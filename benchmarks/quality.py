"""How well odd scans are found: AUC of each kind of corruption against held-out scans as they are.

    python benchmarks/quality.py RUN STORE OTHER_STORE OUT.json [--held 200] [--masks 4]

Held-out scans are corrupted, embedded and reconstructed, and held against a cohort of other scans
of the store, at most 1000, with the embeddings that lie in the run: by the measures of `vitaepp qc`
and, for comparison, by the mean distance to the five nearest scans. Where the store is split, the
cohort is of train, and the held-out scans of test.
"""

import argparse
import platform
import time

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score

from vitaepp import Embeddings, Encoder, Store
from vitaepp.data.participants import persons_of
from vitaepp.data.splits import canonical_splits
from vitaepp.downstream.distance import Cohort
from vitaepp.downstream.quality import LIMIT, MASKS, deviations, reconstruction_errors
from vitaepp.system.files import write_json
from vitaepp.weights.runs import load_method


def ghosted(image):
    """Every fourth line of k-space along the second axis is weaker, as where a patient moves."""
    lines = np.fft.fft(image, axis=2)
    lines[:, :, ::4] *= 0.5
    lines[:, :, 0] *= 2  # the mean stays
    return np.abs(np.fft.ifft(lines, axis=2))


def corruptions(images, other, rng):
    """Each kind by its name, `(subject, channel, *space)`, intensities in [0, 255]."""
    last = images.ndim - 1
    up, side = (2, 3) if images.ndim == 4 else (last, 2)
    sigma = (0, 0, *[1.5] * (images.ndim - 2))
    scale = [wanted / had for wanted, had in zip(images.shape[1:], other.shape[1:], strict=True)]
    return {
        "inverted": 255 - images,
        "contrast, gamma 2.5": 255 * (images / 255) ** 2.5,
        "upside down": np.flip(images, up),
        "left and right swapped": np.flip(images, side),
        "ghosting": np.stack([ghosted(image) for image in images]),
        "blur, 1.5 voxels": gaussian_filter(images, sigma),
        "noise, 10 % of the range": images + rng.normal(0, 25.5, images.shape),
        "another cohort": np.stack([zoom(image, scale, order=1) for image in other]),
    }


def nearest(features, cohort, own=False):
    """The mean distance to the five nearest of a cohort, standardised."""
    mean, scale = cohort.mean(axis=0), np.maximum(cohort.std(axis=0), 1e-6)
    a, b = (features - mean) / scale, (cohort - mean) / scale
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    distances = np.sort(np.sqrt(np.maximum(squares, 0)), axis=1)
    return distances[:, own : own + 5].mean(axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "store", "other", "out"):
        parser.add_argument(name)
    parser.add_argument("--held", type=int, default=200)
    parser.add_argument("--masks", type=int, default=MASKS)
    given, start = parser.parse_args(), time.monotonic()
    rng, store, other = np.random.default_rng(0), Store(given.store), Store(given.other)
    splits = canonical_splits(store.table["split"]).to_numpy()
    rows = rng.permutation(len(store))
    test = rows[splits[rows] == "test"] if {"train", "test"} <= set(splits) else rows
    held = test[: min(given.held, len(store) // 3)]
    rest = rows[(splits[rows] != "test") & ~np.isin(rows, held)][:1000]

    encoder, (method, _) = Encoder.from_pretrained(given.run), load_method(given.run)
    images = store.read(np.sort(held)).astype(np.float32)
    foreign = other.read(rng.permutation(len(other))[: len(held)]).astype(np.float32)[:, :1]
    if foreign.ndim > images.ndim:
        foreign = foreign[..., foreign.shape[-1] // 2]
    sets = {"as they are": images, **corruptions(images, foreign, rng)}

    def errors(values):
        values = torch.from_numpy(np.ascontiguousarray(values, np.float32).clip(0, 255))
        found = []
        for first in range(0, len(values), 16):
            part = values[first : first + 16]
            there = torch.ones(part.shape[:2], dtype=torch.bool)
            numbers = range(first, first + len(part))
            found.append(reconstruction_errors(method, part, there, given.masks, 0, numbers))
        return np.concatenate(found)

    embedded = Embeddings.load(f"{given.run}/embeddings.parquet")
    assert embedded.provenance["images"] == store.fingerprint(), "embed the store into the run"
    features = embedded.features[rest]
    cohort = Cohort.of(features, persons_of(store.table.iloc[rest]))
    own_errors = errors(store.read(rest[: 2 * len(held)]))
    values = features.astype(np.float64)
    near = np.quantile(nearest(values, values, own=True), 0.99)
    scores = {}
    for name, corrupted in sets.items():
        shown = np.ascontiguousarray(corrupted, np.float32).clip(0, 255)
        found = encoder.embed_images(list(shown))
        far = deviations(cohort.distances(found).mean(axis=0), cohort.own)
        wrong = deviations(errors(shown), own_errors)
        scores[name] = {
            "distance": far,
            "error": wrong,
            "error, either way": np.abs(wrong),
            "oddity": np.fmax(far, np.abs(wrong)),
            "nearest": nearest(found.astype(np.float64), values),
            "beyond 99 %": cohort.percentiles(found) > 99,
        }
        print(name, flush=True)

    def shares(found):
        return {
            "flagged by qc": float(np.mean(found["oddity"] > LIMIT)),
            "percentile above 99": float(np.mean(found["beyond 99 %"])),
            "farther than 99 % by the five nearest": float(np.mean(found["nearest"] > near)),
        }

    clean = scores.pop("as they are")
    measures = [name for name in clean if name != "beyond 99 %"]
    result = {
        "run": given.run.rstrip("/").rpartition("/")[2],
        "store": store.name,
        "cohort": len(rest),
        "held out": len(held),
        "masks": given.masks,
        "encoder": "trained on all scans of the store, as they are; the held-out ones among them",
        "as they are": shares(clean),
        "corruptions": {
            name: {
                "auc": {
                    m: float(
                        roc_auc_score(
                            np.r_[np.zeros(len(clean[m])), np.ones(len(found[m]))],
                            np.r_[clean[m], found[m]],
                        )
                    )
                    for m in measures
                },
                **shares(found),
            }
            for name, found in scores.items()
        },
        "machine": f"{platform.machine()}, CPU, one thread",
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    write_json(given.out, result)


if __name__ == "__main__":
    main()
