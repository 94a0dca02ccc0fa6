"""The command line: each verb calls one function of the library and holds no logic."""


def main() -> None:
    """Run the command line."""
    # Not above: `vitaepp.doctor` is in this room, and works where Typer does not.
    from vitaepp.cli.app import main as run

    run()


__all__ = ["main"]
