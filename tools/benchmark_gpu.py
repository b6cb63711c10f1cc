"""The ladder from Hugging Face's LLaVA to ours on one GPU: `python tools/benchmark.py gpu`."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ladder_report import RUNGS, compare, line_of, print_tables, write

ORDER = (
    "baseline",
    "rest",
    "parity",
    "packed",
    "policy",
    "by-length",
    "no-recompute",
    "casts",
    "compile",
)
"""What is wanted most runs first: the time may be too short for the last."""
PACKAGES = ("torch", "transformers", "peft", "triton", "flash-attn", "liger-kernel")
LEAST_SECONDS = 40
"""A rung is not begun with less time left: to import and to build takes half of it."""
LOG_TAIL = 6000
"""Characters of a rung's output that are kept: where it ran, there may be nobody to ask."""


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
        "--rungs", nargs="+", default=ORDER, choices=RUNGS, metavar="NAME", help=", ".join(ORDER)
    )
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, fp32: a try on a CPU")
    parser.add_argument("--device", help="(default: the GPU, if there is one)")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), help="(default: bf16; tiny: fp32)")
    for name, default, meaning in (
        ("--warmup", 5, "steps that do not count"),
        ("--steps", 20, "steps that do"),
        ("--seconds", 25, "of timed steps at most, three steps at least"),
        ("--limit", 150, "seconds of a rung, building and compiling included"),
        ("--total", 480, "seconds of all"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Climb the ladder and print the tables, of what there is where it is interrupted."""
    end = time.monotonic() + options.total
    rungs: list[dict[str, Any]] = []
    report = {"settings": settings(options), "rungs": rungs}
    print(json.dumps(report["settings"]), flush=True)
    try:
        for name in options.rungs:
            left = end - time.monotonic()
            if left < LEAST_SECONDS:
                why = f"not begun: of {options.total} s {left:.0f} are left"
                found = {"name": name, "error": why}
            else:
                found = run_rung(name, options, scratch, min(options.limit, left))
            rungs.append(found | compare(found, rungs))
            print(line_of(rungs[-1]), flush=True)
            if options.json is not None:
                write(options.json, report)
    finally:
        print_tables(rungs)


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
    """Run one rung in a process of its own; return what it found, up to where it failed."""
    target, log = scratch / f"{name}.json", scratch / f"{name}.log"
    command = [sys.executable, str(Path(__file__).with_name("ladder.py"))]
    command += ["--rung", name, "--json", str(target)]
    for option in ("warmup", "steps", "seconds", "device", "dtype"):
        if (value := getattr(options, option)) is not None:
            command += [f"--{option}", str(value)]
    command += ["--tiny"] if options.tiny else []
    start = time.monotonic()
    status = run_process(command, log, limit)
    found = {"name": name} | read(target)
    output = log.read_text(errors="replace").strip()
    if status is None:
        found["error"] = f"stopped after {limit:.0f} s"
    elif status < 0 or (status and "error" not in found):
        last = output.splitlines()[-1:]
        found["error"] = f"exit status {status}: {' '.join(last)[:300]}"
    return found | {"wall_s": round(time.monotonic() - start, 1), "log": output[-LOG_TAIL:]}


def run_process(command: list[str], log: Path, limit: float) -> int | None:
    """Wait for a process and end it with all its children, at the limit or with this one.

    Returns:
        Its exit status; None where the time was over.
    """
    # Packs differ in length: without segments that grow, the allocator's fragments fill a GPU
    # before the packs do.
    defaults = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1"}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=stream,
                env=defaults | os.environ,
                start_new_session=True,
            )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end_group(process)
    finally:
        signal.signal(signal.SIGTERM, before)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started: inductor's workers may outlive it."""
    with suppress(ProcessLookupError):  # all are gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read(path: Path) -> dict[str, Any]:
    """Read what a rung has written; nothing where it has not come to that."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
