"""RunFolder: where a training run keeps what, and what it says when a piece is missing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vitaepp.errors import RunError, RunNotFoundError
from vitaepp.system.files import read_json
from vitaepp.system.paths import instead_of

if TYPE_CHECKING:
    import vitaepp.recipe.recipe


class RunFolder:
    """Paths inside a run folder.

    Raises:
        RunError: with `must_exist`, the folder is missing or holds no run.
    """

    def __init__(self, path: str | os.PathLike[str], must_exist: bool = True) -> None:
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.yaml"
        self.subjects_file = self.path / "subjects.txt"
        self.metrics_file = self.path / "metrics.csv"
        self.summary_file = self.path / "summary.json"
        #: A contact sheet of the store that it was trained on.
        self.pictures = self.path / "prepared.png"
        self.checkpoint = self.path / "last.ckpt"
        self.checkpoint_before = self.path / "previous.ckpt"
        self.encoder = self.path / "encoder"
        #: What training writes; the other steps write the rest, where the user wants it.
        self.of_training = (
            self.recipe_file,
            self.subjects_file,
            self.metrics_file,
            self.summary_file,
            self.pictures,
            self.checkpoint,
            self.checkpoint_before,
            self.encoder,
        )
        if must_exist and not self.recipe_file.is_file():
            raise RunNotFoundError(f"{self.path}: {instead_of('run', self.path)}")

    def recipe(self) -> vitaepp.recipe.recipe.Recipe:
        """The resolved recipe that made this run."""
        from vitaepp.recipe.recipe import Recipe
        from vitaepp.recipe.values import read_mapping, read_text_file

        name = str(self.recipe_file)
        return Recipe.of_run(read_mapping(read_text_file(self.recipe_file), name), name)

    def epochs(self) -> int:
        """The epochs that its recipe asks for, read without the checks of a whole recipe."""
        import yaml

        try:
            recipe = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
            return int(recipe["optim"]["epochs"])
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError):
            return self.recipe().optim.epochs  # which says what is wrong with it

    def subjects(self) -> list[str] | None:
        """The subjects that training was confined to, or None where it was not."""
        if not self.subjects_file.is_file():
            return None
        return read_subjects(self.subjects_file)

    def has_ended(self) -> bool:
        """Whether its encoder is there, and of as many epochs as the recipe says.

        An encoder of an older version does not tell its epochs, and is taken for one.
        """
        epochs = self.encoder_epochs()
        return self.encoder.is_dir() and (epochs is None or epochs == self.epochs())

    def encoder_epochs(self) -> int | None:
        """The epochs after which its encoder was kept; None where that is not known."""
        try:
            config = read_json(self.encoder / "config.json")
            return None if config.get("epochs") is None else int(config["epochs"])
        except (OSError, ValueError, TypeError, AttributeError):
            return None  # whatever is wrong with it, its reader says


def weights_id(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 of the weights in a run or an encoder folder: whose results are whose.

    Of a run it is the trained encoder's or, before training has ended, the last checkpoint's; None
    where there is neither.
    """
    folder = Path(path)
    names = ["model.safetensors", "encoder/model.safetensors", "last.ckpt"]
    if (folder / "recipe.yaml").is_file() and not RunFolder(folder).has_ended():
        names.remove("encoder/model.safetensors")
    for name in names:
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def read_subjects(path: str | os.PathLike[str]) -> list[str]:
    """Subject keys from a text file, one a line; empty lines and Excel's mark count for nothing.

    Raises:
        RunError: no such file, or not text.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "not a text file" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise RunError(f"{path}: {why}; a list of subjects is a text file, one a line") from None
    return [line.strip() for line in lines if line.strip()]
