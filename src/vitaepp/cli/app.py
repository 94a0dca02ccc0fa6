"""The command line: its verbs, and what becomes of errors.

docs/reference/commands.md lists the exit statuses.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from importlib import import_module

import typer

from vitaepp.cli.program import app, spelled
from vitaepp.errors import RecipeError, Stopped, VitaeppError, one_line, plainly
from vitaepp.system.compat import end_reading
from vitaepp.system.progress import messages_on_stderr
from vitaepp.system.signals import INTERRUPTED, STOPPED, TERMINATED, Terminated, terminable
from vitaepp.system.threads import share_the_cores

#: In the order of `--help`.
VERBS = (
    "demo",
    "download",
    "prepare",
    "plan",
    "inspect",
    "pretrain",
    "bench",
    "embed",
    "evaluate",
    "fit",
    "predict",
    "neighbours",
    "qc",
    "finetune",
    "export",
    "audit",
    "compare",
    "reconstruct",
    "explain",
    "experiment",
    "ladder",
    "report",
    "dossier",
    "settings",
    "doctor",
)

for _verb in VERBS:
    import_module(f"vitaepp.cli.verbs.{_verb}")


#: Exit status where nobody reads standard output any more, as of programs that SIGPIPE ends.
UNREAD = 141


class _AsOptions(logging.Filter):
    """Spells arguments as options in the messages that are shown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a message; none is kept back."""
        record.msg, record.args = spelled(record.getMessage()), ()
        return True


def main() -> None:
    """Run the command line."""
    share_the_cores()  # before numpy and torch load their threads
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    messages, spelling = logging.getLogger("vitaepp"), _AsOptions()
    messages.addFilter(spelling)
    try:
        with messages_on_stderr(), terminable():
            status = app(arguments or ["--help"], prog_name="vitaepp", standalone_mode=False)
        if status == INTERRUPTED:  # what newer versions of Typer make of Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):  # older ones turn the one into the other
        _complain("interrupted; run the same command again to go on")
        status = INTERRUPTED
    except Terminated:
        _complain("stopped by SIGTERM; run the same command again to go on")
        status = TERMINATED
    except Stopped as stopped:
        _complain(one_line(stopped))
        status = STOPPED
    except BrokenPipeError:  # whoever read this, as `| head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = UNREAD
    except (VitaeppError, OSError) as error:
        if debug:
            traceback.print_exc()
        _complain(one_line(error) + _page(error))
        status = 2
    except Exception as error:  # of usage, or a defect
        if debug:
            traceback.print_exc()
        # Errors of usage are click's, which newer versions of Typer carry inside themselves.
        usage = getattr(error, "format_message", None)
        if usage is not None:
            context = getattr(error, "ctx", None)
            verb = "vitaepp" if context is None else context.command_path
            _complain(f"{plainly(one_line(Exception(usage())))}; see {verb} --help")
            status = 2
        else:
            _complain(
                f"unexpected {type(error).__name__}: {one_line(error)}; this is a defect of "
                "vitaepp, please report it with what --debug prints"
            )
            status = 3
    finally:
        messages.removeFilter(spelling)
        end_reading()
    sys.exit(status)


def _page(error: Exception) -> str:
    """Where the documentation helps; a message that asks has its answer.

    The page on settings helps where a setting is named; other errors of recipes are about arguments
    and files.
    """
    page, line = getattr(error, "page", ""), one_line(error)
    if not page or line.endswith("?") or "docs/" in line:
        return ""
    if isinstance(error, RecipeError) and not _names_setting(line):
        return ""
    return f"; see {page}"


def _names_setting(line: str) -> bool:
    """Whether a message names a setting, as optim.lr."""
    from vitaepp.recipe.recipe import Recipe

    return re.search(rf"\b({'|'.join(Recipe.model_fields)})\.[\w*]", line) is not None


def _complain(line: str) -> None:
    print(f"vitaepp: {spelled(line)}", file=sys.stderr)
