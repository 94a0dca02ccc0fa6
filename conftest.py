"""Every test run checks the shapes and types in signatures, doctests included."""

import os

from jaxtyping import install_import_hook

# Trainings that are compared bit for bit need as many threads each, whatever else runs here.
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

install_import_hook("vitaepp", "beartype.beartype")
