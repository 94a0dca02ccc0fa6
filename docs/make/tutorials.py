"""Runs the tutorials: each page's code, in a folder of its own, with what it printed below it.

    python docs/make/tutorials.py docs/tutorials build/docs/tutorials

A block of `console` holds commands after `$`, a block of `python` is Python, and both see what the
blocks before them left. A command that fails, or an exception, ends the build. A page is run again
only when it, or the library, has changed.
"""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>console|python)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S
)
LOCAL_LINK = re.compile(r"(?<=\]\()(?!https?:|#|[^)\s]*\.md)(?=[^)\s]+\))")


#: Progress, which a terminal shows as a bar, and its last line. Both tell how fast the machine is.
PROGRESS = re.compile(r"^.*: [\d,]+(?: of [\d,]+)? \w+(?:, \d+ s| in [\d.]+ s)\n", re.M)

#: Times inside of other lines.
TIMES = re.compile(r", about [\d:]+ left$| in \d+ s, [\d.]+% of it waiting for data", re.M)


class TutorialError(Exception):
    """A block of a tutorial failed."""


def render(page: Path, work: Path) -> str:
    """Run the code of a page in the folder `work`, and give the page with what it printed.

    Links to files that the code wrote, such as pictures, lead into a folder of the page's name.
    """
    names: dict[str, Any] = {"__name__": "__main__"}

    def run(block: re.Match[str]) -> str:
        code = textwrap.dedent(block["code"])
        if block["kind"] == "console":
            return textwrap.indent(f"```console\n{_commands(code, page)}```", block["indent"])
        printed = _python(code, names, page)
        text = f"```python\n{code}```" + (f"\n\n```text\n{printed}```" if printed else "")
        return textwrap.indent(text, block["indent"])

    work.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(work)
    try:
        text = BLOCK.sub(run, page.read_text(encoding="utf-8"))
    finally:
        os.chdir(before)
    return LOCAL_LINK.sub(f"{page.stem}/", text)


def _commands(code: str, page: Path) -> str:
    lines = []
    for command in re.split(r"^\$ ", code, flags=re.M)[1:]:
        lines.append(f"$ {command.rstrip()}")
        words = shlex.split(command.replace("\\\n", ""))
        status, printed = _vitaepp(words) if words[0] == "vitaepp" else _shell(command)
        if status:
            raise TutorialError(f"{page}: `{command.strip()}` ended with {status}:\n{printed}")
        lines.append(_without_times(printed).rstrip())
    return "\n".join(line for line in lines if line) + "\n"


def _without_times(printed: str) -> str:
    return TIMES.sub("", PROGRESS.sub("", printed))


def _vitaepp(words: list[str]) -> tuple[int, str]:
    """Run a command of the library in this process, as importing torch anew takes seconds."""
    from vitaepp.cli.app import main

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), patch.object(sys, "argv", words):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), printed.getvalue()
    return 0, printed.getvalue()


def _shell(command: str) -> tuple[int, str]:
    done = subprocess.run(
        command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def _python(code: str, names: dict[str, Any], page: Path) -> str:
    """Run Python, and show the value of a last expression as the prompt does."""
    tree = ast.parse(code, str(page))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            exec(compile(tree, str(page), "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), str(page), "eval"), names)
                if value is not None:
                    print(value)
        except Exception as error:
            raise TutorialError(f"{page}: {type(error).__name__}: {error}\n{code}") from error
    text = _without_times(printed.getvalue())
    return text if not text or text.endswith("\n") else text + "\n"


def run_page(page: Path, out: Path) -> str:
    """Render a page into `out`, unless it is there already; the line that says which."""
    result, work, digest = out / page.name, out / page.stem, _digest(page)
    mark = out / f"{page.stem}.sha256"
    if mark.is_file() and mark.read_text() == digest and result.is_file():
        return f"{page.stem}: as it was"
    started = time.monotonic()
    mark.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    result.write_text(render(page.resolve(), work), encoding="utf-8")
    mark.write_text(digest)
    return f"{page.stem}: run in {time.monotonic() - started:.0f} s"


def _digest(page: Path) -> str:
    root = Path(__file__).parents[2]
    digest = hashlib.sha256(page.read_bytes())
    for file in [Path(__file__), *sorted((root / "src").rglob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def main(pages: Path, out: Path) -> None:
    """Run all pages of a folder, as many at once as there are cores."""
    out.mkdir(parents=True, exist_ok=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Each page has one core: small trainings do not gain by more.
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "NO_COLOR": "1"}
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        todo = [pool.submit(run_page, page, out) for page in sorted(pages.glob("*.md"))]
        for done in todo:
            print(done.result(), flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except TutorialError as error:
        sys.exit(str(error))
