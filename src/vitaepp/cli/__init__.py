"""The command line: each verb calls one function of the library and holds no logic."""

from vitaepp.cli.app import main

__all__ = ["main"]
