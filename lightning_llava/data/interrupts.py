"""Ctrl-C while a pool's processes start: each would answer with a traceback, or not hear of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, resource_tracker

from lightning_llava.data.workers import follow_parent


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait in processes that are started in the block, until `take_interrupts`.

    For `ProcessPoolExecutor.submit`, which starts them, with `take_interrupts` as the pool's
    initializer. In the starting thread, too, it waits until the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it starts later, it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interrupts_end_processes() -> Iterator[None]:
    """End what was started in the block when Ctrl-C leaves it.

    A fork server ignores Ctrl-C, and so it never reaches the processes that are yet to be forked.
    """
    others = active_children()
    try:
        yield
    except KeyboardInterrupt:
        for process in active_children():
            if process not in others:
                process.terminate()
        raise


def take_interrupts() -> None:
    """End a pool's process with its parent and, without a word, with Ctrl-C, also an earlier one.

    For `ProcessPoolExecutor(initializer=...)`.
    """
    follow_parent()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
