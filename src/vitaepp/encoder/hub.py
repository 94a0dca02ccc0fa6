"""Models of the Hugging Face Hub: down and up."""

from __future__ import annotations

import os

from vitaepp.errors import RunError, one_line
from vitaepp.system.extras import require

#: Begins the name of a model of the Hugging Face Hub.
HUB = "hf-hub:"

#: What says which package is missing.
_PACKAGE = ("huggingface_hub", "hub", "the Hugging Face Hub needs")


def from_hub(name: str) -> str:
    """The folder with a model of the Hugging Face Hub, which is downloaded once.

    Raises:
        RunError: the Hub has none, or cannot be reached.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = require(*_PACKAGE)
    repository = name.removeprefix(HUB)
    try:
        wanted = ["config.json", "preprocessor_config.json", "model.safetensors"]
        return str(hub.snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # the Hub's own, of its client, or of the network
        raise RunError(
            f"{name}: cannot be had from the Hub: {one_line(error)}; check the name and the "
            "network, or give a local folder"
        ) from None


def to_hub(folder: str | os.PathLike[str], name: str, *, private: bool, token: str | None) -> str:
    """Upload a folder as a model of the Hugging Face Hub, and say where it is.

    Raises:
        RunError: the Hub refuses it, or cannot be reached.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = require(*_PACKAGE)
    try:
        api = hub.HfApi(token=token)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=os.fspath(folder)))
    except Exception as error:  # the Hub's own, of its client, or of the network
        raise RunError(f"{name}: cannot be uploaded: {one_line(error)}") from None
