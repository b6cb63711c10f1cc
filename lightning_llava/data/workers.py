"""Processes that work for another: which signals they obey, and that they end with it."""

import multiprocessing
import os
import signal
from threading import Thread


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
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
