"""Weights that exist: checkpoints of others and of own runs, read safely and made to fit."""
