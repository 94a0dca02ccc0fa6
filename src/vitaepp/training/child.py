"""One process of a training that runs in several on this machine."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from vitaepp.errors import Stopped, VitaeppError, one_line
from vitaepp.system.files import read_json, write_json
from vitaepp.system.signals import INTERRUPTED, STOPPED, stoppable
from vitaepp.training.launch import report_file


def main(request: Path) -> int:
    """Call the function that a file names, with the arguments there; report an error beside it.

    Args:
        request: JSON, as `train_in_processes` writes it.

    Returns:
        The exit status of the process.
    """
    _end_with_parent()
    request_values: dict[str, Any] = read_json(request)
    try:
        with stoppable():
            module, _, name = request_values["call"].partition(":")
            getattr(importlib.import_module(module), name)(**request_values["arguments"])
    except KeyboardInterrupt:
        return INTERRUPTED
    except (VitaeppError, OSError) as error:
        kind = type(error).__name__ if isinstance(error, VitaeppError) else "TrainingError"
        report = report_file(request, int(os.environ["RANK"]))
        write_json(report, {"kind": kind, "message": one_line(error)})
        return STOPPED if isinstance(error, Stopped) else 2
    return 0


def _end_with_parent() -> None:
    """On Linux, receive SIGTERM when the process that started this one is killed."""
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
