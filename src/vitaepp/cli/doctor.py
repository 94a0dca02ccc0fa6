"""What this machine and this installation can do, and what to do about what is wrong with them.

It holds where torch, or any other package, cannot be imported: nothing but Python's own library is
imported here. Packages are tried in another process (`probe.py`).
"""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from vitaepp import __version__
from vitaepp.cli.probe import MARK
from vitaepp.system.extras import install
from vitaepp.system.host import (
    GIB,
    free_memory,
    installed_memory,
    processor_name,
    usable_cores,
    usable_memory,
)
from vitaepp.system.text import fact_list
from vitaepp.system.threads import CHOSEN, free_cores

#: Extras for those who work on vitaepp; and the one that stands for all others.
NOT_FOR_USERS = ("dev", "bench", "all")

#: Packages whose modules are called otherwise.
MODULES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "simpleitk": "SimpleITK",
}

#: These are pure Python and take many seconds to import; that they are there has to do.
SLOW_TO_IMPORT = ("lightning", "monai")

#: The most seconds that all imports and the first steps on a device may take.
PATIENCE = 300

#: With less, work may end for lack of memory or room.
LITTLE_MEMORY, LITTLE_DISK, LITTLE_SHARED = 2 * GIB, 2 * GIB, GIB // 4

#: Variables that change how many threads compute, or which devices are seen.
VARIABLES = (
    *(CHOSEN, "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_NODE", "PYTORCH_ENABLE_MPS_FALLBACK"),
)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        what: is wrong.
        remedy: what to do about it.
        essential: nothing works as long as it is so.
    """

    what: str
    remedy: str
    essential: bool = False

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True)
class Health:
    """What `doctor` found: printed, it can be pasted into an issue; it holds no names and no paths.

    Attributes:
        problems: what is wrong, the essential first.
        facts: of versions, devices, memory, cores, extras, weights and disks.
    """

    problems: tuple[Problem, ...]
    facts: dict[str, Any] = field(repr=False)

    @property
    def broken(self) -> tuple[Problem, ...]:
        """The problems with which nothing works."""
        return tuple(problem for problem in self.problems if problem.essential)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values; sizes in bytes."""
        problems = [
            {"what": p.what, "remedy": p.remedy, "essential": p.essential} for p in self.problems
        ]
        return {"problems": problems, **self.facts}

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{count} problem{'s' * (count > 1)}:" if count else "No problem was found."
        return "\n".join(
            [
                head,
                *(f"  - {problem}" for problem in self.problems),
                "",
                fact_list(_lines(self.facts)),
                "",
                "Paste all of this into an issue: it holds no names and no paths.",
            ]
        )


def doctor() -> Health:
    """Say what this machine and this installation can do, problems first.

    Nothing is written, and nothing is downloaded. Packages are imported in another process, so that
    it works as well where one of them is broken.

    Returns:
        What was found. `print` shows it; `problems` and `to_dict()` are for programs.
    """
    installed, problems = _packages()
    cores = {"usable": usable_cores(), "free": free_cores(), "installed": os.cpu_count() or 1}
    modules = [
        MODULES.get(name.lower(), name.replace("-", "_"))
        for name, version in installed.items()
        if version is not None and name not in SLOW_TO_IMPORT
    ]
    steps = _probe(modules)
    problems += _import_problems(modules, steps)
    torch = next((line for line in steps if "devices" in line), {})
    problems += _device_problems(torch)
    memory = {"installed": installed_memory(), "usable": usable_memory(), "free": free_memory()}
    if memory["free"] < LITTLE_MEMORY:
        little = f"only {_size(memory['free'])} of memory are free"
        problems.append(Problem(little, "close other programs, or ask for more memory"))
    disks = dict(_disks(torch.get("weights")))
    problems += _disk_problems(disks)
    extras = _extras()
    problems += [
        Problem(f"extra {name}: {'; '.join(extra['outdated'])}", install(name))
        for name, extra in extras.items()
        if extra["outdated"]
    ]
    facts = {
        "versions": {
            "vitaepp": __version__,
            "python": platform.python_version(),
            "system": _system(),
            **installed,
        },
        "devices": torch.get("devices", []),
        "torch": {name: torch.get(name) for name in ("built_for", "threads")},
        "processor": anonymous(processor_name().rpartition(",")[0]),
        "cores": cores,
        "memory": memory,
        "disks": disks,
        "weights": _weights(torch.get("weights")),
        "extras": extras,
        "variables": {n: anonymous(os.environ[n]) for n in VARIABLES if n in os.environ},
    }
    problems.sort(key=lambda problem: not problem.essential)
    return Health(tuple(problems), facts)


def anonymous(text: str) -> str:
    """A text of another program, without paths and without the names of user and machine.

    >>> anonymous("/home/ada/lib/libc.so.6: version not found")
    '<path>: version not found'
    """
    # A path begins with a slash, a tilde or a drive; URLs and fractions do not.
    text = re.sub(r"(?<![\w/:.])(~|[A-Za-z]:)?[/\\][^\s'\"`,;:()<>]+", "<path>", text)
    for name in _private_names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text, flags=re.IGNORECASE)
    return text


def _private_names() -> Iterator[str]:
    """Names of the user and of the machine; `root` and the like are nobody's."""
    for find in (getpass.getuser, lambda: Path.home().name, socket.gethostname, platform.node):
        with suppress(Exception):  # each fails on some systems
            name = find()
            for part in {name, name.partition(".")[0]}:
                if len(part) > 2 and part.lower() not in ("root", "user", "localhost", "vitaepp"):
                    yield part


def _packages() -> tuple[dict[str, str | None], list[Problem]]:
    """The version of each package that vitaepp needs, None where it is missing; and what is amiss.

    What it needs is what the installed package says, as pip reads it.
    """
    installed: dict[str, str | None] = {}
    problems = []
    try:
        needed = metadata.requires("vitaepp") or []
    except metadata.PackageNotFoundError:
        return {}, [
            Problem(
                "vitaepp is not installed as a package, so that what it needs is not known",
                "pip install it, or its folder",
                essential=True,
            )
        ]
    for line in needed:
        if "extra ==" in line:
            continue
        name = _name(line)
        installed[name] = _version(name)
        wrong = _wrong(line)
        if wrong:
            wanted = line.partition(";")[0].strip()
            problems.append(Problem(wrong, f"pip install '{wanted}'", essential=True))
    return installed, problems


def _extras() -> dict[str, Any]:
    """Each extra: whether all of it is installed, what is not, and the line that installs it."""
    extras: dict[str, Any] = {}
    with suppress(metadata.PackageNotFoundError):
        needed = metadata.requires("vitaepp") or []
        for extra in metadata.metadata("vitaepp").get_all("Provides-Extra") or []:
            if extra in NOT_FOR_USERS:
                continue
            of_extra = re.compile(rf"extra == ['\"]{re.escape(extra)}['\"]")
            lines = [line for line in needed if of_extra.search(line)]
            missing = [_name(line) for line in lines if _version(_name(line)) is None]
            outdated = [w for line in lines if _name(line) not in missing and (w := _wrong(line))]
            extras[extra] = {
                "installed": not missing and not outdated,
                "missing": missing,
                "outdated": outdated,
                "install": install(extra),
            }
    return extras


def _name(requirement: str) -> str:
    """The package of a line such as `torch<3,>=2.8`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _version(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _wrong(line: str) -> str:
    """What is wrong with the package of a requirement; empty if nothing is."""
    name = _name(line)
    version = _version(name)
    if version is None:
        return f"{name} is not installed"
    try:
        from packaging.requirements import Requirement
    except ImportError:  # without it versions are not compared; that it is missing is said as well
        return ""
    allowed = Requirement(line).specifier
    if allowed.contains(version, prereleases=True):
        return ""
    return f"{name} {version} is installed, and {allowed} is needed"


def _probe(modules: Sequence[str]) -> list[dict[str, Any]]:
    """What another interpreter says of these modules and of torch's devices; see `probe.py`."""
    source = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), source)))
    # -P: a file of the current folder that is called like a package is not taken for it.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "vitaepp.cli.probe", *modules]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    output, ending = "", None
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE,
            check=False,
            env=environment,
        )
        output = done.stdout.decode(errors="replace")
        if done.returncode:
            ending = f"Python ended with status {done.returncode}"
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"").decode(errors="replace")
        ending = f"no answer within {PATIENCE} s"
    except OSError as error:
        ending = anonymous(f"no new Python can be started: {error}")
    lines = [
        json.loads(line.removeprefix(MARK))
        for line in output.splitlines()
        if line.startswith(f"{MARK} ")
    ]
    for line in lines:
        if line.get("error"):
            line["error"] = anonymous(" ".join(line["error"].split()))
        for device in line.get("devices", []):
            device["name"] = anonymous(device["name"])
    return [*lines, {"ending": ending}]


def _import_problems(modules: Sequence[str], lines: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """The modules that cannot be imported: with an error, or with the end of the interpreter."""
    packages = {module: package for package, module in MODULES.items()}
    ending = lines[-1]["ending"]
    steps = [line for line in lines if "module" in line or "device" in line]
    at_work: dict[str, Any] = steps[-1] if steps else {}
    for module in modules:
        of_module = [line for line in lines if line.get("module") == module]
        error = next((line["error"] for line in of_module if line.get("error")), None)
        if error is None and ending and at_work is (of_module[-1] if of_module else None):
            error = ending if "error" not in at_work else None
        if error:
            package = packages.get(module, module)
            yield Problem(
                f"{package} cannot be imported: {error}",
                f"install it anew: pip install --force-reinstall {package}",
                essential=True,
            )
    of_device = next((line for line in lines if line.get("device") and line.get("error")), None)
    if of_device or (ending and "device" in at_work and "devices" not in at_work):
        why = of_device["error"] if of_device else ending
        yield Problem(
            f"torch computes nothing on this machine's device: {why}",
            "install the torch that fits the driver (pytorch.org/get-started), or hide the device "
            "by CUDA_VISIBLE_DEVICES=''",
            essential=True,
        )
    elif ending and not lines[:-1]:
        yield Problem(f"packages could not be tried: {ending}", "repair Python", essential=True)


def _device_problems(torch: dict[str, Any]) -> Iterator[Problem]:
    """An NVIDIA GPU that torch does not use."""
    kinds = [device["kind"] for device in torch.get("devices", [])]
    nvidia = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if not kinds or "cuda" in kinds or not nvidia:
        return
    if torch["built_for"] == "CPU":
        yield Problem(
            "this machine has a driver of NVIDIA, but torch was built for CPUs only",
            "install torch with CUDA: pytorch.org/get-started",
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1"):
        yield Problem(
            f"torch was built for CUDA {torch['built_for']}, but finds no GPU",
            "see what nvidia-smi says: an older driver needs a torch for an older CUDA, and a "
            "container needs --gpus all",
        )


def _disks(weights: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Folders that work needs: whether they can be written to, and how much is free there."""
    with suppress(OSError):
        yield "working folder", _disk(Path.cwd())
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:  # none can be written to
        yield "temporary files", {"writable": False, "free": None}
    else:
        yield "temporary files", _disk(temporary)
    if weights:
        yield "downloaded weights", _disk(Path(weights).parent)
    shared = Path("/dev/shm")
    if shared.is_dir():
        yield "shared memory", _disk(shared)


def _disk(folder: Path) -> dict[str, Any]:
    """Of a folder, or of where it would be made."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    return {"writable": there.is_dir() and os.access(there, os.W_OK | os.X_OK), "free": free}


def _disk_problems(disks: dict[str, dict[str, Any]]) -> Iterator[Problem]:
    change = {
        "working folder": "work in another folder",
        "temporary files": "set TMPDIR to another folder",
        "downloaded weights": "set TORCH_HOME to another folder",
        "shared memory": "start the container with --shm-size=2g, or set data.workers=0",
    }
    for name, disk in disks.items():
        little = LITTLE_SHARED if name == "shared memory" else LITTLE_DISK
        if not disk["writable"]:
            yield Problem(f"{name}: the folder cannot be written to", change[name])
        elif disk["free"] is not None and disk["free"] < little:
            yield Problem(f"{name}: only {_size(disk['free'])} are free", change[name])


def _weights(imagenet: str | None) -> dict[str, Any]:
    """Bytes of the downloaded weights; None for what is not there."""
    hub = Path(
        os.environ.get("HF_HUB_CACHE")
        or Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface") / "hub"
    )
    size = None
    if imagenet is not None and Path(imagenet).is_file():
        size = Path(imagenet).stat().st_size
    models = sum(1 for _ in hub.glob("models--*")) if hub.is_dir() else 0
    return {"vgg16 imagenet": size, "models of the Hugging Face Hub": models}


def _system() -> str:
    name, libc = platform.system(), "".join(platform.libc_ver())
    release = platform.mac_ver()[0] or platform.release()
    inside = " in a container" if _in_container() else ""
    return anonymous(" ".join(filter(None, (name, release, platform.machine(), libc)))) + inside


def _in_container() -> bool:
    marks = ("/.dockerenv", "/run/.containerenv", "/.singularity.d")
    return any(map(os.path.exists, marks)) or "KUBERNETES_SERVICE_HOST" in os.environ


def _size(count: int | None) -> str:
    """Bytes as people say them.

    >>> _size(3 * 2**29), _size(2**20), _size(None)
    ('1.5 GiB', '1 MiB', 'not known')
    """
    if count is None:
        return "not known"
    return f"{count / GIB:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _lines(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What was found as two columns."""
    versions, memory, cores = facts["versions"], facts["memory"], facts["cores"]
    main = ("vitaepp", "python", "system", "torch", "lightning")
    for name in main:
        if name in versions:
            yield name, versions[name] or "not installed"
    others = [f"{n} {v or 'MISSING'}" for n, v in versions.items() if n not in main]
    for start in range(0, len(others), 5):
        yield "packages" if not start else "", ", ".join(others[start : start + 5])
    for device in facts["devices"]:
        parts = [device["name"], f"bf16 {'yes' if device['bf16'] else 'no'}"]
        if device["total_bytes"]:
            free, total = map(_size, (device["free_bytes"], device["total_bytes"]))
            parts.append(f"{free} free of {total}")
        yield f"device {device['kind']}", ", ".join(parts)
    if not facts["devices"]:
        yield "device", "not known, as torch does not answer"
    if facts["torch"]["built_for"]:
        yield "torch is for", facts["torch"]["built_for"]
    if facts["processor"] and not any(d["kind"] == "cpu" for d in facts["devices"]):
        yield "processor", facts["processor"]
    yield (
        "cores",
        f"{cores['free']} free of {cores['usable']} that may be used, {cores['installed']} in all",
    )
    yield (
        "memory",
        f"{_size(memory['free'])} free of {_size(memory['usable'])} that may be used, "
        f"{_size(memory['installed'])} in all",
    )
    for name, disk in facts["disks"].items():
        writable = "" if disk["writable"] else ", cannot be written to"
        yield name, f"{_size(disk['free'])} free{writable}"
    vgg = facts["weights"]["vgg16 imagenet"]
    yield (
        "VGG-16 weights",
        f"in the cache, {_size(vgg)}"
        if vgg
        else "not in the cache; downloaded by the first training with "
        "loss.perceptual.weights=imagenet",
    )
    if models := facts["weights"]["models of the Hugging Face Hub"]:
        yield "Hub's cache", f"{models} model{'s' * (models > 1)}"
    for name, extra in facts["extras"].items():
        there = "installed" if extra["installed"] else f"not installed: {extra['install']}"
        yield f"extra {name}", there
    for name, value in facts["variables"].items():
        yield name, value
