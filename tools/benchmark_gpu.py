"""The ladder from Hugging Face's LLaVA to ours on one GPU: `python tools/benchmark.py gpu`."""

import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from argparse import Namespace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RUNGS = (
    "baseline",
    "no-recompute",
    "packed",
    "casts",
    "policy",
    "compile",
    "rest",
    "parity",
    "by-length",
)
"""In the order they run; the last is the first that the time may be too short for."""
PACKAGES = ("torch", "transformers", "peft", "triton", "flash-attn", "liger-kernel")
LEAST_SECONDS = 20
"""A rung is not begun with less time left."""


def add_gpu_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "gpu",
        help="training steps of a random 7B LLaVA, from Hugging Face's to ours, lever by lever",
        description="Each rung is a process of its own; one that fails is listed with its reason. "
        "Weights are drawn on the device: nothing is downloaded.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="results, after every rung")
    parser.add_argument(
        "--rungs", nargs="+", default=RUNGS, choices=RUNGS, metavar="NAME", help=", ".join(RUNGS)
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, fp32: a try on a CPU")
    parser.add_argument("--device", help="(default: the GPU, if there is one)")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="(default: bf16; tiny: fp32)")
    for name, default, meaning in (
        ("--warmup", 5, "steps that do not count"),
        ("--steps", 20, "steps that do"),
        ("--seconds", 25, "of timed steps at most, three steps at least"),
        ("--limit", 120, "seconds of a rung, building and compiling included"),
        ("--total", 480, "seconds of all"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Climb the ladder and print the tables."""
    end = time.monotonic() + options.total
    report = {"settings": settings(options), "rungs": []}
    print(json.dumps(report["settings"]), flush=True)
    for name in options.rungs:
        left = end - time.monotonic()
        if left < LEAST_SECONDS:
            found = {"name": name, "error": f"not begun: of {options.total} s {left:.0f} are left"}
        else:
            found = run_rung(name, options, scratch, min(options.limit, left))
        report["rungs"].append(found)
        compare(report["rungs"])
        print(line_of(found), flush=True)
        if options.json is not None:
            write(options.json, report)
    print_tables(report["rungs"])


def settings(options: Namespace) -> dict[str, Any]:
    """Say what is measured, by what, where and when."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    asked = {k: str(v) for k, v in vars(options).items() if k not in ("run", "command", "json")}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": installed,
        "options": asked,
    }


def run_rung(name: str, options: Namespace, scratch: Path, limit: float) -> dict[str, Any]:
    """Run one rung in a process of its own, and end it with all its children at the limit."""
    target, log = scratch / f"{name}.json", scratch / f"{name}.log"
    command = [sys.executable, str(Path(__file__).with_name("ladder.py"))]
    command += ["--rung", name, "--json", str(target)]
    for option in ("warmup", "steps", "seconds", "device", "dtype"):
        if (value := getattr(options, option)) is not None:
            command += [f"--{option}", str(value)]
    command += ["--tiny"] if options.tiny else []
    # Packs differ in length: without it, the allocator's fragments fill a GPU before they do.
    environment = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", **os.environ}
    start, reason = time.monotonic(), None
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # inductor's workers too
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status, reason = 0, f"stopped after {limit:.0f} s"
    found = json.loads(target.read_text()) if target.exists() else {"name": name}
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    if reason is not None:
        found["error"] = reason
    elif status < 0 or (status and "error" not in found):
        found["error"] = f"exit status {status}: {' '.join(last)[:300]}"
    return found | {"wall_s": round(time.monotonic() - start, 1)}


def compare(rungs: list[dict[str, Any]]) -> None:
    """Add to the last rung its speed over the first, and how far its first losses are from it."""
    found, first = rungs[-1], rungs[0]
    if "samples_per_second" in found and "samples_per_second" in first:
        found["ratio"] = found["samples_per_second"] / first["samples_per_second"]
    for key in ("first_losses", "first_gradient_norms"):
        if key in found and key in first:
            pairs = zip(found[key], first[key], strict=True)
            found[f"{key}_apart"] = max(abs(a - b) / abs(b) for a, b in pairs)


def line_of(found: dict[str, Any]) -> str:
    """Say in a line how a rung went."""
    if "error" in found:
        return f"{found['name']}: {found['error']}"
    if "samples_per_second" not in found:
        return f"{found['name']}: done in {found['wall_s']} s"
    return (
        f"{found['name']}: {found['samples_per_second']:.2f} samples/s, "
        f"{found['mfu_matmul']:.1%} of the matmul, {found['peak_memory_gb']:.1f} GB, "
        f"attention {found['attention']}, checkpointing {found['checkpointing']}; "
        f"{found['wall_s']} s in all"
    )


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
    "hours_per_epoch": ("h/epoch", "{:.1f}"),
    "ratio": ("ratio", "{:.2f}"),
}


def print_tables(rungs: list[dict[str, Any]]) -> None:
    """Print the ladder and the parity checks."""
    from rich.console import Console
    from rich.table import Column, Table

    ladder = Table(
        "rung",
        *(Column(title, justify="right") for title, _ in COLUMNS.values()),
        caption="tokens without padding; fill: their share of what is computed; TFLOP/s by "
        "models/flops.py, nothing for recomputation; MFU against the data sheet and a matmul in "
        "the same process; first loss: mean of the first optimizer steps, on the same samples in "
        "all rungs; apart: from the first rung's, relatively; epoch: 665,298 samples; ratio: "
        "samples/s to the first rung",
    )
    checks = [found for found in rungs if found["name"] == "parity"]
    reasons = []
    for found in rungs:
        if "error" in found:
            reasons.append(f"{found['name']}: {found['error']}")
        if found["name"] == "parity":
            continue
        losses = found.get("first_losses")
        shown = found | ({"mean_first": math.fsum(losses) / len(losses)} if losses else {})
        cells = [
            "–" if shown.get(key) is None else form.format(shown[key])
            for key, (_, form) in COLUMNS.items()
        ]
        ladder.add_row(found.get("title", found["name"]), *cells)
    # As wide as it is: into a file or a log, nobody needs it cut.
    console = Console(width=max(Console().width, 170))
    console.print(ladder)
    for found in checks:
        console.print(parity_table(found))
    for reason in reasons:
        console.print(reason, markup=False, highlight=False)


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
