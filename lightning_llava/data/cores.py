"""How many processes are worth starting."""

import os


def usable_cores() -> int:
    """Count the cores that this process may use; only Linux tells them from the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
