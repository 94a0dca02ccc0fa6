"""What a process needs to know to prepare a subject."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from vitaepp.data.masks import naming_ignored
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.ingest.layouts import Kind, SubjectFiles
from vitaepp.recipe.sections import PrepareSettings

#: Part of every checksum: raised when the same files would give other images.
METHOD_VERSION = 3


@dataclass(frozen=True)
class ImageSpec:
    """All that a process needs to know to prepare any subject of a cohort.

    Attributes:
        info: the store's images.
        store: its folder or URL.
        root: folder that recorded paths are relative to.
        kind: how images are read.
        files: modalities to read; a colour picture is one file and three channels.
        secret: by which files have other names in all that is written; None for their own.
        without_masks: subjects that lack the mask to centre on are centred on their foreground;
            else they fail.
        settings: what the user set; the rest of this was made of them.
    """

    info: StoreInfo
    store: Path | str
    root: Path
    kind: Kind
    files: tuple[str, ...]
    secret: bytes | None = field(default=None, repr=False)
    without_masks: bool = False
    settings: PrepareSettings = field(default_factory=PrepareSettings)

    @property
    def digest(self) -> bytes:
        """Digest of every setting that shapes an image."""
        # Options that are unset count as if there were none: subjects that were prepared before
        # there were are still known. Spacing has always been there.
        unset = (None, ())
        info = {k: v for k, v in asdict(self.info).items() if v not in unset or k == "spacing"}
        for of_masks in ("masks", "mask_names"):
            info.pop(of_masks, None)
        shaping = [METHOD_VERSION, info, self.kind, self.files]
        if self.info.center == "mask" and self.info.mask_values is None:
            shaping += naming_ignored(self.info.mask_names)
        return hashlib.sha256(json.dumps(shaping).encode()).digest()


@dataclass(frozen=True, eq=False)
class Task:
    """One subject to prepare.

    Attributes:
        files: where its images are.
        array: its image where that is an item of an array: those are read front to back.
        known: checksums of the image and the mask that the store already holds of it.
    """

    files: SubjectFiles
    array: npt.NDArray[Any] | None
    known: tuple[str, str] | None
