"""Data sets that vitaepp provides: generated phantoms and public downloads."""
