"""Several processes, or several steps, train to what one step on the joint batch trains to."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from tests.conftest import TINY
from tests.processes import Forked, command
from tests.training.processes import train
from vitaepp.data.checkpoints import load_checkpoint
from vitaepp.data.store import Store
from vitaepp.encoder.model import Encoder
from vitaepp.errors import RecipeError, RunError
from vitaepp.recipe.recipe import Recipe
from vitaepp.training import child, launch
from vitaepp.training.pretrain import pretrain

#: In joint batches of four, the last has three: two for one process, one for the other.
SUBJECTS = 11

PLAIN = (*TINY, "optim.epochs=2", "trainer.precision=32", "optim.base_lr=0.01")
HEADS = (
    "simsiam.projection_dim=32",
    "simsiam.prediction_dim=16",
    "mocov3.hidden_dim=32",
    "mocov3.projection_dim=16",
)
METHODS = {
    "vitae++": ("method=vitae++",),
    "vitae": ("method=vitae",),
    "simsiam": ("method=simsiam", *HEADS),
    "mocov3": ("method=mocov3", *HEADS),
}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "last.ckpt")["state_dict"]


def assert_same_training(run: Path, other: Path) -> None:
    """Weights moved by 5e-4, and in both to the same place but for float32's rounding."""
    found, expected = weights(run), weights(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=5e-6, msg=name)
    drop = ["seconds", "waiting", "feature_spread"]
    first, second = (
        pd.read_csv(r / "metrics.csv").drop(columns=drop, errors="ignore") for r in (run, other)
    )
    pd.testing.assert_frame_equal(first, second, rtol=1e-3, atol=1e-4)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


#: For each of several processes.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path} | ONE_THREAD


def torchrun(requests: list[dict], file: Path) -> str:
    """What two processes under torchrun say of these trainings."""
    file.write_text(json.dumps(requests))
    launcher = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, Path(__file__).with_name("processes.py"), file],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def in_two(function: Callable[..., object], *arguments: object) -> str:
    """What two processes say that are told of each other as torchrun tells them."""
    job = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    job |= {"TORCHELASTIC_RUN_ID": "test"} | ONE_THREAD
    told = []
    for process in [
        Forked(function, *arguments, **job, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]:
        told.append(process.communicate(timeout=240)[1])
        assert process.returncode == 0, told
    return "".join(told)


def request(store: Store, name: str, run: Path, *settings: str) -> dict:
    """A training by a method, as `train` takes it."""
    return {
        "store": str(store.path),
        "run": str(run),
        "settings": [*PLAIN, *METHODS[name], *settings],
    }


SHARED = ("optim.batch_size=2", "trainer.devices=2")


def test_two_processes_train_to_the_weights_of_one(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    one, two, fsdp = tmp_path / "one", tmp_path / "two", tmp_path / "fsdp"
    sharded = [request(store, n, fsdp / n, *SHARED, "trainer.strategy=fsdp") for n in METHODS]
    plain = [request(store, name, two / name, *SHARED) for name in METHODS]
    said = in_two(train, [*plain, *sharded])
    assert said.count("trained 2 epochs") == 2 * len(METHODS)  # one process talks
    train([request(store, name, one / name) for name in METHODS])
    for name in METHODS:
        assert_same_training(two / name, one / name)
        assert_same_training(fsdp / name, one / name)
        assert Encoder.from_pretrained(two / name).embed(store).shape[0] == len(store)


@pytest.mark.slow
def test_torchrun_tells_processes_of_each_other_as_these_tests_do(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    said = torchrun([request(store, "vitae", tmp_path / "two", *SHARED)], tmp_path / "asked.json")
    assert said.count("trained 2 epochs") == 1
    train([request(store, "vitae", tmp_path / "one")])
    assert_same_training(tmp_path / "two", tmp_path / "one")


def test_two_processes_that_die_go_on_in_the_middle_of_an_epoch(make_store, tmp_path):
    store = make_store(subjects=SUBJECTS)
    share = (*SHARED, "optim.clip_norm=1")
    requests = []
    for strategy in ("ddp", "fsdp"):
        own = f"trainer.strategy={strategy}"
        asked = {
            "store": str(store.path),
            "settings": [*PLAIN, *share, own, "trainer.checkpoint_every=0"],
        }
        cut = asked | {"run": str(tmp_path / strategy)}
        requests += [
            asked | {"run": str(tmp_path / f"{strategy}-whole")},
            cut | {"dies_at": 4},
            cut | {"resume": True},
        ]
    assert in_two(train, requests).count("going on after epoch 1 of 2 and 1 of 3 steps") == 2
    for strategy in ("ddp", "fsdp"):
        whole = weights(tmp_path / f"{strategy}-whole")
        for name, value in weights(tmp_path / strategy).items():
            assert torch.equal(value, whole[name]), name


def test_batch_norms_of_two_processes_are_those_of_one(tmp_path):
    """In double precision: a deep ResNet's gradient magnifies rounding by many digits."""
    in_two(_compare_gradients, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        expected = torch.load(tmp_path / "expected.pt")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-8, msg=name)


def _compare_gradients(out: Path) -> None:
    from torch import distributed

    from vitaepp.nn.resnet import ResNet
    from vitaepp.training.batchnorm import join_batch_norms

    def make() -> ResNet:
        torch.manual_seed(0)
        return ResNet("resnet18", 1, (32, 32)).double()

    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    torch.manual_seed(1)
    images, target = torch.rand(5, 1, 32, 32).double(), torch.rand(5, 512).double()
    own = slice(0, 3) if rank == 0 else slice(3, 5)
    joined = join_batch_norms(make(), torch.device("cpu"))
    (joined(images[own]) - target[own]).square().sum().backward()
    found = dict(joined.named_buffers())
    for name, parameter in joined.named_parameters():
        distributed.all_reduce(parameter.grad)
        found[name] = parameter.grad
    torch.save(found, out / f"{rank}.pt")
    if rank == 0:
        alone = make()
        (alone(images) - target).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in alone.named_parameters()}
        torch.save(dict(alone.named_buffers()) | gradients, out / "expected.pt")
    distributed.destroy_process_group()


def test_accumulated_gradients_are_those_of_the_larger_batch(make_store, tmp_path):
    # Eleven images in steps of two: updates of six and of five, the last step with one image.
    store = make_store(subjects=SUBJECTS)
    for name in ("vitae++", "vitae"):
        one, many = tmp_path / name, tmp_path / f"{name}-steps"
        settings = [*PLAIN, *METHODS[name]]
        train(
            [
                {"store": store.path, "run": one, "settings": [*settings, "optim.batch_size=6"]},
                {
                    "store": store.path,
                    "run": many,
                    "settings": [*settings, "optim.batch_size=2", "optim.accumulate=3"],
                },
            ]
        )
        assert_same_training(many, one)


def test_accumulating_dependent_images_is_said_not_to_be_a_larger_batch(
    make_store, tmp_path, capsys
):
    settings = (*PLAIN, *METHODS["simsiam"], "optim.accumulate=2", "optim.epochs=1")
    pretrain(make_store().path, tmp_path / "run", settings=settings)
    assert "not the same as a larger batch" in capsys.readouterr().err


def child_of(*command: str) -> None:
    """What a new interpreter does that `launch` starts."""
    assert command[:-1] == (sys.executable, "-m", "vitaepp.training.child")
    sys.exit(child.main(Path(command[-1])))


@pytest.fixture
def forked_children(monkeypatch):
    """The processes that `launch` starts are forked; test_resuming starts real ones."""
    started = []

    class Child(Forked, subprocess.Popen):
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            super().__init__(child_of, *command, **env)
            started.append(self)

    replaced = SimpleNamespace(Popen=Child, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(launch, "subprocess", replaced)
    yield started
    for child_process in started:
        child_process.close()


def test_two_devices_need_no_launcher_and_errors_come_back(make_store, tmp_path, forked_children):
    store = make_store(subjects=5)
    settings = (*PLAIN, "method=vitae", "trainer.devices=2", "optim.epochs=1")
    run = pretrain(store.path, tmp_path / "run", settings=settings)
    assert Encoder.from_pretrained(run).embed(store).shape[0] == 5
    said = "".join(process.communicate()[1] for process in forked_children)
    assert said.count("trained 1 epoch in") == 1
    with pytest.raises(RunError, match="holds a run already; add `resume=True`"):
        pretrain(store.path, run, settings=settings)


def test_slurm_starts_the_same_command(make_store, tmp_path):
    store = make_store(subjects=5)
    settings = [f"--set={s}" for s in (*PLAIN, "method=vitae", "trainer.devices=2")]
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "node7",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    tasks = [
        command(
            *("pretrain", store.path, tmp_path / "run", *settings),
            **(job | ONE_THREAD | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}),
        )
        for rank in range(2)
    ]
    (out, err), (other_out, other_err) = (task.communicate(timeout=240) for task in tasks)
    assert [task.returncode for task in tasks] == [0, 0], err + other_err
    assert out.strip() == str(tmp_path / "run")
    assert "trained 2 epochs" in err
    assert (other_out, other_err) == ("", "")


@pytest.mark.parametrize(("cores", "devices"), [(1, 2), (2, 2), (64, 64)])
def test_no_more_processes_than_cores_or_gpus_are_started(monkeypatch, cores, devices):
    monkeypatch.setattr(launch, "usable_cores", lambda: cores)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    started = Recipe.load(settings=f"trainer.devices={devices}").trainer
    assert launch.devices_per_node(started, None) == devices
    for more in (devices + 1, 99):
        settings = Recipe.load(settings=f"trainer.devices={more}").trainer
        with pytest.raises(RecipeError, match=f"={more}: this machine has no GPU, and {cores} cor"):
            launch.devices_per_node(settings, None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(RecipeError, match=r"this machine has 1 GPU; leave"):
        launch.devices_per_node(started, None)


def test_what_was_started_must_be_what_the_recipe_asks_for(make_store, tmp_path, monkeypatch):
    store = make_store()
    nodes = (*PLAIN, "trainer.nodes=2")
    with pytest.raises(RecipeError, match=r"trainer\.nodes=2: this process was started alone"):
        pretrain(store.path, tmp_path / "run", settings=nodes)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match=r"trainer\.devices=1 trainer\.nodes=1: 3 processes"):
        pretrain(store.path, tmp_path / "run", settings=PLAIN)
    assert not (tmp_path / "run").exists()
