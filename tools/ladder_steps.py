"""Training steps as every rung takes them, and what they are counted by."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from ladder_stream import Sizes, padded_batches
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.data.collate import Row
from lightning_llava.models.loss import shifted_targets

FIRST_STEPS = 3
"""Optimizer steps that all rungs take on the same samples, without dropout."""
LEAST_STEPS = 3
"""Timed, however long they take."""


@dataclass(frozen=True)
class Counts:
    """What a batch holds that is wanted, and what is computed for it."""

    lengths: list[int]
    images: int
    supervised: int
    positions: int


@dataclass
class Run:
    """A rung at work."""

    model: nn.Module
    optimizer: AdamW
    device: torch.device
    compute: torch.dtype

    def backward(self, batch: Batch, supervised: int) -> Tensor:
        """Add the gradients of a micro-batch; return its part of the mean loss."""
        with torch.autocast(self.device.type, self.compute, enabled=self.compute != torch.float32):
            loss = self.model(batch).loss / supervised
        loss.backward()
        return loss.detach()

    def step(self) -> None:
        """Update the weights and drop the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()


def make_optimizer(model: nn.Module, rate: float, fused: bool = False) -> AdamW:
    """Build AdamW over what trains; not fused, it is as torch chooses."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return AdamW(trained, lr=rate, weight_decay=0.0, fused=fused or None)


def train(
    run: Run, batches: list[Batch], counts: list[Counts], seconds: float
) -> tuple[list[float], list[float]]:
    """Take a step per batch until the time is over.

    Returns:
        Seconds and mean loss of every step taken.
    """
    begin, marks, losses = time.perf_counter(), [_mark(run.device)], []
    for batch, counted in zip(batches, counts, strict=False):
        losses.append(run.backward(batch, counted.supervised))
        run.step()
        marks.append(_mark(run.device))
        if run.device.type == "cuda":
            marks[-2].synchronize()  # at most one step ahead, so that the clock here is right
        if len(losses) >= LEAST_STEPS and time.perf_counter() - begin > seconds:
            break
    values = [float(loss) for loss in losses]  # waits for the device
    if run.device.type == "cuda":
        marks[-1].synchronize()
        times = [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]
    else:
        times = np.diff(marks).tolist()
    if not all(map(math.isfinite, values)):
        raise RuntimeError(f"the loss is not finite: {values}; expected a finite one")
    return times, values


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def largest_batch(run: Run, rows: Sequence[Row], sizes: Sizes) -> int:
    """Find the largest batch whose longest member in the stream fits, optimizer and all.

    Raises:
        torch.OutOfMemoryError: not even the smallest does.
    """
    for size in sizes.batches:
        batch = max(padded_batches(rows, sizes, size), key=lambda batch: batch.input_ids.numel())
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0  # only its memory is wanted
        try:
            run.backward(to_device(batch, run.device), 1)
            run.step()
        except torch.OutOfMemoryError:
            if size == sizes.batches[-1]:
                raise
        else:
            return size
        # Outside the handler: while it runs, the traceback keeps the activations.
        run.optimizer.zero_grad()
        torch.cuda.empty_cache()
    raise AssertionError("no sizes to try")


def first_steps(
    run: Run, rows: Sequence[Row], arrange: Callable[[Sequence[Row]], list[Batch]], size: int
) -> dict[str, Any]:
    """Take the first optimizer steps over the same samples in every rung's own arrangement.

    Returns:
        Mean loss over supervised tokens and norm of the gradient, for each step.
    """
    losses, norms = [], []
    with without_dropout(run.model):
        for number in range(FIRST_STEPS):
            batches = arrange(rows[number * size : (number + 1) * size])
            supervised = sum(count(batch).supervised for batch in batches)
            parts = [run.backward(to_device(batch, run.device), supervised) for batch in batches]
            gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
            losses.append(float(torch.stack(parts).sum()))
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))
            run.step()
    return {"first_losses": losses, "first_gradient_norms": norms}


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while, in train mode."""
    modules = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    before = [module.p for module in modules]
    for module in modules:
        module.p = 0.0
    try:
        yield
    finally:
        for module, p in zip(modules, before, strict=True):
            module.p = p


def count(batch: Batch) -> Counts:
    """Count a batch that is still on the CPU."""
    if batch.cu_seqlens is not None:
        lengths = batch.cu_seqlens.diff().tolist()
    else:
        assert batch.attention_mask is not None
        lengths = batch.attention_mask.sum(1).tolist()
    learnt = shifted_targets(batch.labels, batch.cu_seqlens) != IGNORE_INDEX
    return Counts(lengths, len(batch.pixel_values), int(learnt.sum()), batch.input_ids.numel())


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy a batch."""
    tensors = {k: v.to(device) for k, v in vars(batch).items() if isinstance(v, Tensor)}
    return replace(batch, **tensors)
