"""Processes that work for another: how they start, which signals they obey, how they end."""

import multiprocessing
import os
import signal
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from threading import Thread

from lightning_llava.data.interrupts import signals_held

PRELOAD = [
    "lightning_llava.data.loader",
    "lightning_llava.data.streaming",
    "lightning_llava.evaluation.loader",
]
"""What the fork server imports, once for all processes: seconds that each would take."""


def fork_server() -> BaseContext:
    """Start the process from which pools and data workers are forked; it has no other threads.

    There is one for all, and whoever needs it first starts it: SIGTERM or Ctrl-C to the whole group
    must not end it, nor a data worker that has just been forked from it, when the run is to be
    saved. So both signals wait there, and `outlive_signals` and `follow_parent` take them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with signals_held():
        forkserver.ensure_running()
    return context


def worker_context(num_workers: int, processes: int) -> BaseContext | None:
    """Say how data workers start, for `DataLoader(multiprocessing_context=...)`; None: as usual.

    Where several processes train, threads of gloo or NCCL enter and leave Python at any moment, and
    a child that is forked meanwhile may wait for ever for a lock that one of them held (CPython
    3.11, `_PyThreadState_DeleteExcept`). A process that trains alone has no such threads, and its
    forks start at once and share its memory.

    Args:
        num_workers: of each process.
        processes: that train.
    """
    methods = multiprocessing.get_all_start_methods()  # the default is the first
    if not num_workers or "forkserver" not in methods:
        return None
    return fork_server() if processes > 1 or methods[0] == "forkserver" else None


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
    else:
        _take_signals()
    # torch looks whether the process is gone that forked the worker; a fork server stays for it.
    Thread(target=_end_with_parent, daemon=True).start()


def follow_parent() -> None:
    """End a pool's process with SIGTERM, Ctrl-C, also earlier ones, and with its parent.

    Without that it would wait for ever. For `ProcessPoolExecutor(initializer=...)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _take_signals()
    Thread(target=_end_with_parent, daemon=True).start()


def _take_signals() -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _obey_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
