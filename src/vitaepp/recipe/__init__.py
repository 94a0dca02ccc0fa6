"""Every setting of a run, typed, validated and documented in one place."""
