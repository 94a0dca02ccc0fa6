"""Processes that are started anew, wherever temporary files lie."""

from __future__ import annotations

import os
import tempfile
from multiprocessing import get_context, util
from multiprocessing.context import SpawnContext
from pathlib import Path

#: Bytes that the path of a socket may have on every system; and those of its name below the folder
#: of temporary files.
LONGEST, OWN = 104, 32

#: Where sockets lie if that folder's path is too long.
SHORT = Path("/tmp")


def spawning() -> SpawnContext:
    """How processes are started that hand over tensors.

    They talk over sockets in a folder below `TMPDIR`. If that path is too long for a socket, as on
    some clusters, a process that reads images can hand none over, and training would wait for it
    for ever. The sockets then lie below `/tmp`.
    """
    if len(os.fsencode(tempfile.gettempdir())) + OWN > LONGEST and os.access(SHORT, os.W_OK):
        before, tempfile.tempdir = tempfile.tempdir, str(SHORT)
        try:
            util.get_temp_dir()  # it is made once, and kept
        finally:
            tempfile.tempdir = before
    return get_context("spawn")
