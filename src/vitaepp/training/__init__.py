"""Pre-training under Lightning: recipe and store in, run folder out."""
