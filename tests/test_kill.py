"""Killed at any moment, and resumed: the samples and losses of a run that nobody touched."""

import os
import random
import signal
import subprocess
import time

import pytest

from long_run import ACCUMULATE, EVERY, STEPS, command, lines, losses

ROUNDS = 10
START_LIMIT_S = 120
"""A run that has not begun by then never will."""


def run_until_killed(world, root, micro_batches, *more):
    """Start a run and kill it, workers and all, when it has trained on so many micro-batches."""
    process = subprocess.Popen(
        command(world, root, *more),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + START_LIMIT_S
    try:
        while len(lines(root)) < micro_batches:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_killed_run_is_the_untouched_run(demo_world, untouched, tmp_path):
    whole = lines(untouched)
    assert [line["micro_batch"] for line in whole] == list(range(STEPS * ACCUMULATE))
    assert [line["step"] for line in whole] == [i // ACCUMULATE for i in range(len(whole))]
    first = ACCUMULATE * EVERY  # micro-batches until there is something to resume from
    draw = random.Random(ROUNDS)
    resume: list[str] = []
    for _ in range(ROUNDS):
        done = len(lines(tmp_path))
        at = draw.randint(max(first + 1, done - 2), STEPS * ACCUMULATE - 1)
        run_until_killed(demo_world, tmp_path, at, *resume)
        resume = [f"--ckpt_path={tmp_path / 'version_0/checkpoints/last.ckpt'}"]
    finished = subprocess.run(
        command(demo_world, tmp_path, *resume), check=True, capture_output=True, text=True
    )
    assert "Restored all states" in finished.stderr, "it must not have started from zero"
    assert lines(tmp_path) == whole
    assert losses(tmp_path) == losses(untouched)


ONE_RANK = ["--data.num_workers=2"]
TWO_RANKS = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.num_workers=0"]


@pytest.mark.slow
@pytest.mark.parametrize("layouts", [(ONE_RANK, TWO_RANKS), (TWO_RANKS, ONE_RANK)])
def test_another_layout_continues_the_same_run(demo_world, untouched, tmp_path, layouts):
    """One process with two workers, two processes that read themselves, and back again."""
    whole, resume = lines(untouched), []
    for layout, at in ((layouts[0], 9), (layouts[1], 17)):
        # As configured, two ranks would take twice the micro-batches a step; a run keeps its own.
        start = [] if resume or layout is ONE_RANK else ["--trainer.accumulate_grad_batches=1"]
        run_until_killed(demo_world, tmp_path, at, *layout, *start, *resume)
        resume = [f"--ckpt_path={tmp_path / 'version_0/checkpoints/last.ckpt'}"]
        if layouts[0] is TWO_RANKS:
            resume.append("--trainer.accumulate_grad_batches=1")
    finished = subprocess.run(
        command(demo_world, tmp_path, *layouts[0], *resume),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Restored all states" in finished.stderr
    assert lines(tmp_path) == whole
    found, expected = losses(tmp_path), losses(untouched)
    # Two ranks sum in another order than one; training carries the last digits on.
    assert found == pytest.approx(expected, rel=1e-3)
