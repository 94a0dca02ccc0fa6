"""Data sets that one can get: phantoms, and downloads."""
