import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from lightning_llava.data.workers import outlive_signals


class Numbers:
    """Items that are the process that made them."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return os.getpid()


def loader():
    return DataLoader(
        Numbers(), batch_size=None, num_workers=1, prefetch_factor=1, worker_init_fn=outlive_signals
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_outlives_what_a_stranger_sends(signum):
    items = iter(loader())
    worker = next(items)
    assert worker != os.getpid()
    for _ in range(2):
        subprocess.run(["kill", f"-{signum}", str(worker)], check=True)
        time.sleep(0.1)
    assert list(items) == [worker] * 19


def test_a_worker_ends_when_its_parent_says_so():
    items = iter(loader())
    worker = next(items)
    (process,) = items._workers
    assert process.pid == worker
    items._shutdown = True  # or torch would take it for a crash
    process.terminate()
    process.join(timeout=5)
    assert process.exitcode == 0


POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from lightning_llava.data.workers import follow_parent
context = multiprocessing.get_context("forkserver")
pool = ProcessPoolExecutor(1, context, initializer=follow_parent)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""


def test_a_pool_s_process_ends_with_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        worker = Path("/proc", parent.stdout.readline().decode().strip())
        assert worker.exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while worker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
