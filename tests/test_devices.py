"""Whose peak is known, and what is measured where none is."""

import time

import pytest
import torch

from lightning_llava import devices
from lightning_llava.devices import device_peak, measured_peak, sheet_tflops

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "tflops"),
    [  # names as the drivers give them
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", 70),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA RTX 6000 Ada Generation", 364.2),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_known_devices(name, tflops):
    assert sheet_tflops(name, torch.bfloat16) == tflops
    assert sheet_tflops(name, torch.float16) == tflops
    assert sheet_tflops(name, torch.float32) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("Tesla T4", 65), ("Tesla V100-SXM2-32GB", 125), ("Tesla V100-PCIE-16GB", 112)],
)
def test_devices_older_than_bf16(name, tflops):
    assert sheet_tflops(name, torch.float16) == tflops
    assert sheet_tflops(name, torch.bfloat16) is None


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100X",
        "NVIDIA H300",
        "NVIDIA A1000",
        "NVIDIA",
    ],
)
def test_what_only_resembles_a_known_device_is_unknown(name):
    assert sheet_tflops(name, torch.bfloat16) is None


def test_a_known_gpu_is_not_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    peak = device_peak(torch.device("cuda"), torch.bfloat16)
    assert (peak.tflops, peak.measured) == (121, False)
    assert str(peak) == "121 TFLOP/s (NVIDIA L4, data sheet)"


@pytest.mark.parametrize(("name", "dtype"), [("NVIDIA H300", "bfloat16"), ("Tesla T4", "float32")])
def test_an_unknown_gpu_or_type_is_measured(monkeypatch, name, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(devices, "measured_peak", lambda device, dtype: 7.0)
    peak = device_peak(torch.device("cuda"), getattr(torch, dtype))
    assert str(peak) == f"7 TFLOP/s ({name}, measured)"


def test_the_cpu_is_measured_without_touching_the_random_numbers_of_the_run():
    measured_peak.cache_clear()
    before = torch.get_rng_state()
    peak = device_peak(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert peak.measured
    a, seconds = torch.ones(512, 512), []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    # A wide margin: the machine's other work comes between.
    assert 1 / 10 < peak.tflops / (2 * 512**3 / min(seconds) / 1e12) < 10


def test_sizes_grow_until_the_device_is_busy_and_no_further(monkeypatch):
    """A device of 5 TFLOP/s that takes 20 µs to start: small products tell its latency alone."""
    tried = []

    def fastest(device, dtype, size):
        tried.append(size)
        return 2e-5 + 2 * size**3 / 5e12

    measured_peak.cache_clear()
    monkeypatch.setattr(devices, "_fastest", fastest)
    assert measured_peak(CPU, torch.float32) == pytest.approx(5, rel=0.01)
    assert tried == [256, 512, 1024, 2048, 4096]
    measured_peak.cache_clear()
