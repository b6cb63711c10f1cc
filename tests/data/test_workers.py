import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from handmade import record, says, write_tar
from torch.utils.data import DataLoader

from lightning_llava.data.workers import (
    PRELOAD,
    follow_parent,
    fork_server,
    outlive_signals,
    worker_context,
)


class Numbers:
    """Items that are the process that made them."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return os.getpid()


def loader(processes=1):
    return DataLoader(
        Numbers(),
        batch_size=None,
        num_workers=1,
        prefetch_factor=1,
        worker_init_fn=outlive_signals,
        multiprocessing_context=worker_context(1, processes),
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


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_ends_when_its_parent_says_so(processes):
    items = iter(loader(processes))
    worker = next(items)
    (process,) = items._workers
    assert process.pid == worker
    items._shutdown = True  # or torch would take it for a crash
    process.terminate()
    process.join(timeout=5)
    items._shutdown = False
    items._shutdown_workers()  # else torch takes a later iterator for this one
    assert process.exitcode == 0


def test_one_process_that_trains_forks_its_workers_and_without_workers_nothing_starts():
    assert worker_context(2, processes=1) is None
    assert worker_context(0, processes=2) is None


def test_the_server_can_import_what_it_is_told_to():
    """It passes over what it does not find, and every process would then take the seconds."""
    assert all(find_spec(name) for name in PRELOAD)


def test_sigterm_ends_a_pool_s_process():
    with ProcessPoolExecutor(1, fork_server(), initializer=follow_parent) as pool:
        os.kill(pool.submit(os.getpid).result(), signal.SIGTERM)
        with pytest.raises(BrokenProcessPool):
            pool.submit(time.sleep, 60).result(timeout=20)


def ended(pid):
    """Whether a process is gone, or a zombie, which has no command."""
    command = Path(f"/proc/{pid}/cmdline")
    return not command.exists() or not command.read_bytes()


def wait_for_end(*pids):
    deadline = time.monotonic() + 10
    while not all(map(ended, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from lightning_llava.data import workers
workers.PRELOAD = []
pool = ProcessPoolExecutor(1, workers.fork_server(), initializer=workers.follow_parent)
print(pool.submit(os.getpid).result(), flush=True)
time.sleep(60)
"""


def test_a_pool_s_process_ends_with_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        assert not ended(worker)
        parent.kill()
    wait_for_end(worker)


RANK = """
import os
import signal
import subprocess
import sys

from torch.utils.data import DataLoader

from lightning_llava.data import indexer, workers
from lightning_llava.data.storage import ShardStorage


class Parents:
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return os.getpid(), os.getppid()


def tell_group():
    for name in ("TERM", "INT"):
        stranger = ["kill", f"-{name}", "--", f"-{os.getpgrp()}"]
        subprocess.run(stranger, check=True, start_new_session=True)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT):  # as a run that saves before it ends
        signal.signal(number, lambda *_: None)
    indexer.PARALLEL_BYTES = 0
    workers.PRELOAD = ["torch.utils.data"]
    indexer.index_shards(sys.argv[1:], indexer.ShardIndexer(ShardStorage(), None), 2, False)
    loader = DataLoader(
        Parents(),
        batch_size=None,
        num_workers=1,
        prefetch_factor=1,
        worker_init_fn=workers.outlive_signals,
        multiprocessing_context=workers.worker_context(1, processes=2),
    )
    items = iter(loader)
    tell_group()  # while the worker starts
    first = next(items)
    tell_group()
    assert list(items) == [first] * 19
    items = iter(loader)
    (worker, parent), (_, server) = next(items), first
    print(server, parent, worker, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_server_that_an_index_started_and_its_workers_outlive_the_group_s_sigterm(tmp_path):
    """A fork beside threads that enter Python may hang, so that no worker is a rank's own fork."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    members = [("0.json", record("0", says("Who?", "I.")))]
    shards = [write_tar(tmp_path / f"{name}.tar", *members) for name in "ab"]
    with subprocess.Popen(
        [sys.executable, script, *shards],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as rank:
        try:
            said, complaints = rank.communicate(
                timeout=90
            )  # also a worker that stays keeps it open
        finally:
            with suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
    assert rank.returncode == -signal.SIGKILL, complaints
    server, again, worker = map(int, said.split())
    assert again == server != rank.pid
    wait_for_end(worker, server)
