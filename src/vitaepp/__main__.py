"""`python -m vitaepp` is the command `vitaepp`."""

from vitaepp.cli import main

main()
