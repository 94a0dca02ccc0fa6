"""How long installing takes and how large it is: without extras, and what each extra adds.

    python benchmarks/install.py [OUT.json]

A new environment gets vitaepp with the versions in constraints.txt. For each extra, pip says which
packages it would add to that environment; these are installed into a folder of their own, which is
measured and deleted. Times include the download, without pip's cache, and so depend on the network.
Sizes are those of the installed files, compiled ones included.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "results" / "install.json"

#: Extras for those who work on vitaepp.
NOT_FOR_USERS = ("dev", "bench")


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name not in NOT_FOR_USERS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "environment", with_pip=True)
        programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
        python = str(programs / "python")
        before = size(folder / "environment")
        seconds = timed(pip(python, "--no-cache-dir", str(ROOT)))
        whole = size(folder / "environment") - before
        (torch,) = (folder / "environment").rglob("site-packages/torch/__init__.py")
        told: dict[str, Any] = {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "base": {"seconds": seconds, "bytes": whole, "torch_bytes": size(torch.parent)},
            "extras": {},
        }
        print(f"without extras: {seconds:.0f} s, {whole / 1e6:.0f} MB", flush=True)
        for extra in extras:
            told["extras"][extra] = found = measure(python, extra, folder / extra)
            print(f"{extra}: {found['seconds']:.0f} s, {found['bytes'] / 1e6:.0f} MB", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def measure(python: str, extra: str, folder: Path) -> dict[str, Any]:
    """What an extra adds to an environment: seconds, bytes and the packages."""
    asked = [*pip(python, f"{ROOT}[{extra}]"), "--dry-run", "--report", "-"]
    report = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    packages = sorted(
        f"{one['metadata']['name']}=={one['metadata']['version']}"
        for one in report["install"]
        if one["metadata"]["name"] != "vitaepp"
    )
    seconds = 0.0
    if packages:
        folder.mkdir()
        seconds = timed(
            [*pip(python, "--no-cache-dir", *packages), "--no-deps", "--target", str(folder)]
        )
    return {"seconds": seconds, "bytes": size(folder), "packages": packages}


def pip(python: str, *arguments: str) -> list[str]:
    constraints = str(ROOT / "constraints.txt")
    return [python, "-m", "pip", "install", "--quiet", "-c", constraints, *arguments]


def timed(command: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(command, check=True)
    return round(time.monotonic() - start, 1)


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file())


if __name__ == "__main__":
    main()
