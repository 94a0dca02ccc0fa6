"""A method as Lightning trains it: its optimiser, its schedule, and what is logged."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from vitaepp.data.checkpoints import FORMAT
from vitaepp.data.loading import Batch
from vitaepp.data.store import Store
from vitaepp.data.storeinfo import RGB
from vitaepp.errors import RecipeError, TrainingError
from vitaepp.methods import Method, build_method
from vitaepp.recipe.recipe import Recipe
from vitaepp.system.compat import unscale_before_step
from vitaepp.system.progress import counted, say
from vitaepp.training.sharding import shard
from vitaepp.training.step import build_optimizer, forward_batch
from vitaepp.weights.adapt import initialize_from

#: Advice when losses or weights are not finite. Resuming from the last checkpoint would mostly end
#: in the same way.
CALMER = (
    "start again in another folder with a lower optim.lr, with optim.clip_norm=1, or with "
    "trainer.precision=32"
)

#: Beside the sums of an epoch, how many samples they are over.
SAMPLES = "samples"

#: Before the name of what is watched: the number of samples of which it is defined.
KNOWN = "known/"


class Training(L.LightningModule):
    """Lightning's view of a method: optimiser, schedule, and what is logged.

    Args:
        recipe: every setting.
        store: what is trained on.
        resumed: a checkpoint will replace the initial weights.
        rows: rows of the store to train on; all by default.
        method: what is trained; by default the recipe's, from what `model.init` says.

    Raises:
        RecipeError: settings that do not fit the images or each other.

    Attributes:
        images: fingerprint of the images to train on.
        lengths: each change of the number of epochs: the step before which it was made, and the
            number until then.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        resumed: bool = False,
        rows: Sequence[int] | None = None,
        method: Method | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.modalities = store.info.modalities
        self.image_size = store.info.size
        self.prepared = store.info
        self.images = store.fingerprint(rows)
        self.present = torch.from_numpy(store.present)
        self.method = method or build_method(
            recipe, len(self.modalities), self.image_size, rgb=self.modalities == RGB
        )
        self.seconds_before = 0.0
        self.lengths: list[dict[str, int]] = []
        self._length_before = recipe.optim.epochs
        self._sums: dict[str, Tensor] = {}
        self._samples = 0
        self._store = store
        self._unchecked: list[tuple[list[int], dict[str, Tensor]]] = []
        block, blocks = recipe.model.pool_block, len(self.method.backbone.parts()) - 1
        if block and block > blocks and recipe.model.backbone == "vit" and not (method or resumed):
            raise RecipeError(
                f"model.pool_block={block}: the encoder has {counted(blocks, 'block')}; give at "
                f"most {blocks}"
            )
        if method is None and recipe.model.init and not resumed:
            initialize_from(
                self.method.backbone, recipe.model.init, store.info, recipe.views.normalize
            )
            self.method.backbone_loaded()

    def configure_model(self) -> None:
        """Spread the weights over the devices, where the strategy does so."""
        if self.device_mesh is not None:
            shard(self.method, self.device_mesh["data_parallel"])

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of one batch."""
        images, rows, weight = batch
        total = self.trainer.estimated_stepping_batches
        output = forward_batch(
            self.method,
            batch,
            self.present,
            epoch=self.current_epoch,
            progress=self.global_step / total,
        )
        loss = output.loss
        self._unchecked.append((rows, {k: term.detach() for k, term in output.terms.items()}))
        count = len(images) if weight else 0
        values = {"loss": loss} | {f"loss/{name}": term for name, term in output.terms.items()}
        values |= {f"weighted/{name}": term for name, term in output.weighted.items()}
        # What is watched may be undefined for a batch, which then counts for nothing.
        known = {name: ~value.isnan() for name, value in output.monitors.items()}
        values |= {name: value.where(known[name], 0.0) for name, value in output.monitors.items()}
        values |= {KNOWN + name: value for name, value in known.items()}
        for name, value in values.items():
            # A term may be in half precision, in which a sum would stop growing.
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * count
        self._samples += count
        return loss * weight

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an update by a loss that is not finite.

        Reading a value waits for the device. At this point the whole step has been queued there;
        where the loss is computed, waiting would cost time.

        Raises:
            TrainingError: saying which term.
            StoreError: an image is not finite, so that no loss of it can be.
        """
        steps, self._unchecked = self._unchecked, []
        values = torch.stack([term for _, terms in steps for term in terms.values()])
        if bool(values.isfinite().all()):
            return
        for rows, _ in steps:
            self._store.check_finite(rows)
        for name, value in ((n, v.item()) for _, terms in steps for n, v in terms.items()):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {name} loss is {value} at step {self.global_step} (epoch "
                    f"{self.current_epoch}); {CALMER}"
                )

    def check_weights(self) -> None:
        """Refuse weights that are not finite: an update may spoil them when no loss follows it.

        Raises:
            TrainingError: naming one of them.
        """
        for name, weight in self.method.named_parameters():
            own = weight.detach()
            own = own.to_local() if isinstance(own, DTensor) else own
            if not bool(own.isfinite().all()):
                raise TrainingError(
                    f"{name} is not finite after step {self.global_step} (epoch "
                    f"{self.current_epoch}), and was not saved; {CALMER}"
                )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Change the weights, then let the method do what it does after each step."""
        super().optimizer_step(*args, **kwargs)
        done = self.global_step / self.trainer.estimated_stepping_batches
        self.method.after_step(progress=min(done, 1.0))

    def weighted_terms(self) -> dict[str, float]:
        """Mean of each weighted term in this epoch so far, in this process."""
        terms = {k: v for k, v in self._sums.items() if k.startswith("weighted/")}
        count = max(self._samples, 1)
        return {k.removeprefix("weighted/"): float(v) / count for k, v in terms.items()}

    def epoch_means(self) -> dict[str, float]:
        """Means over the epoch's samples and all processes, NaN of nothing; resets them."""
        sums = self._joint_sums()
        samples = sums.pop(SAMPLES)
        self._sums, self._samples = {}, 0
        return {
            name: (value / sums.get(KNOWN + name, samples)).item()
            for name, value in sums.items()
            if not name.startswith(KNOWN)
        }

    def _joint_sums(self) -> dict[str, Tensor]:
        """Sums of the epoch so far over all processes, and the number of samples."""
        if not self._sums:
            return {}
        own = torch.stack([*self._sums.values()])
        own = torch.cat([own, own.new_tensor([self._samples])])
        joint = self.trainer.strategy.reduce(own, reduce_op="sum")
        return dict(zip([*self._sums, SAMPLES], joint, strict=True))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with linear warm-up and a cosine to 0, step by step."""
        settings = self.recipe.optim
        batch = settings.batch_size * settings.accumulate * self.trainer.world_size
        optimizer = build_optimizer(self.method, images_per_update=batch)
        if settings.clip_norm:
            unscale_before_step(optimizer)
        total = int(self.trainer.estimated_stepping_batches)
        share = 0.04 if settings.warmup_epochs is None else settings.warmup_epochs / settings.epochs
        warmup = (
            round(total * share) if settings.warmup_updates is None else settings.warmup_updates
        )
        warmup = min(warmup, total)
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, warmup, total))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave out VGG's weights, which are not trained, and add the facts of the run."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith("method.perceptual.")]:
            del state[name]
        checkpoint["vitaepp"] = {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            "modalities": list(self.modalities),
            "image_size": list(self.image_size),
            "prepared": asdict(self.prepared),
            "images": self.images,
            "seconds": time.monotonic() - self.started + self.seconds_before,
            "sums": {name: value.cpu() for name, value in self._joint_sums().items()},
            "lengths": self.lengths,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read the facts of the run, and put back the weights that were left out."""
        facts = checkpoint["vitaepp"]
        self.seconds_before = float(facts["seconds"])
        self.lengths = list(facts.get("lengths", ()))
        self._length_before = facts["recipe"]["optim"]["epochs"]
        # The sums are those of all processes together, so only one of them takes them over.
        sums = facts.get("sums")
        if sums and self.trainer.is_global_zero:
            self._sums = {name: value.to(self.device) for name, value in sums.items()}
            self._samples = int(self._sums.pop(SAMPLES))
        # A strategy that shards the weights has put them in place already, and taken them out here.
        if "state_dict" in checkpoint:
            for name, value in self.state_dict().items():
                if name.startswith("method.perceptual."):
                    checkpoint["state_dict"][name] = value

    def on_fit_start(self) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_train_start(self) -> None:
        """Continue with another schedule if the number of epochs has been changed.

        The new learning rate is set here; otherwise the next step would take the checkpoint's.
        """
        before, length = self._length_before, self.recipe.optim.epochs
        if before == length:
            return
        self.lengths = [*self.lengths, {"step": self.global_step, "epochs": before}]
        (config,) = self.trainer.lr_scheduler_configs
        schedule = config.scheduler
        assert isinstance(schedule, LambdaLR)
        old = schedule.get_last_lr()[0]
        new = [
            base * factor(schedule.last_epoch)
            for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(schedule.optimizer.param_groups, new, strict=True):
            group["lr"] = rate
        schedule._last_lr = new
        if self.trainer.is_global_zero:
            say(
                f"{length} epochs instead of {before}: the schedules go on as those of {length}, "
                f"the learning rate from {old:.3g} to {new[0]:.3g}; this is not the same as "
                f"{length} epochs from the start"
            )


def learning_rate_factor(step: int, warmup: int, total: int) -> float:
    """Linear from 0 over `warmup` steps, then half a cosine down to 0 at `total`.

    >>> [round(learning_rate_factor(s, 2, 6), 3) for s in range(7)]
    [0.0, 0.5, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
