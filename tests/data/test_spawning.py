"""Processes hand over tensors wherever temporary files lie."""

import os
import subprocess
import sys

import pytest

CODE = """
import tempfile
from multiprocessing import util
from multiprocessing.connection import Listener
from vitaepp.data.loading import spawning
before = tempfile.gettempdir()
assert spawning().get_start_method() == "spawn"
assert tempfile.gettempdir() == before
Listener(family="AF_UNIX").close()
print(util.get_temp_dir())
"""


@pytest.mark.skipif(os.name != "posix", reason="sockets have no path elsewhere")
@pytest.mark.parametrize("length", [1, 90])
def test_sockets_lie_where_their_path_fits(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("t") / ("x" * length)
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{folder}/pymp-" if length == 1 else "/tmp/pymp-")
