"""`prepare` against only reading and resampling the same files with SimpleITK, side by side.

    python benchmarks/prepare.py [--rounds N] [--processes N] [--out FILE.json]

The files are synthetic NIfTI of a realistic size: four modalities of 240×240×155 voxels (int16,
gzip), a smooth head in an empty field with noise, tilted a little so that nothing can be copied.
Eight subjects are distinct; more are further names of their files, which both contestants read
anew, so that starting processes is not what is timed.
The peer reads each and resamples it linearly to the same grid, in as many processes, and keeps
nothing. Contestants take turns; each round has a ratio, and their median and range count. Memory
is the greatest sum of proportional set sizes over all processes, sampled, for few and for many
subjects. The machine is shared unless you know better: seconds are of that day, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk

MODALITIES = ("flair", "t1", "t1ce", "t2")
SHAPE = (240, 240, 155)
SIDE = 96
DISTINCT = 8
TARGET = 1.5

OURS = """
import sys
from vitaepp.ingest.prepare import prepare
result = prepare(sys.argv[1], sys.argv[2], size=96, spacing=1.0, center="image",
                 workers=int(sys.argv[3]))
assert not result.failures, result.failures
"""


def main() -> None:
    """Make the files, run the rounds, write the figures."""
    if sys.argv[1:2] == ["--peer"]:
        return peer(Path(sys.argv[2]), int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--subjects", type=int, default=64)
    parser.add_argument("--memory", type=int, nargs="*", default=[16, 64], help="subjects")
    parser.add_argument("--out", type=Path, help="JSON file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure(Path(place), asked)
    found["machine"] = f"{platform.machine()}, {psutil.cpu_count()} cores, shared with others"
    found["versions"] = {
        "python": platform.python_version(),
        "SimpleITK": sitk.Version.VersionString(),
    }
    print(json.dumps(found, indent=2))
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    return None


def measure(place: Path, asked: argparse.Namespace) -> dict[str, object]:
    """Seconds and memory of both contestants."""
    templates = [head(seed) for seed in range(len(MODALITIES))]
    sources = {
        n: cohort(place / f"source-{n}", n, templates) for n in {asked.subjects, *asked.memory}
    }
    source, processes = sources[asked.subjects], str(asked.processes)
    peer_command = [sys.executable, __file__, "--peer", str(source), processes]
    seconds: dict[str, list[float]] = {"prepare": [], "peer": []}
    for i in range(asked.rounds):
        ours = [sys.executable, "-c", OURS, str(source), str(place / f"store-{i}"), processes]
        pair = [("prepare", ours), ("peer", peer_command)]
        for name, command in pair if i % 2 == 0 else pair[::-1]:
            seconds[name].append(run(command)[0])
        print({name: round(values[-1], 2) for name, values in seconds.items()}, file=sys.stderr)
    ratios = [a / b for a, b in zip(seconds["prepare"], seconds["peer"], strict=True)]
    memory = {}
    for n in asked.memory:
        command = [sys.executable, "-c", OURS, str(sources[n]), str(place / f"m-{n}"), processes]
        memory[f"prepare, {n} subjects"] = round(run(command)[1] / 2**20)
    memory[f"peer, {asked.subjects} subjects"] = round(run(peer_command)[1] / 2**20)
    return {
        "subjects": asked.subjects,
        "modalities": len(MODALITIES),
        "shape": SHAPE,
        "processes": asked.processes,
        "seconds": seconds,
        "ratio": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
            "target": TARGET,
        },
        "peak_memory_mib": memory,
    }


def run(command: list[str]) -> tuple[float, int]:
    """Seconds from start to end, and the greatest memory in bytes of the whole tree."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = [0]
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - start
    watcher.join()
    if status:
        raise SystemExit(f"{command[:3]} ended with {status}")
    return seconds, peak[0]


def watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    """Sample the memory of a process and all below it; what they share counts once."""
    root = psutil.Process(process.pid)
    while process.returncode is None:
        total = 0
        try:
            for one in [root, *root.children(recursive=True)]:
                total += one.memory_full_info().pss
        except psutil.Error:
            pass
        peak[0] = max(peak[0], total)
        time.sleep(0.2)


def head(seed: int) -> sitk.Image:
    """A smooth ellipsoid with structure in an empty field, and noise inside."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij", sparse=True)
    inside = sum((a / r) ** 2 for a, r in zip(axes, (0.6, 0.75, 0.85), strict=True)) < 1
    waves = sum(np.sin(f * a) for a, f in zip(axes, rng.uniform(4, 12, 3), strict=True))
    values = inside * (600 + 120 * waves + rng.normal(0, 15, SHAPE))
    image = sitk.GetImageFromArray(values.clip(0).astype(np.int16).T)
    turn = np.deg2rad(5)
    image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    image.SetSpacing((0.9, 0.9, 1.1))
    return image


def cohort(folder: Path, subjects: int, templates: list[sitk.Image]) -> Path:
    """Subjects in BraTS naming, each a little different."""
    for i in range(subjects):
        for name, image in zip(MODALITIES, templates, strict=True):
            path = folder / f"s{i:02d}" / f"s{i:02d}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            if i >= DISTINCT:
                old = f"s{i % DISTINCT:02d}"
                path.hardlink_to(folder / old / f"{old}_{name}.nii.gz")
                continue
            moved = sitk.Cast(image + i, sitk.sitkInt16)
            moved.SetOrigin((i, 0, 0))
            sitk.WriteImage(moved, str(path))
    return folder


def peer(source: Path, processes: int) -> None:
    """Only read and resample, in as many processes."""
    with get_context("spawn").Pool(processes, initializer=one_thread) as pool:
        for _ in pool.imap_unordered(read_and_resample, sorted(source.glob("*/*.nii.gz"))):
            pass


def one_thread() -> None:
    """As prepare's processes do."""
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def read_and_resample(path: Path) -> None:
    """One file, to 96³ of 1 mm around its centre."""
    image = sitk.ReadImage(str(path))
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    direction = np.reshape(image.GetDirection(), (3, 3))
    origin = np.array(middle) - direction @ np.full(3, (SIDE - 1) / 2)
    sitk.Resample(
        image,
        (SIDE,) * 3,
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.sitkLinear,
        origin.tolist(),
        (1.0,) * 3,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )


if __name__ == "__main__":
    main()
