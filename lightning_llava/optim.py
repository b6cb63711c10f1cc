"""Parameter groups, learning-rate schedule, and what an optimizer step adds up."""

import math
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_llava.errors import SettingError
from lightning_llava.models.build import named_parts
from lightning_llava.models.llava import Llava
from lightning_llava.models.quantization import require_bitsandbytes
from lightning_llava.specs import LearningRates, OptimizerSpec


def build_optimizer(
    model: Llava, rates: LearningRates, spec: OptimizerSpec, unscaled: bool = False
) -> Optimizer:
    """Group the trainable parameters by part, biases and norms apart (they get no weight decay).

    Args:
        model: the composed model.
        rates: peak learning rate per part.
        spec: AdamW's settings.
        unscaled: whether gradients must be true to size before the step, to be clipped or logged.
            The fused kernel divides by the scale of fp16 only in the step.

    Raises:
        SettingError: nothing trains, or bitsandbytes is missing.
    """
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for part, _, parameter in named_parts(model):
        if parameter.requires_grad:
            groups.setdefault((part, parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise SettingError(
            "nothing trains: every entry of model.learning_rate is null; set at least one"
        )
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": asdict(rates)[part],
            "weight_decay": spec.weight_decay if decays else 0.0,
            "name": part if decays else f"{part}_no_decay",
        }
        for (part, decays), parameters in groups.items()
    ]
    if spec.name == "adamw_8bit":
        require_bitsandbytes("model.optimizer.name: adamw_8bit", "adamw")
        adamw_8bit = import_module("bitsandbytes.optim").AdamW8bit
        return adamw_8bit(described, betas=spec.betas, eps=spec.eps)
    fused = (_on_gpu(model) and not unscaled) or None
    return AdamW(described, betas=spec.betas, eps=spec.eps, fused=fused)


def _on_gpu(model: Llava) -> bool:
    return next(model.parameters()).is_cuda


def build_schedule(optimizer: Optimizer, spec: OptimizerSpec, total_steps: int) -> LambdaLR:
    """Build linear warmup, then the decay (transformers: get_cosine_schedule_with_warmup)."""
    warmup = math.ceil(spec.warmup_ratio * total_steps)
    return LambdaLR(
        optimizer, partial(rate_factor, shape=spec.schedule, warmup=warmup, total=total_steps)
    )


def rate_factor(step: int, shape: str, warmup: int, total: int) -> float:
    """Return the share of the peak rate at an optimizer step (0 before the first)."""
    if step < warmup:
        return step / max(1, warmup)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "constant": 1.0,
    }[shape]


class StepSums:
    """Loss and supervised tokens of an optimizer step, over all of its micro-batches."""

    def __init__(self) -> None:
        self._sums: tuple[Tensor, Tensor] | None = None

    def add(self, loss: Tensor, supervised: Tensor) -> None:
        """Add a micro-batch's summed loss and its number of supervised tokens."""
        if self._sums is not None:
            loss, supervised = self._sums[0] + loss, self._sums[1] + supervised
        self._sums = (loss, supervised)

    def take(self, world: int) -> tuple[Tensor, Tensor]:
        """Return both in double precision, of all `world` processes, and begin the next step."""
        assert self._sums is not None
        totals = torch.stack([total.double() for total in self._sums])
        if world > 1:
            dist.all_reduce(totals)
        self._sums = None
        return totals[0], totals[1]
