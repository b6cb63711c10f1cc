import os
import signal
import subprocess
import sys
import time

import pytest

POOL = """
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import sleep

from lightning_llava.data import workers
from lightning_llava.data.interrupts import interrupts_end_processes, signals_held

def work():
    print("at work", flush=True)
    sleep(60)

if __name__ == "__main__":
    # Whoever started the tests in the background had it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    method, when = sys.argv[1:]
    workers.PRELOAD = ["slow"] if when == "starting" else []
    context = workers.fork_server() if method == "forkserver" else get_context(method)
    try:
        pool = ProcessPoolExecutor(1, context, initializer=workers.follow_parent)
        with pool, interrupts_end_processes():
            with signals_held():
                asked = pool.submit(work)
            asked.result()
    except KeyboardInterrupt:
        sys.exit("stopped")
elif sys.argv[1:] == ["spawn", "starting"]:
    import slow
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("when", ["starting", "at work"])
def test_ctrl_c_ends_a_pool_without_a_word_of_its_processes(tmp_path, method, when):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    (tmp_path / "slow.py").write_text("import time; print('starting', flush=True); time.sleep(1)")
    with subprocess.Popen(
        [sys.executable, script, method, when],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{when}\n"
        time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        try:
            _, told = process.communicate(timeout=20)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, told) == (1, "stopped\n")
