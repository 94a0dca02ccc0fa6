"""The parts of a report: each turns what a run holds into what its part of the template shows."""
