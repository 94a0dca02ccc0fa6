"""What stands around the package: one version, one list of dependencies, files that name others."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, StrictUndefined
from packaging.requirements import Requirement

import vitaepp

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Packages that conda-forge calls otherwise.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def module(name):
    """A script of packaging/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "packaging" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_version_has_one_place():
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cff["version"] == vitaepp.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([\d.]+)", changelog, re.M)[1] == vitaepp.__version__


def test_the_notes_of_a_release_are_its_section_of_the_changelog(monkeypatch):
    notes = module("notes").notes
    changelog = (
        "# Changelog\n\n## 1.10.0\n\n- ten\n\n## 1.1.0, of May\n\n### A\n\n- one\n\n## 1.0.0\n"
    )
    assert notes("1.10.0", changelog) == "- ten\n"
    assert notes("1.1.0", changelog) == "### A\n\n- one\n"
    for missing in ("1.1", "1.0.0", "2.0.0"):
        with pytest.raises(SystemExit, match="has no section"):
            notes(missing, changelog)
    assert notes(vitaepp.__version__, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))


@pytest.fixture
def recipe():
    """The conda recipe as conda-build reads it."""
    folder = ROOT / "packaging" / "conda"

    def load_file_regex(load_file, regex_pattern, from_recipe_dir):
        assert from_recipe_dir
        return re.search(regex_pattern, (folder / load_file).read_text(encoding="utf-8"))

    template = Environment(undefined=StrictUndefined).from_string(
        (folder / "meta.yaml").read_text(encoding="utf-8")
    )
    return yaml.safe_load(template.render(load_file_regex=load_file_regex, PYTHON="python"))


def test_the_conda_recipe_has_the_packages_version_and_needs(recipe):
    assert recipe["package"] == {"name": "vitaepp", "version": vitaepp.__version__}
    extra = PROJECT["optional-dependencies"]["report"]
    wanted = {
        CONDA.get(r.name, r.name.lower()): r.specifier
        for r in map(Requirement, [*PROJECT["dependencies"], *extra])
    }
    wanted["python"] = Requirement(f"python{PROJECT['requires-python']}").specifier
    listed = {r.name: r.specifier for r in map(Requirement, recipe["requirements"]["run"])}
    assert listed == wanted
    assert recipe["build"]["entry_points"] == [f"vitaepp = {PROJECT['scripts']['vitaepp']}"]
    assert recipe["about"]["license"] == PROJECT["license"]


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_may_do_little_and_run_what_is_there(file):
    text = file.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}  # a job that needs more says so
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    # `docs` comes with the site.
    assert set(re.findall(r"\bmake ([\w-]+)", text)) <= {*targets, "docs"}
    for script in re.findall(r"python (packaging/\S+)", text):
        assert (ROOT / script).is_file()


def test_what_is_tested_is_what_is_promised():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    promised = {
        line.rpartition(" :: ")[2]
        for line in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", line)
    }
    assert set(matrix["python"]) <= promised
    assert f">={min(matrix['python'])}" == PROJECT["requires-python"]
    systems = {line for line in PROJECT["classifiers"] if line.startswith("Operating System")}
    assert len(matrix["system"]) == len(systems) == 3


def test_the_container_gets_what_the_build_needs_and_nobody_is_root():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in kept
    stages = [i for i, line in enumerate(lines) if line.startswith("FROM ")]
    for start, end in zip(stages, [*stages[1:], len(lines)], strict=True):
        stage = lines[start:end]
        if stage[0].endswith((" cuda", " cpu")):
            assert [line for line in stage if line.startswith("USER ")] == ["USER 1000"]
    extras = set(re.findall(r"vitaepp\[([\w,]+)\]", "\n".join(lines)))
    assert len(extras) == 1  # both have the same
    assert set(extras.pop().split(",")) < set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "docs/install.md"])
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    for link in links:
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_the_page_on_installing_has_a_row_for_each_extra():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert rows == [
        name for name in PROJECT["optional-dependencies"] if name not in ("bench", "dev")
    ]
    costs = re.findall(r"^\| `(\w+)` \|.*\| (\d+) MB", page, re.M)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme.partition("Extras add, in MB: ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)` (\d+)", listed) == [row for row in costs if row[0] != "docs"]


@pytest.mark.slow
def test_the_built_packages_work_without_the_source_tree(capsys):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed; make package-test installs it")
    module("check").main()
    assert f"vitaepp {vitaepp.__version__}: " in capsys.readouterr().out
