"""Shared by the tests of the command line."""

import sys

import pytest

from vitaepp import cli


@pytest.fixture
def vitaepp(monkeypatch, capsys):
    """Run a command in this process; gives status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitaepp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run
