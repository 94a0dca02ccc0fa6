"""Encoder: the frozen feature extractor that people keep, and embedding a store with it.

Example:
    >>> from vitaepp import Encoder, Store            # doctest: +SKIP
    >>> encoder = Encoder.from_pretrained("run")      # doctest: +SKIP
    >>> features = encoder.embed(Store("store"))      # doctest: +SKIP
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vitaepp.data.checkpoints import load_checkpoint, newest_checkpoint
from vitaepp.data.runfolder import RunFolder
from vitaepp.data.storeinfo import StoreInfo
from vitaepp.encoder.card import model_card
from vitaepp.encoder.config import DAMAGED, EncoderConfig, not_an_encoder
from vitaepp.encoder.fits import check_fits, check_known, check_like, place_channels
from vitaepp.encoder.hub import HUB, from_hub, to_hub
from vitaepp.errors import RunError, RunNotFoundError, one_line
from vitaepp.nn.backbones import Undrawn, build_backbone
from vitaepp.system.devices import autocast, chosen_device
from vitaepp.system.files import atomic_path, write_text
from vitaepp.system.paths import instead_of
from vitaepp.system.progress import counted, track
from vitaepp.system.tensors import write_tensors
from vitaepp.system.text import dimensions
from vitaepp.views.transforms import standardize

if TYPE_CHECKING:  # an encoder loads without what stores and recipes need
    import vitaepp.data.store
    import vitaepp.ingest.new_scans
    import vitaepp.recipe.recipe

#: What to do about a training that has not ended.
GO_ON = "continue it with `pretrain` and `resume`; `embed` alone takes its checkpoint, with `last`"

#: How features are pooled, and after which block: None for the last.
Poolings = Sequence[tuple[str, int | None]]

#: Values that are embedded at a time: what a processor's caches hold is enough for it.
CPU_VALUES, DEVICE_VALUES = 2**20, 2**22


class Encoder(nn.Module):
    """Images to features: normalise, encode every patch, pool.

    Attributes:
        config: what it is and what it expects.
        backbone: the network; fine-tune it as you like.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.backbone, config.shape)

    def __repr__(self) -> str:
        # The layers are told by `backbone`.
        size = dimensions(self.config.shape["image_size"])
        method = self.config.name or self.config.method
        modalities = " ".join(self.config.modalities)
        return (
            f"Encoder({method}, {self.config.backbone}: {modalities} {size} to {self.dim} features)"
        )

    @classmethod
    def untrained(cls, recipe: vitaepp.recipe.recipe.Recipe, info: StoreInfo) -> Encoder:
        """The encoder that training with this recipe starts from: the honest control."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            config = EncoderConfig.of(recipe, info.modalities, info.size)
            return cls(replace(config, method="untrained", name="")).eval()

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Encoder:
        """The encoder in a checkpoint of a training, whether that has ended or not.

        Raises:
            RunError: it is missing, damaged, or not one of ours.
        """
        checkpoint = load_checkpoint(path)
        config, trained = EncoderConfig.of_checkpoint(checkpoint, path), checkpoint["state_dict"]
        with Undrawn():
            encoder = cls(config)
        names = encoder.backbone.state_dict()
        encoder.backbone.load_state_dict({k: trained[f"method.backbone.{k}"] for k in names})
        return encoder.eval()

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], last: bool = False) -> Encoder:
        """Load an encoder from a run folder, or from its `encoder` folder.

        Args:
            path: the folder; or `hf-hub:user/name`, a model of the Hugging Face Hub.
            last: take the last checkpoint of a run, whose training need not have ended.

        Raises:
            RunError: there is none, it is damaged, or the run has been trained on since.
            MissingPackageError: huggingface_hub is not installed, for a model of the Hub.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if os.fspath(path).startswith(HUB):
            path = from_hub(os.fspath(path))
        folder, run = Path(path), None
        if (folder / "recipe.yaml").is_file():
            run = RunFolder(folder)
            folder = run.encoder
        if last:
            checkpoint = None if run is None else newest_checkpoint(run)
            if checkpoint is None:
                raise RunError(
                    f"{path}: has no checkpoint, which a training writes to its run folder; take "
                    "the encoder of an ended training, without `last`"
                )
            return cls.from_checkpoint(checkpoint)
        if run is not None and not folder.is_dir():
            raise RunError(f"{path}: training has not ended; {GO_ON}")
        config_file, weights = folder / "config.json", folder / "model.safetensors"
        if not config_file.is_file() or not weights.is_file():
            raise RunNotFoundError(f"{folder}: {instead_of('run', folder)}")
        config = EncoderConfig.read(config_file)
        try:
            with Undrawn():
                encoder = cls(config)
        except DAMAGED as error:
            raise not_an_encoder(config_file, error) from None
        if run is not None and not run.has_ended():
            epochs = counted(encoder.config.epochs or 0, "epoch")
            raise RunError(
                f"{path}: its encoder is of {epochs}, but training goes on to {run.epochs()} "
                f"since, and has not ended; {GO_ON}, or that of {epochs} from {folder}"
            )
        try:
            encoder.backbone.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise RunError(f"{weights}: does not fit its config.json: {one_line(error)}") from None
        return encoder.eval()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` and `model.safetensors`, as one folder, whole or not at all."""
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            write_tensors(temporary / "model.safetensors", self.backbone.state_dict())
            self.config.write(temporary / "config.json")

    def save_pretrained(
        self, folder: str | os.PathLike[str], evaluation: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the encoder with a model card (`README.md`), as models of the Hub have it.

        Args:
            folder: to make; `from_pretrained` loads it.
            evaluation: of its features, as `vitaepp.evaluate` returns it; the card shows it.
        """
        self.save(folder)
        write_text(Path(folder) / "README.md", model_card(self.config, self.dim, evaluation))
        return Path(folder)

    def push_to_hub(
        self,
        name: str,
        evaluation: Mapping[str, Any] | None = None,
        *,
        private: bool = True,
        token: str | None = None,
    ) -> str:
        """Upload the encoder with its model card to the Hugging Face Hub.

        Args:
            name: `user/name`; it is made where it is not there.
            evaluation: as in `save_pretrained`.
            private: a new model is seen by you alone.
            token: of the Hub; the one that you logged in with by default.

        Returns:
            Where it is.

        Raises:
            RunError: the Hub refuses it, or cannot be reached.
            MissingPackageError: huggingface_hub is not installed.
        """
        with TemporaryDirectory(prefix="vitaepp-") as scratch:
            folder = self.save_pretrained(Path(scratch) / "encoder", evaluation)
            return to_hub(folder, name, private=private, token=token)

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.backbone.width(self.config.pool)

    def forward(
        self,
        images: Shaped[Tensor, "batch channel *space"],
        modalities: Sequence[str] | None = None,
        poolings: Poolings | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Features of images with intensities in [0, 255].

        Args:
            images: a modality that an image lacks is 0.
            modalities: what the channels are, any of the encoder's in any order; those that are
                not among them are missing. The encoder's own by default.
            poolings: how features are pooled and after which block, None for the last; those of
                several are joined. The encoder's own by default.

        Raises:
            RunError: a modality that the encoder does not know, or images of another shape than
                it was trained on.
        """
        images = self.standardized(images, modalities)
        if poolings is None:
            return self.backbone.features(images, self.config.pool, self.config.block)
        return torch.cat(self.backbone.several(images, poolings), dim=1)

    def standardized(
        self,
        images: Shaped[Tensor, "batch channel *space"],
        modalities: Sequence[str] | None = None,
    ) -> Float[Tensor, "batch wanted *space"]:
        """Images as the backbone takes them: its channels in order, each z-scored.

        Arguments and errors are those of `forward`.
        """
        config = self.config
        if modalities is not None:
            check_known(config, modalities)
        channels = config.modalities if modalities is None else modalities
        wanted = (len(channels), *config.shape["image_size"])
        fixed = wanted if config.backbone == "vit" else wanted[:1]  # a ResNet takes any size
        if images.ndim != 1 + len(wanted) or tuple(images.shape[1 : 1 + len(fixed)]) != fixed:
            raise RunError(
                f"images of {dimensions(images.shape[1:])}, but the encoder takes "
                f"{dimensions(wanted)} ({', '.join(channels)})"
            )
        images = place_channels(images, channels, config.modalities)
        return standardize(images.float() / 255, config.normalize, config.cohort)

    def embed(
        self,
        store: vitaepp.data.store.Store,
        rows: Sequence[int] | None = None,
        *,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
        task: str = "embedding",
        any_store: bool = False,
        poolings: Poolings | None = None,
    ) -> npt.NDArray[np.float32]:
        """Features of a store's images, `(image, feature)`; the encoder is left as it was.

        Args:
            store: prepared like the one that the encoder was trained on, with any of its
                modalities in any order; those that are not there are missing.
            rows: which images; all by default.
            batch_size: images at a time; chosen by their size by default.
            device: where to compute; an accelerator if there is one by default.
            precision: other than the encoder's own, see `EncoderConfig`. bf16 takes half the time
                of 32, and rounds features by some thousandths.
            task: what progress is called.
            any_store: also where the store was prepared in another way, see `unlike`.
            poolings: other than the encoder's own, see `forward`; the images pass it once for all.

        Raises:
            RunError: the store's images are of another kind, or features are not finite.
            StoreError: because an image is not.
        """
        check_fits(self.config, store)
        check_like(self.config, store, any_store)
        on = chosen_device(device)
        size = batch_size or at_once(on, store.info.shape)
        total = len(store) if rows is None else len(rows)
        batches = track(store.batches(size, rows), task, -(-total // size), unit="batches")
        values = self._features(batches, store.info.modalities, on, precision, poolings)
        if not (finite := np.isfinite(values).all(axis=1)).all():
            embedded = np.arange(len(store)) if rows is None else np.asarray(rows)
            store.check_finite(embedded[~finite].tolist())
            raise RunError(
                f"{store.path}: its features are not finite; the encoder's training must have gone "
                "out of bounds"
            )
        return values

    def embed_files(
        self,
        scans: Sequence[vitaepp.ingest.new_scans.Scan],
        *,
        spacing: vitaepp.ingest.new_scans.Spacing | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Features of scans that are in no store, `(scan, feature)`.

        They are prepared in memory like the images of the encoder's training, by the code of
        `vitaepp.prepare`, so that the features are those of preparing and embedding a store. Where
        the training's crops are centred on masks, a scan without one is centred on its foreground.

        Args:
            scans: one for each subject: the path of a NIfTI file or another that `prepare` reads,
                a picture, or a folder with a subject's DICOM files; a NumPy array; or a mapping of
                modality to path or array, in which `mask` names a mask. With several modalities,
                an array has a first axis of them.
            spacing: voxel size in mm of arrays of 3D scans, or a 4×4 affine. Without an affine
                their axes run to the patient's right, front and head.
            batch_size: images at a time; chosen by their size by default.
            device: where to compute; an accelerator if there is one by default.
            precision: other than the encoder's own, see `EncoderConfig`.

        Raises:
            SourceError: a scan is of another kind than the encoder's, or of several subjects.
            SubjectError: a scan cannot be read.
            RunError: the encoder does not know how its images were prepared.

        Example:
            >>> encoder = Encoder.from_pretrained("run")               # doctest: +SKIP
            >>> encoder.embed_files(["p01.nii.gz", "p02/dicom"])       # doctest: +SKIP
            >>> encoder.embed_files([{"t1": "a.nii.gz", "t2": "b.nii.gz"}])  # doctest: +SKIP
        """
        from vitaepp.ingest.new_scans import one_image, say_decisions

        if isinstance(scans, str | os.PathLike | Mapping):
            raise RunError("embed_files takes a list of scans; put a single one into brackets")
        info = self.image_info()
        decisions = []

        def prepared() -> Iterator[npt.NDArray[Any]]:
            for i, scan in enumerate(track(scans, "embedding", len(scans), unit="scans")):
                image = one_image(info, scan, spacing, f"scan {i}")
                decisions.append(image.decisions)
                yield image.image

        features = self.embed_images(
            prepared(), batch_size=batch_size, device=device, precision=precision
        )
        say_decisions(decisions, len(scans))
        return features

    def embed_images(
        self,
        images: Iterable[npt.NDArray[Any]],
        *,
        modalities: Sequence[str] | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Features of images as a store holds them, `(image, feature)`.

        Args:
            images: `(channel, *space)` each, intensities in [0, 255]; a modality that an image
                lacks is 0. They are taken one batch at a time.
            modalities: what the channels are, as in `forward`; the encoder's own by default.
            batch_size: images at a time; chosen by their size by default.
            device: where to compute; an accelerator if there is one by default.
            precision: other than the encoder's own, see `EncoderConfig`.

        Raises:
            RunError: images of another shape than it was trained on, or features are not finite.
        """
        on = chosen_device(device)
        shape = (len(self.config.modalities), *self.config.shape["image_size"])
        size, rest = batch_size or at_once(on, shape), iter(images)
        batches = iter(lambda: list(islice(rest, size)), [])
        stacked = (np.stack(batch) for batch in batches)
        values = self._features(stacked, modalities, on, precision)
        if not (finite := np.isfinite(values).all(axis=1)).all():
            raise RunError(
                f"features of image {finite.argmin()} are not finite: either it holds NaN or "
                "infinity, or the encoder's training went out of bounds"
            )
        return values

    def image_info(self) -> StoreInfo:
        """What the images are that it takes, and how they are prepared.

        Raises:
            RunError: an older version made it, and did not keep this.
        """
        if self.config.prepared is None:
            raise RunError(
                "the encoder does not tell how the images of its training were prepared, because "
                "an older version made it; prepare a store by hand and embed that"
            )
        return replace(
            self.config.prepared,
            modalities=self.config.modalities,
            size=tuple(self.config.shape["image_size"]),
            masks=None,
        )

    def _features(
        self,
        batches: Iterable[npt.NDArray[Any]],
        modalities: Sequence[str] | None,
        on: torch.device,
        precision: str | None,
        poolings: Poolings | None = None,
    ) -> npt.NDArray[np.float32]:
        features = []
        precision = precision or self.config.precision
        with torch.inference_mode(), autocast(on, precision), self._evaluating(on) as encoder:
            for images in batches:
                shown = torch.from_numpy(images).to(on)
                features.append(encoder(shown, modalities, poolings).float().cpu().numpy())
        return np.concatenate(features) if features else np.empty((0, self.dim), np.float32)

    @contextmanager
    def _evaluating(self, device: torch.device) -> Iterator[Encoder]:
        """This encoder in evaluation mode on a device; the caller's own stays where it is."""
        if next(self.parameters()).device != device:
            yield copy.deepcopy(self).to(device).eval()
            return
        modes = [(module, module.training) for module in self.modules()]
        try:
            yield self.eval()
        finally:
            for module, training in modes:
                module.training = training


def at_once(on: torch.device, shape: Sequence[int]) -> int:
    """How many images of a shape are embedded at a time."""
    return max(1, (CPU_VALUES if on.type == "cpu" else DEVICE_VALUES) // int(np.prod(shape)))
