"""The command line, as its own tests have it."""

from tests.cli.conftest import vitaepp as command  # noqa: F401
