"""What the benchmarks share: two ways of one computation, counted and timed side by side."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.table import Column, Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.activation_memory import counted_saved_bytes
from lightning_llava.models.lora import lora_targets

Outcome = dict[str, Tensor]
"""The loss, under `loss`, and gradients by name."""

MIB = 2**20


@dataclass(frozen=True)
class Step:
    """One way of a computation.

    Args:
        run: computes loss and gradients.
        owner: its parameters and buffers are there anyway, and no memory of the step.
    """

    run: Callable[[], Outcome]
    owner: nn.Module


@dataclass(frozen=True)
class Costs:
    """What one way takes; deterministic but for the peak and the seconds."""

    flops: int
    attention_flops: int
    saved_bytes: int
    peak_bytes: int
    seconds: list[float]
    """Of every round."""


@dataclass(frozen=True)
class Agreement:
    """How far two ways are apart."""

    losses: list[float]
    loss_difference: float
    gradient_difference: float
    """Largest difference in a gradient, relative to the largest number in it."""


def measure(
    module: str, settings: Any, sides: tuple[str, str], rounds: int
) -> tuple[list[Costs], Agreement]:
    """Measure a baseline and ours.

    Args:
        module: has `make_step(settings, side)`.
        settings: a dataclass of numbers and strings, which the module's `SETTINGS` can hold.
        sides: names of the baseline and of ours.
        rounds: timed runs of each, which take turns.
    """
    peaks = [peak_in_child(module, settings, side) for side in sides]
    make: Callable[..., Step] = import_module(module).make_step
    steps = [make(settings, side) for side in sides]
    counted = [count_saved(step) for step in steps]
    agreement = compare(*(outcome for _, outcome in counted))
    flops = [count_flops(step.run) for step in steps]
    seconds = take_turns([step.run for step in steps], rounds)
    rows = zip(flops, counted, peaks, seconds, strict=True)
    return [Costs(*f, saved, peak, times) for f, (saved, _), peak, times in rows], agreement


def count_flops(run: Callable[[], Any]) -> tuple[int, int]:
    """Count the FLOPs of matrix products, and how many of them are attention's.

    torch counts none for its fused attention on a CPU. So attention runs as plain products here, in
    which every query meets every key, those of the future included. They are the only batched ones.
    """
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    batched = {torch.ops.aten.bmm, torch.ops.aten.baddbmm}
    found = counter.get_flop_counts().get("Global", {})
    return counter.get_total_flops(), sum(n for op, n in found.items() if op in batched)


def count_saved(step: Step) -> tuple[int, Outcome]:
    """Count the bytes that a step keeps for its backward pass; return its outcome too."""
    with counted_saved_bytes(step.owner) as count:
        outcome = step.run()
    return count.total, outcome


def compare(baseline: Outcome, ours: Outcome) -> Agreement:
    """Compare losses and gradients of the same names."""
    if baseline.keys() != ours.keys():
        raise SettingError(f"different gradients: {sorted(baseline.keys() ^ ours.keys())[:4]}")
    apart = [
        ((baseline[name] - ours[name]).abs().max() / baseline[name].abs().max()).item()
        for name in baseline
        if name != "loss"
    ]
    losses = [side["loss"].item() for side in (baseline, ours)]
    # torch's maximum lets a NaN through; Python's may lose it.
    return Agreement(losses, abs(losses[0] - losses[1]), torch.tensor(apart).max().item())


def check_agreement(agreement: Agreement, loss: float, gradient: float) -> None:
    """Print no table of ways that compute different things.

    Raises:
        SettingError: a difference larger than the given ones.
    """
    # Not `>`: a NaN is to be refused too.
    if agreement.loss_difference <= loss and agreement.gradient_difference <= gradient:
        return
    raise SettingError(
        f"the two ways disagree: losses {agreement.losses}, gradients apart by "
        f"{agreement.gradient_difference:.1e}; expected at most {loss:.0e} and {gradient:.0e}"
    )


def with_peft(language: PreTrainedModel, **settings: Any) -> Any:
    """Put adapters on all linear layers as peft does by default, in place; return its wrapper."""
    config = LoraConfig(target_modules=lora_targets(language), **settings)
    with warnings.catch_warnings():
        # peft asks transformers for a property by its old name.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=Warning)
        return get_peft_model(language, config)


def take_turns(runs: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Time runs that take turns; return the seconds of all rounds, for each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, times in zip(runs, seconds, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return seconds


def peak_in_child(module: str, settings: Any, side: str) -> int:
    """Return by how many bytes a step lets a fresh process grow.

    Raises:
        SettingError: the process failed.
    """
    command = [sys.executable, __file__, module, json.dumps(asdict(settings)), side]
    # glibc keeps what was freed below a threshold that moves: a peak of its own, by up to half.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SettingError(f"the process for the peak of {side} failed: {done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def peak_of(run: Callable[[], Any]) -> int:
    """Return by how many bytes the resident memory of this process grows at most."""
    before = _resident("VmRSS")
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")  # the high-water mark begins anew
    run()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines[field].split()[0]) * 1024
    # Elsewhere only the largest size so far is known; macOS gives bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def ratios_of(baseline: Costs, ours: Costs) -> dict[str, float]:
    """Divide what the baseline takes by what ours takes; the time is the best of all rounds."""
    return {
        "FLOPs": baseline.flops / ours.flops,
        "saved bytes": baseline.saved_bytes / ours.saved_bytes,
        "peak memory": baseline.peak_bytes / max(1, ours.peak_bytes),
        "time": min(baseline.seconds) / min(ours.seconds),
    }


def costs_table(
    title: str, caption: str, costs: Mapping[str, Costs], goals: Mapping[str, float]
) -> Table:
    """Lay the costs of a baseline and of ours side by side, with their ratios and the goals."""
    heads = (*costs, "ratio", "goal")
    table = Table(
        "", *(Column(head, justify="right") for head in heads), title=title, caption=caption
    )
    baseline, ours = costs.values()
    ratios = ratios_of(baseline, ours)
    for name, key, numbers in (
        ("GFLOP", "FLOPs", [f"{c.flops / 1e9:,.2f}" for c in (baseline, ours)]),
        ("of it attention", "", [f"{c.attention_flops / 1e9:,.2f}" for c in (baseline, ours)]),
        ("MiB saved", "saved bytes", [f"{c.saved_bytes / MIB:,.2f}" for c in (baseline, ours)]),
        ("MiB peak", "peak memory", [f"{c.peak_bytes / MIB:,.1f}" for c in (baseline, ours)]),
        ("seconds", "time", [f"{min(c.seconds):.4f}" for c in (baseline, ours)]),
    ):
        if not key and not baseline.attention_flops:
            continue
        ratio = f"{ratios[key]:.2f}" if key else ""
        goal = f"{goals[key]:g}" if key in goals else ""
        table.add_row(name, *numbers, ratio, goal)
    return table


def ratio_line(name: str, ratios: Mapping[str, float], goals: Mapping[str, float]) -> str:
    """Say all ratios in one line, beside what they are to reach."""
    parts = []
    for key, ratio in ratios.items():
        goal = f" (goal {goals[key]:g}x)" if key in goals else ""
        parts.append(f"{key} {ratio:.2f}x{goal}")
    return f"{name}, baseline over ours: {', '.join(parts)}"


def write_report(path: str | None, report: Mapping[str, Any]) -> None:
    """Write numbers, config and versions as JSON, where a file is given."""
    if path is not None:
        Path(path).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def surroundings(*packages: str) -> dict[str, Any]:
    """Say where, when and with what something was measured."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": [round(load, 2) for load in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "versions": versions(*packages),
    }


def versions(*packages: str) -> str:
    """Name what was measured."""
    installed = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Python {platform.python_version()}, {installed}"


def add_settings(parser: Any, settings: type, meanings: Mapping[str, str], **kinds: Any) -> None:
    """Add an option for each field of a dataclass, for the rounds and for the JSON file.

    Args:
        parser: of the command.
        settings: whose fields have defaults.
        meanings: the help of each field.
        kinds: how fields are read that are not whole numbers above zero; a seed is any number.
    """
    numbers = [(f.name, f.default, meanings[f.name]) for f in fields(settings)]
    for name, default, meaning in (*numbers, ("rounds", 5, "the best one counts")):
        parser.add_argument(
            f"--{name}",
            type={"seed": int, **kinds}.get(name, positive),
            default=default,
            metavar="N",
            help=f"{meaning} (default: %(default)s)",
        )
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")


def positive(text: str) -> int:
    """Read a number for a command line; anything but a whole one above zero is an error there."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"found {text!r}; expected a whole number above zero")
    return int(text)


def _child(module: str, settings: str, side: str) -> None:
    made = import_module(module)
    step: Step = made.make_step(made.SETTINGS(**json.loads(settings)), side)
    print(peak_of(step.run))


if __name__ == "__main__":
    _child(*sys.argv[1:])
