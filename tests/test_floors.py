"""The lists of independent modules in pyproject.toml hold every file that they are about."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Files that the others of their room share, or that choose among them.
SHARED = {
    "losses": {"present"},
    "ingest/layouts": {
        *("cohort", "dicom_series", "dicom_studies", "documents", "left_out", "masks"),
        *("modalities", "names", "pairing", "persons", "series"),
    },
    "ingest/readers": {
        *("arrays", "cifar", "compressed", "detached", "dicom_elements", "dicom_header"),
        *("header", "image", "items", "limits", "npy", "scans", "tar"),
    },
}


@pytest.mark.parametrize("room", SHARED)
def test_every_file_of_a_room_is_independent_or_shared(room):
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    prefix = f"vitaepp.{room.replace('/', '.')}."
    listed = {
        module.removeprefix(prefix)
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["type"] == "independence"
        for module in contract["modules"]
        if module.startswith(prefix)
    }
    files = {path.stem for path in (ROOT / "src" / "vitaepp" / room).glob("*.py")} - {"__init__"}
    assert files == listed | SHARED[room]
