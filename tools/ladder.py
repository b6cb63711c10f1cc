"""One rung of `python tools/benchmark.py gpu`, in a process of its own: trains a few steps.

A step is one micro-batch, forward, backward and AdamW: a real run has fewer steps of the optimizer,
so that its share is seen at its largest. Batches lie on the device beforehand.
"""

import statistics
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ladder_models import RUNGS, Rung, build, coefficients
from ladder_parity import check_parity
from ladder_report import write
from ladder_steps import Run, count, first_steps, largest_batch, make_optimizer, to_device, train
from ladder_stream import FULL, TINY, Sizes, make_samples, packed_batches, padded_batches

from lightning_llava.batch import Batch
from lightning_llava.callbacks.meter import peak_memory_gb
from lightning_llava.data.collate import Row
from lightning_llava.devices import device_name, measured_peak, sheet_tflops
from lightning_llava.models.flops import micro_batch_flops

EPOCH = 665_298
"""Samples of mix665k."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rung and write what was found; return 0, or 1 where it failed."""
    parser = ArgumentParser(prog="python tools/ladder.py", description=__doc__)
    parser.add_argument("--rung", required=True, choices=[*RUNGS, "parity"])
    parser.add_argument("--json", required=True, type=Path, metavar="FILE")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    # Replaced at the end; what stands here is left where the process is killed.
    result: dict[str, Any] = {"name": options.rung, "error": "stopped before its end"}
    try:
        for found in _results(options):
            result |= found
            write(options.json, result)
        del result["error"]
    except Exception as error:  # whatever it is, the other rungs go on
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    write(options.json, result)
    return int("error" in result)


def _results(options: Namespace) -> Iterator[dict[str, Any]]:
    device, sizes = torch.device(options.device), TINY if options.tiny else FULL
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    dtype = options.dtype or ("fp32" if options.tiny else "bf16")
    compute = DTYPES[dtype]
    yield {"dtype": dtype, **device_facts(device)}
    if options.rung == "parity":
        yield from check_parity(device, options.tiny)
    else:
        yield from climb(RUNGS[options.rung], sizes, device, compute, options)


def device_facts(device: torch.device) -> dict[str, Any]:
    """Say what it runs on."""
    facts: dict[str, Any] = {"device": device_name(device)}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts |= {"cuda": torch.version.cuda, "free_gb": free / 1e9, "total_gb": total / 1e9}
    return facts


def climb(
    rung: Rung, sizes: Sizes, device: torch.device, compute: torch.dtype, options: Namespace
) -> Iterator[dict[str, Any]]:
    """Yield what is known of a rung, part by part: how it was built, first losses, speed.

    Args:
        rung: what to build.
        sizes: of the model and the samples.
        device: where to.
        compute: type that matrices are multiplied in; fp32 for no autocast.
        options: warmup, steps, seconds and seed.
    """
    rows = make_samples(sizes, options.seed)
    start = time.perf_counter()
    model, facts = build(rung, sizes, device, compute)
    run = Run(model, make_optimizer(model, sizes.rate, rung.rest), device, compute)
    yield {"title": rung.title, **facts, "build_s": time.perf_counter() - start}
    size = sizes.batches[0]
    if not rung.ours and rung.checkpointing == "none":
        size = largest_batch(run, rows, sizes)
        run.optimizer = make_optimizer(model, sizes.rate, rung.rest)

    def arrange(some: Sequence[Row]) -> list[Batch]:
        if rung.ours:
            return packed_batches(some, sizes)
        return padded_batches(some, sizes, size, rung.by_length)

    unit = f"1 x {sizes.pack_tokens} tokens" if rung.ours else f"{size} samples"
    start = time.perf_counter()
    yield {"batch": unit, **first_steps(run, rows, arrange, sizes.batches[0])}
    yield {"first_s": time.perf_counter() - start}
    batches = arrange(rows)
    order = np.random.default_rng(0).permutation(len(batches))
    yield timed_steps(run, [batches[i] for i in order], sizes, options)


def timed_steps(run: Run, batches: list[Batch], sizes: Sizes, options: Namespace) -> dict[str, Any]:
    """Train, and tell speed, use of the device and memory.

    Warm-up ends early after a third of `seconds`, timing after all of them.
    """
    used = list(islice(cycle(batches), options.warmup + options.steps))
    counts = [count(batch) for batch in used]
    used = [to_device(batch, run.device) for batch in used]
    warmup = len(train(run, used[: options.warmup], counts, options.seconds / 3)[0])
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    counts = counts[warmup:]
    times, losses = train(run, used[warmup : warmup + options.steps], counts, options.seconds)
    counts, total = counts[: len(times)], sum(times)
    memory, peak = peak_memory_gb(run.device), measured_peak(run.device, run.compute)
    known = coefficients(sizes)
    flops = sum(micro_batch_flops(known, c.lengths, c.images, c.supervised) for c in counts)
    tokens = sum(sum(c.lengths) for c in counts)
    samples = sum(len(c.lengths) for c in counts)
    tflops = flops / total / 1e12
    sheet = None
    if run.device.type == "cuda":
        sheet = sheet_tflops(device_name(run.device), run.compute)
    return {
        "warmup": warmup,
        "steps": len(times),
        "seconds": total,
        "median_step_s": statistics.median(times),
        "tokens_per_second": tokens / total,
        "samples_per_second": samples / total,
        "fill": tokens / sum(c.positions for c in counts),
        "tokens_per_sample": tokens / samples,
        "tflops": tflops,
        "tflop_per_sample": flops / samples / 1e12,
        "mfu_sheet": tflops / sheet if sheet else None,
        "mfu_matmul": tflops / peak,
        "matmul_tflops": peak,
        "peak_memory_gb": memory,
        "hours_per_epoch": EPOCH / (samples / total) / 3600,
        "mean_loss": statistics.fmean(losses),
    }


if __name__ == "__main__":
    sys.exit(main())
