"""Every test run checks the shapes and types in signatures, doctests included."""

import os
from importlib import import_module

from jaxtyping import install_import_hook

# Trainings that are compared bit for bit need as many threads each, whatever else runs here.
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))

# What a hooked module is first to import is compiled anew, without its bytecode: 15 seconds in all.
for library in ("lightning", "monai", "pandas", "sklearn", "zarr"):
    import_module(library)

install_import_hook("vitaepp", "beartype.beartype")
