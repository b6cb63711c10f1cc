"""The ladder at tiny sizes: its counts by hand, and nothing is lost where a rung fails."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import Row

TOOLS = Path(__file__).parents[2] / "tools"
NOT_ON_EVERY_GPU = ("webdataset", "jsonargparse", "flash_attn", "liger_kernel", "bitsandbytes")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(TOOLS)


@pytest.fixture
def tiny():
    import ladder_stream

    return ladder_stream.TINY


def row(text, image, learnt=2, number=0):
    """Make a sample of so many text tokens, the last of them supervised."""
    ids = np.arange(5, 5 + text)
    labels = np.where(np.arange(text) >= text - learnt, ids, IGNORE_INDEX)
    if image:
        ids, labels = (np.insert(a, 1, v) for a, v in ((ids, IMAGE_TOKEN_INDEX), (labels, -100)))
    return Row(str(number), ids, labels, [torch.zeros(3, 32, 32, dtype=torch.uint8)] * image)


def gpu_options(*arguments):
    import benchmark_gpu

    parser = ArgumentParser()
    benchmark_gpu.add_gpu_command(parser.add_subparsers())
    return parser.parse_args(["gpu", *arguments])


def test_packs_of_the_stream_by_hand(tiny):
    from ladder_steps import Counts, count
    from ladder_stream import length_of, packed_batches

    # 16 features an image: 19, 19, 30 and 10 tokens.
    rows = [row(3, True), row(3, True, 1), row(14, True, 3), row(10, False)]
    assert [length_of(r, tiny) for r in rows] == [19, 19, 30, 10]
    packs = packed_batches(rows, replace(tiny, pack_tokens=40))
    assert [count(pack) for pack in packs] == [
        Counts([30, 10], images=1, supervised=5, positions=40),
        Counts([19, 19], images=2, supervised=3, positions=38),
    ]
    assert packs[0].cu_seqlens.tolist() == [0, 30, 40]


def test_padded_batches_by_hand(tiny):
    from ladder_steps import Counts, count
    from ladder_stream import padded_batches

    rows = [row(3, True), row(4, False), row(14, True, 3), row(10, False)]
    assert [count(batch) for batch in padded_batches(rows, tiny, 2)] == [
        Counts([19, 4], images=1, supervised=4, positions=2 * 19),
        Counts([30, 10], images=1, supervised=5, positions=2 * 30),
    ]
    by_length = [count(batch) for batch in padded_batches(rows, tiny, 3, by_length=True)]
    assert [(c.lengths, c.positions) for c in by_length] == [([4, 10, 19], 3 * 19), ([30], 30)]


def test_stream_is_the_same_for_all_and_like_mix665k():
    from ladder_stream import FULL, length_of, make_samples

    rows, again = make_samples(FULL, 0), make_samples(FULL, 0)
    assert all(np.array_equal(a.input_ids, b.input_ids) for a, b in zip(rows, again, strict=True))
    lengths = [length_of(r, FULL) for r in rows]
    assert 700 < np.mean(lengths) < 850  # 791 is what the projected epoch was computed for
    assert max(lengths) <= FULL.max_length
    assert 0.9 < np.mean([len(r.pixels) for r in rows]) < 0.98
    assert max(r.input_ids.max() for r in rows) < FULL.image_id


def test_flops_of_the_7b_model_by_hand():
    from ladder_models import coefficients
    from ladder_stream import FULL

    found = coefficients(FULL)
    shapes = [(4096, 4096)] * 2 + [(4096, 1024)] * 2 + [(4096, 14336)] * 3
    assert found.forward == found.backward == 2 * 32 * sum(a * b for a, b in shapes)
    assert found.lora == 6 * 32 * 128 * sum(a + b for a, b in shapes)
    assert found.pair == 12 * 4096
    assert found.windows == (None,) * 32
    assert found.head == 4 * 4096 * 32064


# peft asks transformers for a property by its old name.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_every_rung_takes_the_same_first_steps(tiny):
    """Without a process each; `compile` and `rest` follow in the slow test."""
    from ladder_models import RUNGS, build
    from ladder_report import LIMITS, largest_difference
    from ladder_steps import Run, first_steps, make_optimizer
    from ladder_stream import make_samples, packed_batches, padded_batches

    found = {}
    for name in ("baseline", "casts"):
        model, facts = build(RUNGS[name], tiny, CPU, torch.float32)
        assert facts["checkpointing"] == "full"
        run = Run(model, make_optimizer(model, tiny.rate), CPU, torch.float32)
        arrange = packed_batches if RUNGS[name].ours else lambda r, s: padded_batches(r, s, 4)
        rows = make_samples(tiny, 0)
        found[name] = first_steps(run, rows, lambda r, to=arrange: to(r, tiny), 4)
    for key, limit in LIMITS["fp32"].items():
        baseline, ours = found["baseline"][key], found["casts"][key]
        assert largest_difference(ours, baseline) <= limit
        assert len(set(baseline)) == 3
    # Random guesses over 264 tokens, at first.
    assert abs(found["baseline"]["first_losses"][0] - math.log(264)) < 1


class FakeRun:
    """Stands for a model of which a batch of more than `room` positions does not fit."""

    device = CPU

    def __init__(self, room):
        self.room, self.tried = room, []
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}], zero_grad=lambda: None)

    def backward(self, batch, supervised):
        self.tried.append(tuple(batch.input_ids.shape))
        if batch.input_ids.numel() > self.room:
            raise torch.OutOfMemoryError("full")
        return torch.tensor(1.0)

    def step(self):
        pass


def test_largest_batch_is_that_whose_longest_member_fits(tiny):
    from ladder_steps import largest_batch

    rows = [row(10, False)] * 4 + [row(14, True)] + [row(10, False)] * 3
    run = FakeRun(room=60)
    assert largest_batch(run, rows, tiny) == 2
    assert run.tried == [(4, 30), (2, 30)]
    with pytest.raises(torch.OutOfMemoryError):
        largest_batch(FakeRun(room=59), rows, tiny)


def test_training_ends_with_the_time_but_not_before_three_steps():
    from ladder_steps import Counts, train

    counts, batches = [Counts([1], 0, 1, 1)] * 9, [SimpleNamespace(input_ids=torch.ones(1))] * 9
    assert len(train(FakeRun(9), batches, counts, seconds=0)[0]) == 3
    assert len(train(FakeRun(9), batches, counts, seconds=60)[0]) == 9
    broken = FakeRun(9)
    broken.backward = lambda batch, supervised: torch.tensor(math.nan)
    with pytest.raises(RuntimeError, match="not finite"):
        train(broken, batches, counts, seconds=0)


def found_of(name, speed, losses, norms=(1.0, 2.0), dtype="bf16"):
    return {
        "name": name,
        "title": f"title of {name}",
        "dtype": dtype,
        "samples_per_second": speed,
        "mfu_matmul": 0.25,
        "peak_memory_gb": 12.34,
        "attention": "sdpa",
        "checkpointing": "full",
        "first_losses": list(losses),
        "first_gradient_norms": list(norms),
        "wall_s": 1.0,
    }


def test_rungs_are_compared_with_the_first_that_has_the_number():
    from ladder_report import compare

    first, second = found_of("baseline", 2.0, (8.0, 4.0)), found_of("rest", 5.0, (8.0, 4.004))
    found = compare(second, [{"name": "parity"}, first])
    assert (found["ratio"], found["ratio_to"]) == (2.5, "baseline")
    assert found["first_losses_apart"] == pytest.approx(1e-3)
    assert "disagrees" not in found
    alone = compare(second, [{"name": "baseline", "error": "out of memory"}])
    assert (alone["ratio"], alone["ratio_to"], alone["first_losses_apart"]) == (1.0, "rest", 0.0)
    assert compare({"name": "packed", "error": "x"}, [first]) == {}


@pytest.mark.parametrize(
    ("losses", "norms", "dtype", "words"),
    [
        ((8.0, 4.02), (1.0, 2.0), "bf16", "first losses are 5.0e-03 from those of baseline"),
        ((8.0, 4.004), (1.0, 2.0), "fp32", "first losses are 1.0e-03 from those of baseline"),
        ((8.0, math.nan), (1.0, 2.0), "bf16", "first losses are inf from those of baseline"),
        ((8.0, 4.0), (1.0, 1.5), "bf16", "first gradient norms are 2.5e-01"),
    ],
)
def test_a_rung_that_computes_something_else_is_marked(losses, norms, dtype, words, capsys):
    from ladder_report import compare, line_of, print_tables

    first = found_of("baseline", 2.0, (8.0, 4.0), dtype=dtype)
    other = found_of("packed", 5.0, losses, norms, dtype)
    other |= compare(other, [first])
    assert len(other["disagrees"]) == 1
    assert words in line_of(other)
    print_tables([first, other])
    lines = capsys.readouterr().out.splitlines()
    assert any("│ title of baseline " in line for line in lines)
    assert any("│ !! title of packed " in line for line in lines)
    assert any(line.startswith(f"packed: DISAGREES: {words}") for line in lines)


class FakeProcess:
    """Stands for `run_process`: what each rung writes, its exit status, and a clock it moves."""

    def __init__(self, monkeypatch, found, seconds=10.0):
        import benchmark_gpu

        self.found, self.seconds, self.now, self.limits = found, seconds, 0.0, {}
        monkeypatch.setattr(benchmark_gpu, "run_process", self)
        monkeypatch.setattr(benchmark_gpu, "time", SimpleNamespace(monotonic=lambda: self.now))

    def __call__(self, command, log, limit):
        name, target = command[command.index("--rung") + 1], command[command.index("--json") + 1]
        self.limits[name] = limit
        self.now += min(self.seconds, limit)
        text, status = self.found[name]
        log.write_text(f"first\nlast of {name}\n")
        if text is not None:
            Path(target).write_text(text if isinstance(text, str) else json.dumps(text))
        return status


def test_a_failing_rung_is_listed_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    import benchmark_gpu

    partial = {"name": "policy", "title": "by memory", "error": "stopped before its end"}
    FakeProcess(
        monkeypatch,
        {
            "baseline": (found_of("baseline", 2.0, (8.0, 4.0)), 0),
            "rest": ({"name": "rest", "error": "OutOfMemoryError: 78 GiB"}, 1),
            "packed": (None, 1),  # an import failed
            "casts": ('{"name": "cas', -9),  # killed while it wrote
            "policy": (partial, None),
            "compile": (found_of("compile", 3.0, (8.0, 4.0)), 0),
        },
    )
    report = tmp_path / "deep" / "report.json"
    rungs = ("baseline", "rest", "packed", "casts", "policy", "compile")
    options = gpu_options("--json", str(report), "--rungs", *rungs)
    benchmark_gpu.run(options, tmp_path)
    found = json.loads(report.read_text())["rungs"]
    assert [rung.get("error") for rung in found] == [
        None,
        "OutOfMemoryError: 78 GiB",
        "exit status 1: last of packed",
        "exit status -9: last of casts",
        "stopped after 150 s",
        None,
    ]
    assert all(rung["log"] == f"first\nlast of {rung['name']}" for rung in found)
    assert found[4]["title"] == "by memory"
    assert found[5]["ratio"] == 1.5
    output = capsys.readouterr().out
    assert "rest: OutOfMemoryError: 78 GiB" in output.splitlines()
    assert "│ !! by memory " in output


def test_no_rung_takes_more_than_is_left(monkeypatch, tmp_path):
    import benchmark_gpu

    names = ("baseline", "rest", "packed", "casts")
    process = FakeProcess(
        monkeypatch, {name: (found_of(name, 1.0, (1.0,)), 0) for name in names}, seconds=100
    )
    options = gpu_options("--total", "250", "--limit", "120", "--rungs", *names)
    report = tmp_path / "report.json"
    options.json = report
    benchmark_gpu.run(options, tmp_path)
    assert process.limits == {"baseline": 120, "rest": 120, "packed": 50}
    assert process.now == 250
    assert json.loads(report.read_text())["rungs"][3] == {
        "name": "casts",
        "error": "not begun: of 250 s 0 are left",
    }


def test_every_rung_has_its_place():
    import benchmark_gpu
    import ladder_models
    import ladder_report

    assert sorted(benchmark_gpu.ORDER) == sorted(ladder_report.RUNGS)
    assert sorted(ladder_report.RUNGS) == sorted([*ladder_models.RUNGS, "parity"])
    assert gpu_options().rungs[0] == "baseline"


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""
"""A process with a child: a rung with one of inductor's workers."""


def lives(pid):
    """Tell whether a process is there and not only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_gone(path):
    pids, end = path.read_text().split(), time.monotonic() + 10
    assert len(pids) == 2
    while any(map(lives, pids)):
        assert time.monotonic() < end, "left behind"
        time.sleep(0.02)


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@linux
def test_a_rung_is_ended_at_the_limit_with_its_children(tmp_path):
    import benchmark_gpu

    path, command = tmp_path / "pids", [sys.executable, "-c", FAMILY, str(tmp_path / "pids")]
    assert benchmark_gpu.run_process(command, tmp_path / "log", 2.0) is None
    check_gone(path)
    quick = [sys.executable, "-c", "import sys; print('out'); sys.exit(3)"]
    assert benchmark_gpu.run_process(quick, tmp_path / "log", 30) == 3
    assert (tmp_path / "log").read_text() == "out\n"


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_ladder_leaves_nothing_behind(number, tmp_path):
    path = tmp_path / "pids"
    script = (
        # A shell lets what it starts in the background ignore Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys; from pathlib import Path; from benchmark_gpu import run_process;"
        f"run_process([sys.executable, '-c', {FAMILY!r}, {str(path)!r}], Path('log'), 60)"
    )
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(20) != 0
    check_gone(path)


@pytest.mark.slow
def test_nothing_is_imported_that_a_rented_gpu_lacks():
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({NOT_ON_EVERY_GPU}));"
        f"sys.path.insert(0, {str(TOOLS)!r}); import benchmark, ladder"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_whole_ladder(tmp_path):
    import ladder_report

    report = tmp_path / "report.json"
    command = [sys.executable, str(TOOLS / "benchmark.py"), "gpu", "--tiny", "--device", "cpu"]
    command += ["--steps", "3", "--warmup", "1", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {rung["name"]: rung for rung in json.loads(report.read_text())["rungs"]}
    assert sorted(found) == sorted(ladder_report.RUNGS)
    assert not [rung for rung in found.values() if "error" in rung or "disagrees" in rung]
    parity = found.pop("parity")
    assert parity["attention"]["segments"]["probe"] == parity["attention"]["sdpa"]["probe"]
    assert parity["attention"]["segments"]["probe"] == "apart"
    assert len(parity["loss_curve"]["bf16"]) == 50
    for rung in found.values():
        assert rung["steps"] == 3
        assert rung["first_losses_apart"] <= 1e-5
        assert rung["tokens_per_second"] == pytest.approx(
            rung["samples_per_second"] * rung["tokens_per_sample"]
        )
        assert rung["tflops"] == pytest.approx(
            rung["samples_per_second"] * rung["tflop_per_sample"]
        )
        assert rung["hours_per_epoch"] == pytest.approx(665_298 / rung["samples_per_second"] / 3600)
        assert {"build_s", "device", "matmul_tflops", "peak_memory_gb", "log"} <= rung.keys()
    assert found["packed"]["fill"] == 1 > found["by-length"]["fill"] > found["baseline"]["fill"]
    assert "title" in found["compile"]
    assert "DISAGREES" not in done.stdout
