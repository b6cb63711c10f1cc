"""Speed and memory, as curves."""

import sys
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lightning_llava.batch import Batch


class Meter(Callback):
    """Log tokens, samples and memory per optimizer step; neither padding nor validation counts."""

    def __init__(self) -> None:
        self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._forget(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again: answering questions is not training."""
        self._forget(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a micro-batch; log when an optimizer step is complete and due for logging."""
        real = (
            batch.input_ids.numel()
            if batch.attention_mask is None
            else int(batch.attention_mask.sum())
        )
        self.tokens += real
        self.samples += len(batch.sample_ids)
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.global_step == self.step or trainer.global_step % every:
            return
        seconds, world = time.perf_counter() - self.start, trainer.world_size
        pl_module.log("speed/tokens_per_second", self.tokens * world / seconds, prog_bar=True)
        pl_module.log("speed/samples_per_second", self.samples * world / seconds)
        pl_module.log("speed/peak_memory_gb", peak_memory_gb(pl_module.device))
        self._forget(trainer.global_step)

    def _forget(self, step: int = 0) -> None:
        self.tokens = self.samples = 0
        self.step, self.start = step, time.perf_counter()


def peak_memory_gb(device: torch.device) -> float:
    """Return this process's peak memory in GB: on the GPU where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":  # no resource module there
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
