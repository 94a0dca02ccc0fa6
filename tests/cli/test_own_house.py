"""What is true of every verb: where it writes, what it says of a full disk and of a slip."""

import contextlib
import errno
import hashlib
import os
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.conftest import LIGHT, write_store
from vitaepp.cli import app as cli
from vitaepp.data.nifti import write_scan
from vitaepp.encoder.model import Encoder
from vitaepp.errors import one_line
from vitaepp.system.files import atomic_path, check_writable, write_text
from vitaepp.training.callbacks import History
from vitaepp.training.trainer import AtomicCheckpoints, load_checkpoint

QUICK = [part for s in (*LIGHT, "optim.epochs=1") for part in ("--set", s)]


def call(monkeypatch, capsys, *arguments):
    """A command in this process: status, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["vitaepp", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Scans, a store of them, a run, and what was made of it; nothing in it may change."""
    root = tmp_path_factory.mktemp("house")
    random = np.random.default_rng(0)
    for i in range(3):
        folder = root / "scans" / f"p{i}"
        folder.mkdir(parents=True)
        for modality in ("t1", "t2"):
            voxels = random.random((16, 16, 16)).astype(np.float32)
            image = nib.Nifti1Image(voxels, np.eye(4))
            nib.save(image, folder / f"p{i}_{modality}.nii.gz")
    write_store(root / "store", 16, size=(16, 16))
    write_store(root / "other store", 6, size=(16, 16))
    command(root, "pretrain", "store", "run", *QUICK)
    command(root, "embed", "run", "store", "run/embeddings.parquet")
    command(
        root, "evaluate", "run/embeddings.parquet", "--label", "bright", "--out", "run/evaluation"
    )
    command(root, "fit", "run/embeddings.parquet", "--label", "bright", "--out", "model")
    command(root, "reconstruct", "run", "store", "run/reconstruction", "--subjects", "2")
    (root / "empty").mkdir()
    (root / "empty.txt").touch()
    (root / "latin.txt").write_bytes(b"method: \xe9\n")
    (root / "broken.yaml").write_text("a: [1,\n  b: }")
    (root / "list.yaml").write_text("- 1\n")
    (root / "csv.parquet").write_text("subject,f0\na,1\n")
    shutil.copy(root / "run" / "embeddings.parquet", root / "parquet.csv")
    (root / "broken.zip").write_bytes(b"PK\3\4broken")
    (root / "manifest.csv").write_text("subject,t1\na,scans/p0/p0_t1.nii.gz\n")
    (root / "lost.csv").write_text("subject,t1\na,nowhere.nii.gz\n")
    (root / "headless.csv").write_text("a,b\n1,2\n")
    table = pd.read_parquet(root / "run" / "embeddings.parquet")
    labels = {
        "one": 1,
        "none": None,
        "each": [f"c{i}" for i in range(16)],
        "lists": [[1]] * 16,
        "dates": pd.date_range("2020", periods=16),
        "few": [1] + [0] * 15,
    }
    table.assign(**{name: pd.Series([v] * 16 if np.isscalar(v) or v is None else v)
                    for name, v in labels.items()}).to_parquet(root / "labels.parquet")  # fmt: skip
    table[:0].to_parquet(root / "nobody.parquet")
    table[:3].to_parquet(root / "three.parquet")
    table.assign(f0="x").to_parquet(root / "text.parquet")
    table.assign(split=1).to_parquet(root / "splits.parquet")
    return root


def command(folder, *arguments):
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vitaepp", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code


def snapshot(root):
    """Every path below a folder with what it holds and when it was changed."""
    found = {}
    for path in sorted(root.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[path.relative_to(root).as_posix()] = (
            content,
            path.stat().st_mtime_ns if path.is_file() else 0,
        )
    return found


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ("demo", None),
        ("doctor", ()),
        ("download egd new", ()),
        ("prepare scans new/store --size 16", ("new",)),
        ("prepare scans --dry-run", ()),
        pytest.param("plan store --out new.yaml", ("new.yaml",), marks=pytest.mark.slow),
        pytest.param("plan scans", (), marks=pytest.mark.slow),
        ("inspect store", ()),
        ("pretrain store new/run", ("new",)),
        ("bench store --steps 1", ()),
        (
            "embed run store new.parquet",
            ("new.parquet", "new.raw.parquet", "new.untrained.parquet"),
        ),
        ("evaluate run/embeddings.parquet --label bright --out new", ("new",)),
        ("audit run/embeddings.parquet store --label bright --out new", ("new",)),
        ("fit run/embeddings.parquet --label bright --out new", ("new",)),
        ("predict model store --out new.csv", ("new.csv",)),
        ("export run new.pt --to torchscript", ("new.pt",)),
        ("export run new --to hf", ("new",)),
        ("compare run/evaluation --controls", ()),
        ("compare run/evaluation --controls --out new", ("new",)),
        ("reconstruct run other_store new --subjects 2", ("new",)),
        ("experiment masking-ratio store new --label bright --variants vitae++-mask55", ("new",)),
        ("report run --out new.html", ("new.html",)),
        ("report run", ("report.html",)),
        ("dossier run --out new", ("new",)),
        ("settings", ()),
    ],
)
def test_a_verb_writes_only_what_its_arguments_name(
    house, monkeypatch, capsys, tmp_path, arguments, written
):
    if written is None:
        # It calls the functions of the other verbs; its own part is where they write.
        written = ("demo",)
        monkeypatch.setattr("vitaepp.cli.demo.SUBJECTS", 1)
        for name in ("pretrain", "embed", "evaluate", "reconstruct", "report", "summary_table"):
            monkeypatch.setattr(f"vitaepp.cli.demo.{name}", lambda *_, **__: Path("page"))
        monkeypatch.setattr("vitaepp.cli.demo.prepare", lambda *_, **__: None)
        monkeypatch.setattr("vitaepp.cli.demo.write_phantoms", lambda f, **_: f.mkdir(parents=True))
    root = tmp_path / "house"
    shutil.copytree(house, root)
    (root / "other store").rename(root / "other_store")
    before = snapshot(root)
    words = arguments.split()
    words += QUICK if words[0] in ("pretrain", "bench", "experiment") else []
    with contextlib.chdir(root):
        status, _, err = call(monkeypatch, capsys, *words)
    assert status == 0, err
    after = snapshot(root)
    changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert {p.partition("/")[0] for p in changed} == set(written)
    assert not [p for p in after if ".tmp-" in p]


SLIPS = """
inspect nowhere|empty|empty.txt|run|scans|foo://bar|s3://
inspect run/embeddings.parquet
audit nowhere|empty.txt|run store --label bright new
audit run/embeddings.parquet nowhere|empty|run new --label bright
audit run/embeddings.parquet store new --label nothing
embed run nowhere new
embed store store new
embed nowhere|empty|empty.txt|run/embeddings.parquet store new
embed run store empty|empty.txt/x|/proc/x
embed run store new --precision 8
pretrain nowhere|run|empty.txt new
pretrain store run|store|empty.txt|empty.txt/x|/proc/x
pretrain store nowhere|empty --resume
pretrain store new --recipe nowhere|empty|latin.txt|broken.yaml|list.yaml|parquet.csv|run
pretrain store new --subjects nowhere|empty|latin.txt|empty.txt|parquet.csv
pretrain store new --set =|x|x=1|optim=1|optim.epochs|optim.epochs=|optim.epochs=0|optim.epochs=-1
pretrain store new --set optim.epochs=[1|optim.epochs=99999999999999999999999|seed=2020-99-99
pretrain store new --set optim.batch_size=0|optim.base_lr=-1|optim.base_lr=nan|optim.base_lr=inf
pretrain store new --set model.patch_size=0|model.patch_size=-1|model.patch_size=100
pretrain store new --set model.mask_ratio=1|model.mask_ratio=nan|model.mask_ratio=0.999
pretrain store new --set model.embed_dim=7|model.embed_dim=0|model.depth=-1|model.num_heads=0
pretrain store new --set model.init=nowhere|model.init=empty|model.init=empty.txt|model.init=store
pretrain store new --set loss.perceptual.weight=1 --set loss.perceptual.weights=empty.txt
pretrain store new --set loss.edge.weight=inf
pretrain store new --set data.split=x|trainer.devices=0|trainer.precision=64|method=x|é=1
pretrain store new --set seed=99999999999999999999999999|optim.weight_decay=nan
pretrain store new --set model.decoder_depth=-1|trainer.devices=999
bench store --steps 0|-1|x
bench store --device x|cuda:9|
bench store --recipe nowhere
reconstruct store store new
reconstruct run nowhere|run|empty.txt new
reconstruct run store run|empty.txt|empty.txt/x|/proc/x
reconstruct run store new --subjects 0|-1|x|1.5
evaluate nowhere|empty|empty.txt|csv.parquet|store|manifest.csv --label bright --out new
evaluate run/embeddings.parquet --label absent||f0|subject|split|é --out new
evaluate run/embeddings.parquet --label bright --out empty.txt|empty.txt/x|/proc/x
evaluate run/embeddings.parquet --label bright --out new --protocol x|linear
evaluate labels.parquet --label one|none|each|lists|few --out new
evaluate nobody.parquet|three.parquet|text.parquet --label bright --out new
fit nowhere|empty|empty.txt|csv.parquet|store|labels.parquet --label bright --out new
fit run/embeddings.parquet --label absent| --out new
fit run/embeddings.parquet --label bright --out store|scans|empty.txt|empty.txt/x|/proc/x
fit run/embeddings.parquet --label bright --out new --run nowhere|store|empty
predict nowhere|empty|empty.txt|run|store store --out new.csv
predict model nowhere|empty|empty.txt|latin.txt|run|broken.zip|scans --out new.csv
predict model store --out empty|empty.txt/x|/proc/x
predict model store
export nowhere|empty|store new --to torchscript
export run new --to x
export run empty|empty.txt/x|/proc/x --to torchscript
export run store|scans --to hf
compare nowhere|empty|empty.txt|run|manifest.csv
compare run/evaluation --metric x
compare run/evaluation --reference x
compare run/evaluation --out empty.txt|empty.txt/x|/proc/x
prepare nowhere|empty|empty.txt|latin.txt|broken.zip|headless.csv|run/embeddings.parquet|store new
prepare scans store|run|empty.txt|empty.txt/x|/proc/x
prepare scans new --labels nowhere|empty|empty.txt|latin.txt|headless.csv|csv.parquet
prepare scans new --series nowhere|empty
prepare scans new --secret nowhere|empty|empty.txt
prepare scans new --recipe nowhere|broken.yaml|latin.txt
prepare scans new --size 0|-1|x|1,2|nan|inf|96.5||,
prepare scans new --spacing 0|-1|x|nan|inf|1,2|
prepare scans new --modalities x|,|t1,t1
prepare scans new --center x|mask
prepare scans new --clip x|5|5,1|-1,200|nan,nan
prepare scans new --window x|t1|t1=x|t1=1,0|t1=nan,1|x=lung
prepare scans new --workers 0|-1|x
prepare scans new --archive-gib -1|nan|x
prepare scans new --classes 0|x
prepare scans new --dask x
plan nowhere|empty|empty.txt
plan store --out empty|empty.txt/x|/proc/x
experiment x store new
experiment ablation nowhere|empty new --label bright
experiment ablation store run|store|empty.txt --label bright
experiment ablation store new --label absent|
experiment ablation store new --label bright --seeds 0|x
experiment ablation store new --label bright --variants x||,
experiment ablation store new --label bright --protocol x
report nowhere|empty|empty.txt|store|run/embeddings.parquet
report run --out empty|empty.txt/x|/proc/x|pipe
report run --evaluation nowhere|empty|empty.txt|run
report run --reconstruction nowhere|empty|run
dossier nowhere|empty|empty.txt|store|run/embeddings.parquet --out new
dossier run --out store|empty.txt|empty.txt/x|/proc/x|pipe
dossier run --out new --store nowhere|empty|empty.txt|run
download x|CIFAR10 new
download cifar10 empty.txt|empty.txt/x|/proc/x
demo --out empty.txt|empty.txt/x|/proc/x
settings x
doctor x
prepare
nope
"""


def slips(verb):
    """Each line is a command; `a|b` in it is a command for each."""
    for line in SLIPS.strip().splitlines():
        words = line.split(" ")
        if words[0] != verb:
            continue
        at = next((i for i, word in enumerate(words) if "|" in word), None)
        for choice in [None] if at is None else words[at].split("|"):
            yield words if at is None else [*words[:at], choice, *words[at + 1 :]]


LONG = ("pretrain", "plan", "experiment")


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=[pytest.mark.slow] if verb in LONG else [])
        for verb in dict.fromkeys(line.split()[0] for line in SLIPS.strip().splitlines())
    ],
)
def test_a_slip_is_one_line_that_is_no_defect(house, monkeypatch, capsys, tmp_path, verb):
    told = {}
    monkeypatch.setattr("time.sleep", lambda _: None)
    with contextlib.chdir(house):
        os.mkfifo("pipe")
        before = snapshot(house)
        for words in slips(verb):
            words = [str(tmp_path / "new") if word == "new" else word for word in words]
            extra = QUICK if words[0] in ("pretrain", "bench", "experiment") else []
            extra = extra if "--resume" not in words else []
            status, _, err = call(monkeypatch, capsys, words[0], *extra, *words[1:])
            lines = [line for line in err.splitlines() if line.startswith("vitaepp: ")]
            wrong = "defect" in err or "Traceback" in err or "[Errno" in err or ".tmp-" in err
            if wrong or status != 2 or len(lines) != 1:
                told[" ".join(words)] = (status, err[-300:])
            shutil.rmtree(tmp_path / "new", ignore_errors=True)
        os.unlink("pipe")
    assert told == {}
    after = snapshot(house)
    assert {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)} == {"pipe"}


@contextlib.contextmanager
def full_disk(size=20_000):
    """No file can grow beyond `size` bytes: what a full disk is to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "text": ("a.csv", lambda path, x: pd.DataFrame(x).to_csv(path)),
    "parquet": ("a.parquet", lambda path, x: pd.DataFrame(x).to_parquet(path)),
    "torch": ("a.ckpt", lambda path, x: torch.save(torch.from_numpy(x), path)),
    "npz": ("a.npz", lambda path, x: np.savez_compressed(path, a=x)),
    "picture": ("a.png", lambda path, x: Image.fromarray((x * 255).astype(np.uint8)).save(path)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, kind):
    name, write = WRITERS[kind]
    target = tmp_path / name
    target.write_text("old")
    noise = np.random.default_rng(0).random((200, 200))
    with full_disk(), pytest.raises(OSError, match=name) as error, atomic_path(target) as path:
        write(path, noise)
    assert one_line(error.value).startswith(f"{target}: File too large; raise the limit")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert target.read_text() == "old"


def test_scans_and_encoders_meet_a_full_disk_as_other_files_do(house, tmp_path):
    encoder = Encoder.from_pretrained(house / "run")
    voxels = np.random.default_rng(0).random((40, 40, 40)).astype(np.float32)
    with full_disk(), pytest.raises(OSError, match=r"too large.*a\.nii\.gz"):
        write_scan(tmp_path / "a.nii.gz", voxels, np.eye(4))
    with full_disk(), pytest.raises(OSError, match=r"too large.*encoder"):
        encoder.save(tmp_path / "encoder")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("file/a", "{}/file: Not a directory; a file stands where a folder is needed"),
        ("folder", "{}/folder: Is a directory; it is a folder, where a file is needed"),
        ("pipe", "{}/pipe: is a device or a pipe; name a file"),
        ("x" * 300, "File name too long; choose a shorter name"),
        ("/proc/a", "/proc/a: No such file or directory"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place, told, check):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write = check_writable if check else partial(write_text, text="x")
    with pytest.raises(OSError) as error:  # noqa: PT011 - its line is compared below
        write(tmp_path / place)
    assert told.format(tmp_path) in one_line(error.value)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder", "pipe"}


@pytest.mark.parametrize("what", ["last.ckpt", "metrics.csv"])
def test_a_disk_that_fills_up_during_training_leaves_what_was_saved(
    monkeypatch, capsys, tmp_path, what
):
    write_store(tmp_path / "store", 8, size=(16, 16))
    run, saved = tmp_path / "run", []
    save = AtomicCheckpoints.save_checkpoint

    def fill_up(self, checkpoint, path, storage_options=None):
        if saved and what == "last.ckpt":
            with full_disk():
                save(self, checkpoint, path)
        save(self, checkpoint, path)
        saved.append(path.read_bytes())
        if what == "metrics.csv":
            monkeypatch.setattr(History, "write", full)

    def full(self, trainer):
        with atomic_path(self.folder.metrics_file):
            raise OSError(errno.ENOSPC, "No space left on device")

    asked = ["pretrain", tmp_path / "store", run]
    settings = [*QUICK, "--set", "optim.epochs=3", "--set", "trainer.checkpoint_every=0"]
    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpoints, "save_checkpoint", fill_up)
        patch.setattr(History, "write", History.write)
        status, _, err = call(monkeypatch, capsys, *asked, *settings)
        monkeypatch.undo()
    lines = [line for line in err.splitlines() if line.startswith("vitaepp: ")]
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"vitaepp: {run / what}: ")
    assert (run / "last.ckpt").read_bytes() == saved[-1]
    assert not [p for p in run.iterdir() if p.name.startswith(".tmp-")]
    assert call(monkeypatch, capsys, *asked, "--resume")[0] == 0
    assert load_checkpoint(run / "last.ckpt")["epoch"] == 2


def test_help_has_a_short_name_for_every_verb(monkeypatch, capsys):
    for verb in ([], *([c.callback.__name__] for c in cli.app.registered_commands)):
        status, out, _ = call(monkeypatch, capsys, *verb, "-h")
        assert (status, "Usage:" in out, "--help" in out) == (0, True, True)


def test_a_reader_that_goes_away_is_no_error(house):
    code = (
        "import sys; from vitaepp.cli.app import main; sys.argv = ['vitaepp', 'settings']; main()"
    )
    shell = f'set -o pipefail; {sys.executable} -c "{code}" | head -n 1'
    ended = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (ended.stderr, ended.returncode) in (("", 1), ("", 0))
