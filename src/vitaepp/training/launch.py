"""How a training is started: by torchrun or SLURM, or here, one process for each device."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from vitaepp import errors
from vitaepp.data.runfolder import RunFolder
from vitaepp.errors import RecipeError, Stopped, TrainingError, VitaeppError
from vitaepp.recipe.sections import TrainerSettings
from vitaepp.system.files import read_json, write_json
from vitaepp.system.host import usable_cores
from vitaepp.system.progress import counted, same_messages
from vitaepp.system.signals import INTERRUPTED, STOPPED, handled
from vitaepp.system.threads import CHOSEN, WAITING
from vitaepp.training.threads import threads_to_take

#: A machine without accelerator may run this many processes, even with a single core.
SPARE = 2

#: Seconds that the others have to end by themselves after one has failed.
GRACE = 30.0


def find_cluster() -> ClusterEnvironment | None:
    """What started this process as one of several: torchrun, SLURM, LSF or MPI, or None.

    Raises:
        RecipeError: SLURM was asked for tasks in a way that does not say how many a node has.
    """
    if TorchElasticEnvironment.detect():  # first, as torchrun may run inside a SLURM job
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        try:
            # Stopping and saving are ours; the job script asks for the requeue (docs).
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError:
            raise RecipeError(
                f"SLURM started {os.environ['SLURM_NTASKS']} tasks without saying how many on each "
                "node; ask for them with --ntasks-per-node"
            ) from None
    for other in (LSFEnvironment, MPIEnvironment):
        if other.detect():
            return other()
    return None


def is_first_process() -> bool:
    """Whether this is the one process of a training that talks and writes."""
    cluster = find_cluster()
    return cluster is None or cluster.global_rank() == 0


def devices_per_node(settings: TrainerSettings, cluster: ClusterEnvironment | None) -> int:
    """How many processes run on each machine.

    Raises:
        RecipeError: another number was started than the recipe asks for.
    """
    devices = settings.devices
    if cluster is None:
        if settings.nodes > 1:
            raise RecipeError(
                f"trainer.nodes={settings.nodes}: this process was started alone; start it on "
                "every node by torchrun or srun (docs/distributed.md)"
            )
        here = torch.cuda.device_count()
        if devices == "auto":
            return max(here, 1)
        cores = usable_cores()
        if devices > (here or max(cores, SPARE)):
            has = counted(here, "GPU") if here else f"no GPU, and {counted(cores, 'core')} to use"
            raise RecipeError(
                f"trainer.devices={devices}: this machine has {has}; leave the setting out"
            )
        return devices
    started = cluster.world_size()
    count = max(started // settings.nodes, 1) if devices == "auto" else devices
    if count * settings.nodes != started:
        raise RecipeError(
            f"trainer.devices={count} trainer.nodes={settings.nodes}: {started} processes were "
            "started; set both to what torchrun's --nproc-per-node and --nnodes, or SLURM's "
            "--ntasks-per-node and --nodes, say"
        )
    return count


def train_in_processes(
    count: int, call: str, arguments: Mapping[str, Any], folder: RunFolder, resume: bool
) -> None:
    """Call a function that trains in so many new processes on this machine, as torchrun would.

    They are new interpreters that run this module's sibling `child.py`. The caller, for example a
    notebook or an experiment of many runs, waits and goes on alone when they have ended.

    Args:
        count: of processes.
        call: the function, as `module:name`.
        arguments: of the function, as JSON has them.
        folder: of the run.
        resume: go on with it.

    Raises:
        VitaeppError: what the first process to fail raised.
    """
    with tempfile.TemporaryDirectory(prefix="vitaepp-") as scratch:
        request = Path(scratch) / "request.json"
        write_json(request, {"call": call, "arguments": arguments})
        port = _free_port()
        threads = threads_to_take(folder, resume, count)
        children = [_start(request, rank, count, port, threads) for rank in range(count)]

        def pass_on(number: int, _: FrameType | None) -> None:
            for child in children:
                child.send_signal(number)

        with handled(pass_on):
            failed = _wait(children)
        if failed is not None:
            raise _error(failed, children[failed].returncode, count, request)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _start(
    request: Path, rank: int, count: int, port: int, threads: int
) -> subprocess.Popen[bytes]:
    environment = WAITING | {CHOSEN: str(threads)} | os.environ
    environment |= same_messages() | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "vitaepp",
    }
    command = [sys.executable, "-m", "vitaepp.training.child", os.fspath(request)]
    return subprocess.Popen(command, env=environment)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended. When one fails, the others are ended; its index is returned."""
    try:
        while True:
            states = [child.poll() for child in children]
            if any(states) or None not in states:
                return next((i for i, state in enumerate(states) if state), None)
            time.sleep(0.1)
    finally:
        _end(children)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    running = [child for child in children if child.poll() is None]
    for child in running:
        child.terminate()
    deadline = time.monotonic() + GRACE
    for child in running:
        try:
            child.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _error(rank: int, status: int, count: int, request: Path) -> VitaeppError:
    report = report_file(request, rank)
    if report.is_file():
        content = read_json(report)
        kind: type[VitaeppError] = getattr(errors, content["kind"])
        return kind(content["message"])
    if status == STOPPED:
        return Stopped("all processes were stopped; go on with `resume=True`")
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else "failed, see above"
    return TrainingError(
        f"process {rank + 1} of {count} {how}; go on from the last checkpoint with `resume=True`"
    )


def report_file(request: Path, rank: int) -> Path:
    """Where a process says why it failed."""
    return request.with_name(f"{rank}.json")
