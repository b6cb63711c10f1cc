"""Speed, use of the device and memory, as curves."""

import math
import sys
import time
from typing import Any

import torch
from jaxtyping import Int
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.devices import Peak, device_peak
from lightning_llava.geometry import VisionGeometry
from lightning_llava.models.flops import FlopCoefficients, flop_coefficients, micro_batch_flops
from lightning_llava.models.loss import shifted_targets


class Meter(Callback):
    """Measure training between two logged optimizer steps; validation does not count.

    Padding, and blanks in the place of samples that could not be read, are no tokens, no samples
    and no FLOPs.

    | scalar | meaning |
    |---|---|
    | `speed/tokens_per_second`, `speed/samples_per_second` | of all ranks together |
    | `speed/tflops` | 10¹² FLOPs a second and device, by `models/flops.py` |
    | `speed/mfu` | share of the device's peak, by `devices.py` |
    | `speed/data_wait` | share of the time between a micro-batch's end and the next one's start |
    | `speed/data_wait_seconds` | the same in seconds per optimizer step |
    | `speed/hours_left` | at the rate since the first logged step, validations and all |
    | `speed/peak_memory_gb` | of this process: of its GPU where it has one |

    Waiting is seen from the CPU: a GPU that is behind works meanwhile, and starves for less. The
    time in which a checkpoint is saved is no waiting. Counts stay on the device until a step is
    logged, so that it is not made to wait in between.
    """

    def __init__(self) -> None:
        self.coefficients: FlopCoefficients | None = None
        self.peak: Peak | None = None
        self._first: tuple[int, float] | None = None
        self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the model, find the device's peak, start the clock."""
        kind = {"bf16": torch.bfloat16, "16": torch.float16}
        dtype = kind.get(str(trainer.precision).split("-")[0], torch.float32)
        self.coefficients = flop_coefficients(pl_module.llava)  # pyright: ignore[reportArgumentType]
        self.peak = device_peak(pl_module.device, dtype)
        rank_zero_info(f"speed: MFU is the share of {self.peak}")
        self._first = None
        self._forget(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again: answering questions is not training."""
        self._forget(trainer.global_step)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take what follows until the next micro-batch for saving, not for waiting."""
        self._ended = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Note how long it took to come."""
        if self._ended is not None:
            self.waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count a micro-batch; log when an optimizer step is complete and due for logging."""
        self._counts.append(sample_counts(batch))
        self._images += batch.pixel_values.shape[0]
        self._projected += projected_images(pl_module.llava.vision_tower.geometry, batch)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
        every = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.global_step == self.step or trainer.global_step % every:
            self._ended = time.perf_counter()
            return
        self._log(trainer, pl_module)
        self._forget(trainer.global_step)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.coefficients is not None
        assert self.peak is not None
        lengths, supervised = torch.cat(self._counts, dim=1).tolist()  # waits for the device
        now, step = time.perf_counter(), trainer.global_step
        real = [n for n, learnt in zip(lengths, supervised, strict=True) if learnt]
        flops = micro_batch_flops(
            self.coefficients, real, self._images, sum(supervised), self._projected
        )
        sums = [sum(real), len(real), flops, self.waited, now - self.start, self.peak.tflops]
        tokens, samples, flops, waited, seconds, peak = _over_ranks(sums, trainer, pl_module.device)
        tflops, world = flops / 1e12 / seconds, trainer.world_size
        # `seconds` and `peak` are sums, too.
        pl_module.log("speed/tokens_per_second", tokens * world / seconds, prog_bar=True)
        pl_module.log("speed/samples_per_second", samples * world / seconds)
        pl_module.log("speed/tflops", tflops)
        pl_module.log("speed/mfu", tflops * world / peak, prog_bar=True)
        pl_module.log("speed/data_wait", waited / seconds, prog_bar=True)
        pl_module.log("speed/data_wait_seconds", waited / world / (step - self.step))
        pl_module.log("speed/peak_memory_gb", peak_memory_gb(pl_module.device))
        left = trainer.estimated_stepping_batches - step
        if math.isfinite(left):
            pl_module.log("speed/hours_left", left * self._pace(step, now) / 3600, prog_bar=True)

    def _pace(self, step: int, now: float) -> float:
        """Return seconds per optimizer step; the first logged ones, slow to start, are left out."""
        if self._first is None:
            self._first = step, now
            return (now - self.start) / (step - self.step)
        first_step, then = self._first
        return (now - then) / (step - first_step)

    def _forget(self, step: int = 0) -> None:
        self._counts: list[Tensor] = []
        self._images, self._projected, self.waited = 0, 0.0, 0.0
        self.step, self.start = step, time.perf_counter()
        self._ended: float | None = self.start


def projected_images(geometry: VisionGeometry, batch: Batch) -> float:
    """Count what reaches the projector, in images; of tiles only what is no padding."""
    if geometry.tiling is None:
        return batch.pixel_values.shape[0]
    features = 0
    for size in batch.image_sizes:
        rows, columns = geometry.tiling.kept(size)
        features += geometry.image_tokens + len(rows) * len(columns)
    return features / geometry.image_tokens


def sample_counts(batch: Batch) -> Int[Tensor, "2 samples"]:
    """Count tokens and supervised positions of every sample, on the batch's device.

    A blank has no supervised positions; a real sample always has some.
    """
    learnt = shifted_targets(batch.labels, batch.cu_seqlens) != IGNORE_INDEX
    if batch.cu_seqlens is None:
        assert batch.attention_mask is not None  # padded rows
        return torch.stack([batch.attention_mask.sum(1), learnt.sum(1)])
    running = torch.nn.functional.pad(learnt[0].cumsum(0), (1, 0))
    return torch.stack([batch.cu_seqlens.diff(), running[batch.cu_seqlens].diff()])


def peak_memory_gb(device: torch.device) -> float:
    """Return this process's peak memory in GB: on the GPU where there is one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "win32":  # no resource module there
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def _over_ranks(values: list[float], trainer: Trainer, device: torch.device) -> list[float]:
    """Add up over all ranks; all must call it."""
    if trainer.world_size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    return trainer.strategy.reduce(total, reduce_op="sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
