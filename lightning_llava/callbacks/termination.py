"""SIGTERM and Ctrl+C: finish the optimizer step, save it, and end."""

import os
import signal
import sys
import threading
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException


class Termination:
    """Remember a signal until the optimizer step that is under way is complete and saved.

    SIGTERM, and the first Ctrl+C, end a training run after that step: all ranks after the same one,
    whichever of them were told. The exit code is 128 + the signal's number, 143 for SIGTERM, as of
    any program that a signal ends: a scheduler must not take the run for finished. (Ranks that
    Lightning started itself exit with 0: it would kill the others for anything else.) A second
    Ctrl+C stops at once. So does the first signal of either kind where there is nothing to save:
    before training, in a validation, and outside `fit`.

    Args:
        trainer: whose signals these are, from now until it tears down.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.received: signal.Signals | None = None
        self.at_once = True
        # Lightning's own handler makes the run stop within a step, and takes part in a collective
        # from inside the signal. It registers this one in its place, and puts back what was before.
        trainer._signal_connector._sigterm_notifier_fn = self._receive  # pyright: ignore[reportAttributeAccessIssue]

    def listen_to_ctrl_c(self) -> None:
        """Take Ctrl+C too; Lightning puts back what was before."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._receive)

    def agreed(self) -> bool:
        """Ask all ranks whether any of them was told to stop; all must call it."""
        return self.trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)

    def stop_after_step(self) -> None:
        """Let Lightning end the run once this step has been logged; it raises SIGTERMException."""
        self.trainer._signal_connector.received_sigterm = True

    def stop(self) -> None:
        """End the run here and now."""
        if (launcher := self.trainer.strategy.launcher) is not None:
            launcher.kill(signal.SIGTERM)  # the ranks that this process started
        raise SIGTERMException

    def finish(self, exception: SIGTERMException, saved: str) -> None:
        """Say what was saved, and set the exit code.

        Args:
            exception: which ends the run.
            saved: the checkpoint to continue from; empty where there is none.
        """
        by = self.received or signal.SIGTERM  # or another rank was told
        trainer = self.trainer
        environment = getattr(trainer.strategy, "cluster_environment", None)
        started = isinstance(environment, LightningEnvironment) and trainer.local_rank > 0
        exception.code = 0 if started else 128 + by
        if trainer.is_global_zero:
            said = f"stopped by {by.name}"
            if trainer.state.fn == "fit":
                said += f" after step {trainer.global_step}; "
                said += f"continue with --ckpt_path {saved}" if saved else "nothing was saved"
            sys.stderr.write(f"{said}\n")

    def _receive(self, signum: int, frame: Any) -> None:
        again, self.received = self.received is not None, signal.Signals(signum)
        if signum == signal.SIGINT and (again or self.at_once):
            signal.default_int_handler(signum, frame)
        if again:
            return  # a process may be told by its group and by its parent
        if self.at_once:
            self.stop()
        if self.trainer.is_global_zero:
            # Not sys.stderr, which may be in the middle of a line.
            os.write(2, f"\n{self.received.name}: finishing this step, then saving\n".encode())
