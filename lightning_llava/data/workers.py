"""Processes that work for another: which signals they obey, and that they end with it."""

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from threading import Thread


def worker_context(num_workers: int, processes: int) -> BaseContext | None:
    """Say how data workers start, for `DataLoader(multiprocessing_context=...)`; None: as usual.

    Where several processes train, a process has threads of others' making, and Python up to 3.11
    hangs for ever in a child that is forked while one of them begins or ends. There the workers are
    forked from a small process of their own, which must survive a SIGTERM to the whole group.

    Args:
        num_workers: of each process.
        processes: that train.
    """
    if not num_workers or processes == 1 or "forkserver" not in _start_methods():
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which it inherits
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, before)
    return context


def _start_methods() -> list[str]:
    return multiprocessing.get_all_start_methods()


def outlive_signals(worker: int) -> None:
    """Let a data worker live on, for `DataLoader(worker_init_fn=...)`.

    The main process needs its workers for the optimizer step that it finishes, and ends them
    itself: SIGTERM counts only when it comes from there. Where a system does not tell who sent a
    signal (macOS, Windows), SIGTERM to the whole group ends the workers, and with them the run.

    Args:
        worker: its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        Thread(target=_obey_parent, daemon=True).start()


def follow_parent() -> None:
    """End a pool's process with Ctrl-C, and with its parent, without which it would wait for ever.

    For `ProcessPoolExecutor(initializer=...)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _obey_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is None or signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
