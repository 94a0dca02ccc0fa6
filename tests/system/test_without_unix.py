"""The workflow without what only Unix has, without the packages of extras but a report's."""

import signal
import subprocess
import sys

from tests.conftest import LIGHT
from tests.ingest.trees import scan
from vitaepp.data.store import Store

WITHOUT = """
import os, signal, sys

for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("openpyxl", "distributed", "dask", "tensorboard", "ipywidgets"):
    sys.modules[name] = None
own = signal.SIGUSR1
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT"):
    delattr(signal, name)
for name in ("getuid", "sysconf", "sched_getaffinity", "mkfifo"):
    delattr(os, name)
from vitaepp.system.signals import STOPPING
assert STOPPING == (signal.SIGINT, signal.SIGTERM)
signal.SIGUSR1 = own  # Lightning wants it on all systems but Windows
"""

#: Training and what follows need no reader of scans: whoever gets a store has none, perhaps.
WORKFLOW = """
readers = ("SimpleITK", "monai")
sys.modules.update(dict.fromkeys(readers))
import vitaepp
run = vitaepp.pretrain("store", "run", settings={settings!r})
vitaepp.pretrain("store", "run", settings=["optim.epochs=2"], resume=True)
vitaepp.embed(run, "store", "run/embeddings.parquet")
vitaepp.evaluate("run/embeddings.parquet", "bright", "run/evaluation", folds=2)
vitaepp.report("run", "report.html")
for reader in readers:
    del sys.modules[reader]
vitaepp.prepare("scans", "prepared", size=16, workers=1)
"""


def test_the_workflow_needs_neither_unix_nor_extras(make_store, tmp_path):
    make_store(size=(16, 16))
    for i in range(2):
        scan(tmp_path / "scans" / f"p{i}" / f"p{i}_t1.nii.gz", seed=i)
    program = WITHOUT + WORKFLOW.format(settings=[*LIGHT, "optim.epochs=1"])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "run" / "evaluation" / "metrics.json").is_file()
    assert len(Store(tmp_path / "prepared")) == 2


def test_all_signals_that_ask_to_stop_are_taken_where_they_exist():
    from vitaepp.system.signals import STOPPING

    assert set(STOPPING) == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
