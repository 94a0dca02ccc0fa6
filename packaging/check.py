"""Build sdist and wheel, install the wheel where the source tree is not, and use it there.

    python packaging/check.py

The wheel is made from the sdist, as pip makes it. It goes into a new environment that finds what
vitaepp needs in the environment of this interpreter, so that nothing is downloaded. Needs
hatchling.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What runs in the new environment: files that the package reads, which a wheel could lack.
USE = """
import sys
from importlib import metadata, resources
from pathlib import Path

import vitaepp
from vitaepp.recipe.recipe import Recipe, shipped_recipes

here = Path(vitaepp.__file__)
assert here.is_relative_to(Path(sys.prefix).resolve()), f"{here}: is not the installed one"
assert metadata.version("vitaepp") == vitaepp.__version__
names = shipped_recipes()
assert "demo" in names, names
for name in names:
    Recipe.load(name)
files = resources.files("vitaepp")
for file in ("py.typed", "ingest/layouts/series.tsv"):
    assert (files / file).is_file(), file
templates = [f for f in (files / "reporting" / "templates").iterdir() if f.suffix == ".j2"]
assert len(templates) > 3, templates
from jinja2 import Environment, PackageLoader

environment = Environment(loader=PackageLoader("vitaepp.reporting"))
for template in templates:
    environment.get_template(template.name)
print(f"vitaepp {vitaepp.__version__}: {len(names)} recipes, {len(templates)} templates")
"""


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist of this tree, and the wheel of that sdist."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        # Python 3.11 knows filters from 3.11.4 on.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(folder / "source", **safe)
    (source,) = (folder / "source").iterdir()
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], source)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def compare(wheel: Path) -> None:
    """Refuse a wheel that lacks a file of the package, or that holds one of something else."""
    tracked = _run(["git", "ls-files", "src/vitaepp"], ROOT).split()
    wanted = {path.removeprefix("src/") for path in tracked}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    if wanted != found:
        raise SystemExit(f"{wheel.name}: lacks {wanted - found}, has also {found - wanted}")


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel, and with the packages of this one; its folder of programs.

    Its own packages come first, and the other environment's `.pth` files, such as that of an
    editable installation, are not read.
    """
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet"]
    _run([*pip, "--disable-pip-version-check", "install", "--no-deps", str(wheel)], folder)
    where = _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(where.strip()) / "packages.pth").write_text("\n".join(others), encoding="utf-8")
    return programs


def main() -> None:
    """Build, compare, install, use; the first that fails ends it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist, wheel = build(folder)
        compare(wheel)
        programs = install(wheel, folder / "environment")
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        vitaepp = str(next(programs.glob("vitaepp*")))
        python = str(programs / Path(sys.executable).name)
        assert "Usage: vitaepp" in _run([vitaepp, "--help"], elsewhere)
        assert "optim.epochs = " in _run([vitaepp, "settings"], elsewhere)
        print(_run([python, "-c", USE], elsewhere), end="")
        for file in (sdist, wheel):
            print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")


def _run(command: list[str], folder: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
