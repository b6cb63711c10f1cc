"""The loss stage alone: `python tools/benchmark.py loss`."""

from argparse import Namespace
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import (
    Outcome,
    Step,
    add_settings,
    check_agreement,
    costs_table,
    measure,
    ratio_line,
    ratios_of,
    surroundings,
    write_report,
)
from rich.console import Console
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from lightning_llava.batch import IGNORE_INDEX
from lightning_llava.errors import SettingError
from lightning_llava.models.head import OutputHead
from lightning_llava.models.loss import chunked_cross_entropy, shifted_targets

SIDES: tuple[str, str] = ("all positions", "supervised positions")
GOALS = {"saved bytes": 5.0, "peak memory": 5.0, "time": 6.0}
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
CAPTION = (
    "hidden states to mean cross entropy and its gradient, fp32, frozen head; all positions: "
    "projection, logits.float() and transformers' own ForCausalLMLoss; MiB saved: for the backward "
    "pass; MiB peak: by which a process of its own grows; seconds: the best of all rounds, which "
    "take turns"
)


@dataclass(frozen=True)
class LossSettings:
    """What is measured; `supervised` in per cent of the positions."""

    positions: int = 2048
    hidden: int = 1024
    vocabulary: int = 32_000
    supervised: int = 12
    seed: int = 0


SETTINGS = LossSettings
MEANINGS = {
    "positions": "tokens of the row",
    "hidden": "width of the hidden states",
    "vocabulary": "logits per position",
    "supervised": "per cent of the positions whose next token is learnt",
    "seed": "of states, weights and labels",
}


def add_loss_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser = commands.add_parser("loss", help="the output head and the loss: memory and time")
    add_settings(parser, LossSettings, MEANINGS)
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Print the table, and the ratios in the last line.

    Raises:
        SettingError: both ways do not give the same loss and gradients.
    """
    settings = LossSettings(**{f.name: getattr(options, f.name) for f in fields(LossSettings)})
    costs, agreement = measure("benchmark_loss", settings, SIDES, options.rounds)
    check_agreement(agreement, LOSS_TOLERANCE, GRADIENT_TOLERANCE)
    about, ratios = surroundings("torch", "transformers"), ratios_of(*costs)
    table = costs_table(str(settings), CAPTION, dict(zip(SIDES, costs, strict=True)), GOALS)
    Console().print(table)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"losses {agreement.losses[0]:.7f} and {agreement.losses[1]:.7f}; gradients apart by at "
        f"most {agreement.gradient_difference:.1e} of their largest number"
    )
    named = {side: asdict(cost) for side, cost in zip(SIDES, costs, strict=True)}
    report = {"config": asdict(settings) | {"rounds": options.rounds}} | about
    report |= {"costs": named, "ratios": ratios, "goals": GOALS, "agreement": asdict(agreement)}
    write_report(options.json, report)
    print(ratio_line("loss", ratios, GOALS))


def make_step(settings: LossSettings, side: str) -> Step:
    """Build one way; both get the same numbers.

    Raises:
        SettingError: no or more supervised positions than there are targets.
    """
    head, states, labels = make_inputs(settings)
    vocabulary = settings.vocabulary

    def all_positions() -> Tensor:
        return ForCausalLMLoss(head(states), labels, vocabulary)

    def supervised_positions() -> Tensor:
        # As `Llava.forward` ends.
        targets = shifted_targets(labels)
        supervised = targets != IGNORE_INDEX
        summed = chunked_cross_entropy(
            states[supervised], targets[supervised], partial(OutputHead().logits, head), vocabulary
        )
        return summed / supervised.sum()

    compute = dict(zip(SIDES, (all_positions, supervised_positions), strict=True))[side]

    def step() -> Outcome:
        states.grad = None
        loss = compute()
        loss.backward()
        assert states.grad is not None
        return {"loss": loss.detach(), "hidden states": states.grad}

    return Step(step, head)


def make_inputs(settings: LossSettings) -> tuple[nn.Linear, Tensor, Tensor]:
    """Make a frozen head, hidden states (1, positions, width) and labels (1, positions)."""
    generator = torch.Generator().manual_seed(settings.seed)
    # The first label is nobody's next token.
    places = settings.positions - 1
    number = round(settings.positions * settings.supervised / 100)
    if not 0 < number <= places:
        raise SettingError(
            f"--supervised: {number} of {settings.positions} positions; expected 1 to {places}"
        )
    head = nn.Linear(settings.hidden, settings.vocabulary, bias=False).requires_grad_(False)
    head.weight.normal_(std=settings.hidden**-0.5, generator=generator)
    states = torch.randn(1, settings.positions, settings.hidden, generator=generator)
    chosen = 1 + torch.randperm(places, generator=generator)[:number]
    labels = torch.full((1, settings.positions), IGNORE_INDEX)
    labels[0, chosen] = torch.randint(settings.vocabulary, (number,), generator=generator)
    return head, states.requires_grad_(), labels
