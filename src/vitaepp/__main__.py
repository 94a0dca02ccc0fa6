"""`python -m vitaepp` is the command `vitaepp`."""

from vitaepp.cli import main

if __name__ == "__main__":
    main()
