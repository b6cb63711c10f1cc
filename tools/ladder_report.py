"""What the ladder found: how far its rungs agree, its lines, its tables, its file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUNGS = (
    "baseline",
    "by-length",
    "no-recompute",
    "packed",
    "casts",
    "policy",
    "compile",
    "rest",
    "parity",
)
"""From Hugging Face's LLaVA upwards."""
LIMITS = {
    "bf16": {"first_losses": 2e-3, "first_gradient_norms": 0.1},
    "fp32": {"first_losses": 1e-5, "first_gradient_norms": 1e-3},
}
"""How far two rungs may be apart, relatively. In bf16-mixed each may be as far from fp32 as
`models/precision.py` allows: losses by 1e-3, gradients by an angle of cosine 0.999, which is 4.5 %
of their length. fp32 has 1e-7 of rounding, which Adam's first steps make larger: they divide small
gradients by themselves."""


def compare(found: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tell a rung's speed over the first one's, and how far its first steps are from theirs.

    Args:
        found: by the rung.
        earlier: the rungs before it, in the order they ran. The first that has a number is the one
            to compare it with: the baseline, unless it failed.
    """
    result: dict[str, Any] = {}
    every = [*earlier, found]
    if "samples_per_second" in found:
        first = next(other for other in every if "samples_per_second" in other)
        result["ratio"] = found["samples_per_second"] / first["samples_per_second"]
        result["ratio_to"] = first["name"]
    for key in ("first_losses", "first_gradient_norms"):
        if key not in found:
            continue
        first = next(other for other in every if key in other)
        apart = largest_difference(found[key], first[key])
        result[f"{key}_apart"], limit = apart, LIMITS[found["dtype"]][key]
        if not apart <= limit:  # a NaN, too
            result.setdefault("disagrees", []).append(
                f"{key.replace('_', ' ')} are {apart:.1e} from those of {first['name']}, "
                f"relatively; expected at most {limit:.0e}"
            )
    return result


def largest_difference(found: Sequence[float], expected: Sequence[float]) -> float:
    """Return the largest relative difference; infinite where a number is not finite."""
    if len(found) != len(expected) or not all(map(math.isfinite, [*found, *expected])):
        return math.inf
    return max(
        abs(a - b) / abs(b) if b else (math.inf if a else 0.0)
        for a, b in zip(found, expected, strict=True)
    )


def line_of(found: dict[str, Any]) -> str:
    """Say in a line how a rung went."""
    name, parts = found["name"], complaints_of(found)
    if "samples_per_second" in found:
        parts.append(
            f"{found['samples_per_second']:.2f} samples/s, {found['mfu_matmul']:.1%} of the "
            f"matmul, {found['peak_memory_gb']:.1f} GB, attention {found['attention']}, "
            f"checkpointing {found['checkpointing']}"
        )
    seconds = f"{found['wall_s']} s in all" if "wall_s" in found else ""
    return f"{name}: " + "; ".join(filter(None, [*parts, seconds]))


def complaints_of(found: dict[str, Any]) -> list[str]:
    """Say why a rung's numbers are missing or not to be trusted."""
    failed = [found["error"]] if "error" in found else []
    return failed + [f"DISAGREES: {what}" for what in found.get("disagrees", [])]


def write(path: Path, report: dict[str, Any]) -> None:
    """Replace the file by a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    beside.replace(path)


COLUMNS = {
    "batch": ("batch", "{}"),
    "fill": ("fill", "{:.0%}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "samples_per_second": ("samples/s", "{:.2f}"),
    "tflops": ("TFLOP/s", "{:.3g}"),
    "mfu_sheet": ("MFU sheet", "{:.1%}"),
    "mfu_matmul": ("MFU matmul", "{:.1%}"),
    "peak_memory_gb": ("peak GB", "{:.1f}"),
    "mean_first": ("first loss", "{:.4f}"),
    "first_losses_apart": ("apart", "{:.1e}"),
    "first_gradient_norms_apart": ("gradient", "{:.1e}"),
    "hours_per_epoch": ("h/epoch", "{:.1f}"),
    "ratio": ("ratio", "{:.2f}"),
}


def print_tables(rungs: Sequence[dict[str, Any]]) -> None:
    """Print the ladder, the parity checks, and what went wrong."""
    from rich.console import Console

    ordered = sorted(rungs, key=lambda found: RUNGS.index(found["name"]))
    # As wide as it is: into a file or a log, nobody needs it cut.
    console = Console(width=max(Console().width, 190))
    console.print(ladder_table([found for found in ordered if found["name"] != "parity"]))
    for found in ordered:
        if "attention" in found and found["name"] == "parity":
            console.print(parity_table(found))
    for found in ordered:
        for complaint in complaints_of(found):
            console.print(f"{found['name']}: {complaint}", markup=False, highlight=False)


def ladder_table(rungs: Sequence[dict[str, Any]]) -> Any:
    """Lay the rungs below one another; one that is not to be trusted is marked by `!!`."""
    from rich.table import Column, Table

    table = Table(
        "rung",
        *(Column(title, justify="right") for title, _ in COLUMNS.values()),
        caption="tokens without padding; fill: their share of what is computed; TFLOP/s by "
        "models/flops.py, nothing for recomputation; MFU against the data sheet and a matmul in "
        "the same process; first loss: mean of the first optimizer steps, on the same samples in "
        "all rungs; apart, gradient: how far they and their gradients' norms are from "
        "those of the first rung that ran, relatively; epoch: 665,298 "
        "samples; ratio: samples/s to the first rung that ran; !!: see below",
    )
    for found in rungs:
        losses = found.get("first_losses")
        shown = found | ({"mean_first": math.fsum(losses) / len(losses)} if losses else {})
        cells = [
            "–" if shown.get(key) is None else form.format(shown[key])
            for key, (_, form) in COLUMNS.items()
        ]
        mark = "!! " if complaints_of(found) else ""
        table.add_row(mark + found.get("title", found["name"]), *cells)
    return table


def parity_table(found: dict[str, Any]) -> Any:
    """Show the parity checks."""
    from rich.table import Table

    curve = found.get("loss_curve")
    table = Table(
        "attention",
        "largest error in bf16",
        "probe",
        title="against fp32 eager, one sample at a time; as a share of the largest logit",
        caption=curve
        and f"loss over {curve['steps']} steps, bf16-mixed against fp32: at most "
        f"{curve['largest_relative_difference']:.1e} apart, relatively; "
        f"{curve['mean_relative_difference']:.1e} on average",
    )
    for name, facts in found.get("attention", {}).items():
        error = f"{facts['bf16_error']:.1e}" if "bf16_error" in facts else "–"
        table.add_row(name, error, facts.get("probe") or facts.get("not_run") or "–")
    return table
