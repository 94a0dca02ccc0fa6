"""`vitaepp doctor`: what it finds, what it says of what is broken, and what it keeps quiet."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import vitaepp as library
from vitaepp.cli import doctor as module
from vitaepp.cli.doctor import _wrong, anonymous

ESSENTIAL = [r for r in metadata.requires("vitaepp") if "extra ==" not in r]


@pytest.fixture(scope="module")
def run_doctor(tmp_path_factory):
    """A process of its own, with packages that stand before the installed ones."""

    def run(*arguments, packages=None, **variables):
        folder = tmp_path_factory.mktemp("packages")
        for name, content in (packages or {}).items():
            (folder / f"{name}.py").write_text(content)
        source = Path(library.__file__).parents[1]
        path = os.pathsep.join([str(folder), str(source), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "vitaepp", "doctor", *arguments],
            env=os.environ | {"PYTHONPATH": path} | variables,
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )

    return run


@pytest.fixture(scope="module")
def healthy(run_doctor):
    return run_doctor()


def test_a_whole_installation_is_told_and_the_status_is_0(healthy):
    assert (healthy.returncode, healthy.stderr) == (0, "")
    assert healthy.stdout.splitlines()[-1].startswith("Paste all of this into an issue")
    for line in ESSENTIAL:
        name = module._name(line)
        assert f"{name} {metadata.version(name)}" in " ".join(healthy.stdout.split())
    for word in ("device cpu", "bf16", "cores", "memory", "temporary files", "VGG-16 weights"):
        assert word in healthy.stdout
    extras = set(metadata.metadata("vitaepp").get_all("Provides-Extra")) - {*module.NOT_FOR_USERS}
    assert {f"extra {name}" for name in extras} == {
        line.split("  ")[0].strip()
        for line in healthy.stdout.splitlines()
        if line.startswith("extra ")
    }


@pytest.fixture(scope="module")
def broken(run_doctor, tmp_path_factory):
    """Where torch and einops cannot be imported, with the errors that a user's machine gives."""
    home = tmp_path_factory.mktemp("home") / "adalovelace"
    home.mkdir()
    packages = {
        "torch": f"raise ImportError('{home}/lib/libcuda.so (adalovelace on kingsmill): no')",
        "einops": "raise OSError('of no use')",
        "sitecustomize": "import socket\nsocket.gethostname = lambda: 'kingsmill.example.org'\n",
    }
    users = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME"), "adalovelace")
    places = dict.fromkeys(("HOME", "TMPDIR", "USERPROFILE"), str(home))
    return home, run_doctor(packages=packages, **users, **places)


def test_a_broken_torch_is_the_first_line_and_status_2(broken):
    _, done = broken
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    first = done.stdout.splitlines()
    assert first[0] == "2 problems:"
    assert [line.split()[1] for line in first[1:3]] == ["einops", "torch"]
    assert lines[0].startswith("vitaepp: einops cannot be imported: OSError: of no use; install it")
    assert lines[0].endswith("pip install --force-reinstall einops; see docs/install.md")
    assert "memory  " in done.stdout  # what needs no torch is told all the same
    assert "not known, as torch does not answer" in done.stdout


def test_it_names_no_user_no_home_no_machine_and_no_folder(broken):
    home, done = broken
    assert "<path> (<name> on <name>): no" in done.stdout
    private = ("adalovelace", "kingsmill", str(home.parent), str(Path.home()), sys.prefix)
    assert not [word for word in private if word in done.stdout + done.stderr]
    assert not list(home.iterdir())  # it writes nowhere


def test_a_package_that_ends_the_interpreter_is_named(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("import os\nos._exit(132)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    problems = [*module._import_problems(["json", "torch"], module._probe(["json", "torch"]))]
    assert [problem.what for problem in problems] == [
        "torch cannot be imported: Python ended with status 132"
    ]
    assert problems[0].essential


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("C:\\Users\\ada\\torch\\lib\\c10.dll was not found", "<path> was not found"),
        ("(/opt/x y)", "(<path> y)"),
        ("~/x/y", "<path>"),
        ("see pytorch.org/get-started or https://pytorch.org/get", None),
        ("pip install 'torch<3,>=2.8', 1/2, n/a", None),
    ],
)
def test_paths_are_left_out_and_the_rest_stays(text, kept):
    assert anonymous(text) == (kept or text)


def test_a_package_of_another_version_is_named_with_the_one_needed():
    version = metadata.version("numpy")
    assert _wrong("numpy>=1.26") == ""
    assert _wrong("numpy<1.26") == f"numpy {version} is installed, and <1.26 is needed"
    assert _wrong("nosuchpackage>=1; python_version>'3'") == "nosuchpackage is not installed"


def test_what_hinders_the_work_is_said_with_a_remedy(monkeypatch):
    monkeypatch.setattr(module, "_probe", lambda _: [
        {"device": "torch", "devices": [{"kind": "cpu", "name": "x", "bf16": False,
         "free_bytes": None, "total_bytes": None}], "built_for": "CPU", "threads": 1,
         "weights": "/nowhere/vgg.pth"}, {"ending": None}])  # fmt: skip
    monkeypatch.setattr(module, "free_cores", lambda: 1)
    monkeypatch.setattr(module, "free_memory", lambda: 2**30)
    monkeypatch.setattr(module.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: module.shutil._ntuple_diskusage(9, 8, 1)
    )
    monkeypatch.setattr(module.os, "access", lambda path, _: path != Path("/"))
    health = library.doctor()
    told = "\n".join(map(str, health.problems))
    assert "only 1.0 GiB of memory are free; close other programs" in told
    assert "torch was built for CPUs only; install torch with CUDA" in told
    assert "temporary files: only 0 MiB are free; set TMPDIR" in told
    assert "downloaded weights: the folder cannot be written to; set TORCH_HOME" in told
    assert health.broken == ()
    assert "bf16 no" in str(health)


def test_a_driver_that_never_answers_ends_the_waiting(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    problems = [*module._import_problems(["torch"], module._probe(["torch"]))]
    assert [problem.what for problem in problems] == [
        "packages could not be tried: no answer within 0.01 s"
    ]


def test_weights_in_the_cache_are_found(monkeypatch, tmp_path):
    from vitaepp.nn.vgg import imagenet_file

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert imagenet_file().parent == tmp_path / "hub" / "checkpoints"
    found = module._weights(str(imagenet_file()))
    assert found == {"vgg16 imagenet": None, "models of the Hugging Face Hub": 0}
    imagenet_file().parent.mkdir(parents=True)
    imagenet_file().write_bytes(b"1234")
    (tmp_path / "hf" / "hub" / "models--a--b").mkdir(parents=True)
    found = module._weights(str(imagenet_file()))
    assert found == {"vgg16 imagenet": 4, "models of the Hugging Face Hub": 1}
