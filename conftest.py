"""Every test run checks the shapes and types in signatures, doctests included."""

from jaxtyping import install_import_hook

install_import_hook("vitaepp", "beartype.beartype")
