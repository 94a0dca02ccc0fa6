"""`vitaepp doctor`."""

from __future__ import annotations

from vitaepp.cli.options import AsJson
from vitaepp.cli.program import command, show


@command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine and installation can do; to paste into an issue."""
    from vitaepp.cli.doctor import doctor as run_doctor
    from vitaepp.errors import MissingPackageError

    health = run_doctor()
    show(health, health.to_dict() if as_json else None)
    if health.broken:
        raise MissingPackageError(str(health.broken[0]))
