"""The training loop of the mini backbones: Muon and AdamW, a schedule, checkpoints, a bar.

What a step learns from depends on the seed and the step's number alone, so a training that was
interrupted goes on as if it had not been.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Muon, Optimizer

from lightning_llava.errors import SettingError

WARM_UP = 50
"""Steps."""
DECAY = 0.3
"""Share of the steps over which the learning rates fall to 0, linearly."""
SAVE_EVERY = 100


@dataclass(frozen=True)
class Rates:
    """Peak learning rates."""

    matrices: float = 0.02
    """Muon's, for the matrices of the layers (Jordan et al. 2024)."""
    others: float = 3e-3
    """AdamW's, for embeddings, heads, norms and biases."""


class Learner(Protocol):
    """What is trained."""

    seed: int
    """What its data are drawn from."""

    @property
    def module(self) -> nn.Module:
        """Everything that learns, under fixed names."""
        ...

    def learn(self, step: int) -> float:
        """Add a step's gradients and return its loss."""
        ...

    def scores(self) -> dict[str, float]:
        """Score on held-out scenes."""
        ...


def train(
    learner: Learner, steps: int, rates: Rates, checkpoint: Path, check_every: int
) -> dict[str, float]:
    """Train, from a checkpoint where there is one.

    Args:
        learner: what is trained.
        steps: in all.
        rates: peak learning rates.
        checkpoint: file that is written every 100 steps and at the end.
        check_every: steps from one printing of the scores to the next.

    Returns:
        The scores at the end.

    Raises:
        SettingError: the checkpoint is of another seed, number of steps or rates.
    """
    training = {"seed": learner.seed, "steps": steps, **asdict(rates)}
    optimizers = _optimizers(learner.module, rates)
    done = _load(checkpoint, training, learner.module, optimizers)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("training", total=steps, completed=done)
        if done:
            progress.console.print(f"{checkpoint} goes on behind step {done}", markup=False)
        for step in range(done, steps):
            for optimizer, peak in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = peak * factor(step, steps)
            loss = learner.learn(step)
            clip_grad_norm_(learner.module.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.update(bar, advance=1, description=f"loss {loss:.3f}")
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                _save(checkpoint, training, step + 1, learner.module, optimizers)
            if (step + 1) % check_every == 0:
                shown = "  ".join(f"{k} {v:.3f}" for k, v in learner.scores().items())
                progress.console.print(f"step {step + 1}: loss {loss:.3f}  {shown}")
    return learner.scores()


def factor(step: int, steps: int) -> float:
    """Return the share of the peak rate: up over 50 steps, flat, down over the last 30 %."""
    return min(1.0, (step + 1) / WARM_UP, (steps - step) / (DECAY * steps))


def _optimizers(module: nn.Module, rates: Rates) -> list[tuple[Optimizer, float]]:
    matrices, others = [], []
    for name, parameter in module.named_parameters():
        (matrices if parameter.ndim == 2 and ".layers." in name else others).append(parameter)
    return [
        (Muon(matrices, lr=rates.matrices, weight_decay=0.01, momentum=0.95), rates.matrices),
        (AdamW(others, lr=rates.others, betas=(0.9, 0.98), weight_decay=0.0), rates.others),
    ]


Optimizers = list[tuple[Optimizer, float]]
Training = dict[str, float]
"""What a checkpoint must have been made with: seed, steps, rates."""


def _save(
    checkpoint: Path, training: Training, done: int, module: nn.Module, optimizers: Optimizers
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_suffix(".partial")
    states = [optimizer.state_dict() for optimizer, _ in optimizers]
    state = {"training": training, "done": done, "module": module.state_dict()}
    torch.save({**state, "optimizers": states}, partial)
    partial.replace(checkpoint)


def _load(checkpoint: Path, training: Training, module: nn.Module, optimizers: Optimizers) -> int:
    """Return how many steps a checkpoint has behind it; 0 where there is none."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["training"] != training:
        raise SettingError(
            f"{checkpoint} is of a training with {state['training']}, expected {training}; name "
            "other --checkpoints, or remove the file"
        )
    module.load_state_dict(state["module"])
    for (optimizer, _), saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return state["done"]


def chunks(total: int, size: int) -> Iterator[slice]:
    """Cut a batch into parts whose activations stay in a CPU's caches."""
    for start in range(0, total, size):
        yield slice(start, start + size)
