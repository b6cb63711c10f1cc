"""Told to stop: the step is finished and saved, and what comes next is what would have come."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities.exceptions import SIGTERMException
from test_checkpoint import Each, step_of, train

from lightning_llava.callbacks import Checkpoint
from long_run import ACCUMULATE, STEPS, command, lines, losses

ODD = 6
"""A micro-batch that is the first of its step, the fourth."""


class At(Callback):
    """Send this process a signal in a hook, once."""

    def __init__(self, hook, signum=signal.SIGTERM, when=lambda trainer: True):
        self.sent = 0

        def send(trainer, *_):
            if not self.sent and when(trainer):
                self.sent += 1
                os.kill(os.getpid(), signum)

        setattr(self, hook, send)


def stopped(folder, *callbacks, **settings):
    """Train until it is stopped; return the exit code."""
    with pytest.raises(SIGTERMException) as raised:
        train(
            folder,
            6,
            *callbacks,
            checkpoint=Checkpoint(100, dirpath=str(folder)),
            accumulate_grad_batches=2,
            **settings,
        )
    return raised.value.code


def mid_step(trainer):
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready == 5


@pytest.fixture(autouse=True)
def handlers():
    """Whatever happened, the process has the handlers that it had."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_before_optimizer_step"])
def test_the_step_under_way_is_finished_and_saved(tmp_path, capsys, signum, hook):
    seen = []

    def when(trainer):
        return trainer.fit_loop.epoch_loop.batch_progress.current.ready in (5, 6)

    code = stopped(tmp_path, At(hook, signum, when), Each(seen.append))
    assert code == 128 + signum
    assert seen == [0, 1, 1, 2, 2, 3]
    last = tmp_path / "last.ckpt"
    assert step_of(last) == 3
    said = f"stopped by {signum.name} after step 3; continue with --ckpt_path {last}\n"
    assert said in capsys.readouterr().err
    resumed = train(
        tmp_path,
        6,
        ckpt_path=str(last),
        checkpoint=Checkpoint(100, dirpath=str(tmp_path)),
        accumulate_grad_batches=2,
    )
    assert resumed.global_step == 6


def test_a_second_sigterm_changes_nothing(tmp_path):
    """The group is told, and the parent tells its child."""
    twice = (At("on_train_batch_start", when=mid_step), At("on_train_batch_end", when=mid_step))
    assert stopped(tmp_path, *twice) == 143
    assert step_of(tmp_path / "last.ckpt") == 3


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    twice = (
        At("on_train_batch_start", signal.SIGINT, mid_step),
        At("on_train_batch_end", signal.SIGINT, mid_step),
    )
    with pytest.raises(SystemExit) as raised:
        train(tmp_path, 6, *twice, checkpoint=Checkpoint(2), accumulate_grad_batches=2)
    assert raised.value.code == 1  # as Lightning ends it
    assert step_of(tmp_path / "checkpoints/last.ckpt") == 2


VALIDATED = {"limit_val_batches": 3, "val_check_interval": 4}


def test_in_a_validation_it_stops_at_once_because_the_step_is_saved(tmp_path):
    validated = []

    class Count(Callback):
        def on_validation_batch_end(self, *_):
            validated.append(1)

    assert stopped(tmp_path, At("on_validation_batch_end"), Count(), **VALIDATED) == 143
    assert not validated
    assert step_of(tmp_path / "last.ckpt") == 2


def test_told_in_the_step_before_a_validation_it_does_not_begin(tmp_path):
    begun = []

    class Begin(Callback):
        def on_validation_batch_start(self, *_):
            begun.append(1)

    told = At("on_train_batch_start", when=lambda trainer: trainer.global_step == 1)
    assert stopped(tmp_path, told, Begin(), **VALIDATED) == 143
    assert not begun
    assert step_of(tmp_path / "last.ckpt") == 2


def test_told_in_the_last_moment_before_a_validation_it_does_not_begin(tmp_path):
    begun = []

    class Begin(Callback):
        def on_validation_batch_start(self, *_):
            begun.append(1)

    class LateModule(BoringModel):
        def on_train_batch_end(self, *_):  # after every callback
            if self.trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SIGTERMException):
        Trainer(
            accelerator="cpu",
            max_steps=4,
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            val_check_interval=2,
            callbacks=[Checkpoint(100, dirpath=str(tmp_path)), Begin()],
        ).fit(LateModule())
    assert not begun
    assert step_of(tmp_path / "last.ckpt") == 2


def test_a_validation_within_a_step_is_finished_and_the_step_too(tmp_path):
    """Every third micro-batch: the first is within the second step, which is not saved yet."""
    settings = {"limit_val_batches": 3, "val_check_interval": 3}
    validated = []

    class Count(Callback):
        def on_validation_batch_end(self, *_):
            validated.append(1)

    assert stopped(tmp_path, At("on_validation_batch_end"), Count(), **settings) == 143
    assert len(validated) == 3
    assert step_of(tmp_path / "last.ckpt") == 2


@pytest.mark.parametrize("hook", ["on_sanity_check_start", "on_validation_batch_start"])
def test_before_training_there_is_nothing_to_save(tmp_path, capsys, hook):
    assert stopped(tmp_path, At(hook), **VALIDATED, num_sanity_val_steps=1) == 143
    assert not list(tmp_path.iterdir())
    assert "stopped by SIGTERM after step 0; nothing was saved" in capsys.readouterr().err


def test_validate_stops_at_once(tmp_path, capsys):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=[Checkpoint(), At("on_validation_batch_start")],
    )
    with pytest.raises(SIGTERMException) as raised:
        trainer.validate(BoringModel())
    assert raised.value.code == 143
    assert capsys.readouterr().err.endswith("stopped by SIGTERM\n")


def test_outside_the_main_thread_training_goes_on_without_signals(tmp_path):
    thread = threading.Thread(target=train, args=(tmp_path, 2))
    thread.start()
    thread.join()
    assert step_of(tmp_path / "last.ckpt") == 2


# As processes


def alive(group):
    """Count the processes of a group, which has the number of its first."""
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    fields = [stat.rpartition(")")[2].split() for stat in stats]
    return sum(int(group_) == group and state != "Z" for state, _, group_, *_ in fields)


def run_told_to_stop(world, root, signum, whom, rank, micro_batch, *more):
    """Run until it has ended by itself; return its exit code and what it said."""
    script = Path(__file__).with_name("stopped_run.py")
    arguments = command(world, root, *more)[3:]
    told = [sys.executable, script, signum, whom, str(rank), str(micro_batch), *arguments]
    process = subprocess.Popen(
        told, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        said, _ = process.communicate(timeout=120)
        deadline = time.monotonic() + 10
        while alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(process.pid), "workers and ranks have ended"
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return process.returncode, said


def check_stop(root, code, said, signum="SIGTERM"):
    last = root / "version_0/checkpoints/last.ckpt"
    step = ODD // ACCUMULATE + 1
    assert f"stopped by {signum} after step {step}; continue with --ckpt_path {last}" in said
    assert "Traceback" not in said
    assert code == 128 + signal.Signals[signum]
    assert step_of(last) == step
    assert len(lines(root)) == step * ACCUMULATE
    assert list(losses(root)) == list(range(step)), "every step was logged, the last one too"
    return f"--ckpt_path={last}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "whom"), [("SIGTERM", "group"), ("SIGTERM", "itself"), ("SIGINT", "group")]
)
def test_a_stopped_run_is_the_untouched_run(demo_world, untouched, tmp_path, signum, whom):
    code, said = run_told_to_stop(demo_world, tmp_path, signum, whom, 0, ODD)
    resume = check_stop(tmp_path, code, said, signum)
    finished = subprocess.run(
        command(demo_world, tmp_path, resume), check=True, capture_output=True, text=True
    )
    assert "Restored all states" in finished.stderr
    assert [line["micro_batch"] for line in lines(tmp_path)] == list(range(STEPS * ACCUMULATE))
    assert lines(tmp_path) == lines(untouched)
    assert losses(tmp_path) == losses(untouched)


@pytest.mark.slow
@pytest.mark.parametrize(("whom", "rank"), [("itself", 0), ("itself", 1), ("group", 0)])
def test_all_ranks_stop_after_the_same_step(demo_world, untouched, tmp_path, whom, rank):
    """A step is a micro-batch of each of two ranks, or two of one; only one rank is told."""
    layout = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.num_workers=1"]
    start = [*layout, "--trainer.accumulate_grad_batches=1"]
    told_at = ODD + rank
    code, said = run_told_to_stop(demo_world, tmp_path, "SIGTERM", whom, rank, told_at, *start)
    resume = check_stop(tmp_path, code, said)
    finished = subprocess.run(
        command(demo_world, tmp_path, *layout, resume, "--trainer.accumulate_grad_batches=1"),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Restored all states" in finished.stderr
    assert lines(tmp_path) == lines(untouched)
    assert losses(tmp_path) == pytest.approx(losses(untouched), rel=1e-3)
