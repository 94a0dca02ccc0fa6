"""What can go wrong, each with what was found, where, and what would be right.

Every error that a user can cause is a `VitaeppError`; the command line prints its message as one
line and exits with status 2. Anything else that escapes is a defect of this library. Most are also
the built-in error that fits, so that `except ValueError` and `except FileNotFoundError` work.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from typing import ClassVar

_ROOM = "make room, then run the same command again (pretrain: with `resume=True`)"

#: What to do where the system refuses a file; others speak for themselves.
_ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another folder",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "check its permissions, or choose another folder",
    errno.EPERM: "check its permissions, or choose another folder",
    errno.EISDIR: "it is a folder, where a file is needed",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "the disk or the network has failed",
}


#: What pydantic, and Typer with it, say of a value; and what to give instead.
_PLAIN = (
    (r", (unable to parse string as|got) an? [a-z ]*", ""),
    (r"input should be a valid integer", "give a whole number"),
    (r"input should be a (valid|finite) number", "give a number"),
    (r"input should be greater than or equal to", "give at least"),
    (r"input should be less than or equal to", "give at most"),
    (r"input should be greater than", "give more than"),
    (r"input should be", "give"),
    (r"field required", "give one value more"),
)


class VitaeppError(Exception):
    """Base of every error that the user can act on; its message is one line.

    Attributes:
        page: of the documentation that helps with most errors of the kind, or empty; the command
            line names it.
    """

    page: ClassVar[str] = ""


class RecipeError(VitaeppError, ValueError):
    """A setting is unknown, of the wrong type, or does not fit the others."""

    page = "docs/settings.md"


class SourceError(VitaeppError, ValueError):
    """The raw data as a whole cannot be taken in: no known layout, a broken manifest."""

    page = "docs/layouts.md"


class SubjectError(VitaeppError):
    """One subject cannot be prepared; the others go on and this one is named in failures.csv.

    Attributes:
        kind: the reason in words that name neither file nor value, where they are to be counted.
    """

    page = "docs/formats.md"

    def __init__(self, message: str, *, kind: str = "damaged") -> None:
        super().__init__(message)
        self.kind = kind


class StoreError(VitaeppError, ValueError):
    """A store is missing, not one of ours, in use, or does not fit what is asked of it."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at a path."""


class StorageError(VitaeppError):
    """A URL cannot be opened: unknown protocol, a package or access that is missing."""

    page = "docs/scale.md"


class RunError(VitaeppError, ValueError):
    """A run folder or checkpoint is missing, incomplete, or not one of ours."""


class OtherRunError(RunError):
    """A run folder holds a training with another recipe than is asked for.

    The message says what it holds, then, after a semicolon, what to do.
    """


class OtherSubjectsError(OtherRunError):
    """A run folder holds a training on other subjects than are asked for."""


class RunNotFoundError(RunError, FileNotFoundError):
    """There is no run, encoder or checkpoint at a path."""


class ModelError(VitaeppError, ValueError):
    """A fitted model is damaged, of another version, or does not fit what it is asked for."""

    page = "docs/use.md"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """There is no fitted model at a path."""

    page = ""


class WeightsError(VitaeppError, ValueError):
    """A file of weights cannot be had, cannot be read, or does not fit the network."""

    page = "docs/checkpoints.md"


class TrainingError(VitaeppError, RuntimeError):
    """Training cannot go on, for example because a loss term is not finite."""

    page = "docs/plan.md"


class Stopped(VitaeppError):
    """A signal ended the training; all is saved, and `resume=True` goes on."""


class MissingPackageError(VitaeppError, ImportError):
    """A task needs a package that is not installed; the message names the extra that has it."""

    page = "docs/install.md"


class ClusterError(VitaeppError, RuntimeError):
    """A Dask cluster cannot be used: it does not answer, or lacks this library."""

    page = "docs/scale.md"


class EvaluationError(VitaeppError, ValueError):
    """Embeddings or labels do not allow the evaluation that is asked for."""


class EvaluationNotFoundError(EvaluationError, FileNotFoundError):
    """There are no embeddings, or there is no evaluation, at a path."""


def one_line(error: BaseException) -> str:
    """The message of any exception on one line, without its traceback.

    An error of the system becomes the file that it is about, the reason, and what to do.

    >>> one_line(OSError(errno.EROFS, "Read-only file system", "run/last.ckpt"))
    'run/last.ckpt: Read-only file system; choose a folder that can be written to'
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno and error.strerror:
        named = "" if error.filename is None else f"{error.filename}: "
        advice = _ADVICE.get(error.errno)
        text = f"{named}{error.strerror}" + (f"; {advice}" if advice else "")
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def plainly(text: str) -> str:
    """What a checker of values says of a wrong one, in words for people.

    >>> plainly("Input should be a valid integer, unable to parse string as an integer")
    'give a whole number'
    """
    for pattern, plain in _PLAIN:
        text = re.sub(pattern, plain, text, flags=re.IGNORECASE)
    return text


def nearest(name: str, known: Iterable[str], listed: str = "") -> str:
    """A hint naming the known name that is closest to `name`, or all of them if none is.

    Of more names than are read, it says where they are listed, if `listed` tells.

    >>> nearest("optim.epoch", ["optim.epochs", "seed"])
    'did you mean optim.epochs?'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]}?"
    return listed or f"known are {', '.join(names)}"
