"""How fast a device multiplies matrices at best: what the use that a run makes of it is told by.

The table has the vendors' figures for dense fp16 and bf16 with fp32 accumulation, from the data
sheets and architecture papers of NVIDIA and AMD. Where a sheet shows only the rate "with sparsity",
half of that; a GeForce multiplies half as fast with fp32 accumulation as its headline says.
"""

import re
import time
from dataclasses import dataclass
from functools import lru_cache

import torch

PEAKS: dict[str, float] = {
    # Blackwell
    "b200": 2250,
    "gb200": 2500,
    "rtx 5090": 209.5,
    # Hopper; H200 and H100 have the same cores
    "gh200": 989,
    "h200": 989,
    "h200 nvl": 835.5,
    "h100": 989,
    "h100 nvl": 835.5,
    "h100 pcie": 756,
    "h800": 989,
    "h20": 148,
    # Ada
    "l4": 121,
    "l40": 181,
    "l40s": 362,
    "rtx 4090": 165.2,
    "rtx 6000 ada generation": 364.2,
    # Ampere
    "a100": 312,
    "a800": 312,
    "a40": 149.7,
    "a30": 165,
    "a10": 125,
    "a10g": 70,
    "rtx 3090": 71,
    "rtx 3090 ti": 80,
    "rtx a6000": 154.8,
    # CDNA; an MI250X shows itself as two devices
    "mi325x": 1307,
    "mi300x": 1307,
    "mi250x": 191.5,
    "mi210": 181,
}
"""TFLOP/s by the words of a device's name that matter."""

FP16_PEAKS: dict[str, float] = {
    "v100": 125,
    "v100s": 130,
    "v100 pcie": 112,
    "t4": 65,
    "rtx 2080 ti": 53.8,
}
"""The same of devices whose matrix units know fp16 only: Volta and Turing."""

NAMELESS = re.compile(r"nvidia|amd|tesla|instinct|geforce|oam|sxm\d?|pcie|hbm\d?e?|\d+gb", re.ASCII)
"""Words of a name that do not change the peak, unless the table has them."""


BUDGET_S = 0.6
"""Seconds that a measurement may take."""
PRODUCTS = 3
"""Products of each size, at least: others use the machine too."""


@dataclass(frozen=True)
class Peak:
    """The rate that 100 % stand for, and where it is from."""

    tflops: float
    """10¹² FLOPs per second."""
    device: str
    """Name of the device."""
    measured: bool
    """By a matrix product in this process; else from a data sheet."""

    def __str__(self) -> str:
        source = "measured" if self.measured else "data sheet"
        return f"{self.tflops:.3g} TFLOP/s ({self.device}, {source})"


def device_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Return the peak of a device: the data sheet's for half precision, else a measured one.

    Args:
        device: a GPU, or the CPU with this process's threads.
        dtype: in which a run multiplies matrices.
    """
    name = device_name(device)
    known = sheet_tflops(name, dtype) if device.type == "cuda" else None
    if known is not None:
        return Peak(known, name, measured=False)
    return Peak(measured_peak(device, dtype), name, measured=True)


def device_name(device: torch.device) -> str:
    """Return the vendor's name of a GPU; of other devices, the type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def sheet_tflops(name: str, dtype: torch.dtype) -> float | None:
    """Look a device up in the table, or return None.

    Every word of the name must be accounted for: a slice of an A100 ("MIG 3g.40gb"), a laptop's or
    a "D" model is another device with the same words in its name.
    """
    words = re.split(r"[\s\-]+", name.lower())
    table = {torch.bfloat16: PEAKS, torch.float16: PEAKS | FP16_PEAKS}.get(dtype, {})
    for key in sorted(table, key=len, reverse=True):
        parts = key.split()
        rest = [word for word in words if word not in parts]
        if set(parts) <= set(words) and all(NAMELESS.fullmatch(word) for word in rest):
            return table[key]
    return None


@lru_cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply square matrices of growing size and return the best rate, in TFLOP/s.

    Takes half a second, and on a GPU at most 0.8 GB.
    """
    best, start = 0.0, time.perf_counter()
    for size in (256, 512, 1024, 2048, 4096, 8192):
        seconds = _fastest(device, dtype, size)
        best = max(best, 2 * size**3 / seconds / 1e12)
        spent = time.perf_counter() - start
        if size > 256 and spent + PRODUCTS * 8 * seconds > BUDGET_S:
            break  # the next size takes eight times as long
    return best


def _fastest(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Time the fastest of a few products, in seconds."""
    # A generator of its own: dropout must not depend on whether a device is in the table. Random
    # numbers, because GPUs multiply constants faster.
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in "ab")
    out = a @ b
    times, end = [], time.perf_counter() + 0.04
    while len(times) < PRODUCTS or time.perf_counter() < end:
        _wait(device)
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
