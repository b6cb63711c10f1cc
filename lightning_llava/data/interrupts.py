"""Signals while processes start: one would die of it with a traceback, or not hear of it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children, resource_tracker


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait in processes that are started in the block, until they take them.

    For `ProcessPoolExecutor.submit`, which starts them, with `follow_parent` as the pool's
    initializer. In the starting thread, too, they wait until the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it starts later, it lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
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
