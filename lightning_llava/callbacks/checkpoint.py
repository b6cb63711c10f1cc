"""Checkpoints every N optimizer steps, and of every step after which the run may end."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_llava.callbacks.checkpoint_io import (
    AtomicCheckpointIO,
    is_remote,
    link_atomically,
    remove_unfinished,
)
from lightning_llava.callbacks.termination import Termination
from lightning_llava.errors import SettingError


class Checkpoint(ModelCheckpoint):
    """Save what trains, the optimizer and the position in the data.

    `last.ckpt` is a link to the newest; at any moment it names a whole file, which no kill and no
    full disk takes away. SIGTERM and Ctrl+C (see `Termination`) save the step that is under way.

    Args:
        every_n_train_steps: optimizer steps between two checkpoints; the last step, and each that a
            validation follows, is always saved.
        keep: how many of the newest checkpoints stay; -1 keeps all.
        dirpath: folder; null takes `checkpoints` in the run folder.
    """

    def __init__(
        self, every_n_train_steps: int = 500, keep: int = 5, dirpath: str | None = None
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step-{step:06d}",
            auto_insert_metric_name=False,
            monitor="step",
            mode="max",
            save_top_k=keep,
            save_last="link",
            every_n_train_steps=every_n_train_steps,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._outdated: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, and take over how checkpoints are written and what SIGTERM does."""
        if is_remote(self.dirpath or trainer.log_dir or trainer.default_root_dir):
            self.save_last = True  # a second copy: there are no links
        super().setup(trainer, pl_module, stage)
        self._termination = Termination(trainer)
        strategy = trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:  # else the user chose another
            strategy.checkpoint_io = AtomicCheckpointIO()
        assert self.dirpath is not None
        if stage == "fit" and trainer.is_global_zero and not is_remote(self.dirpath):
            remove_unfinished(Path(self.dirpath))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that a run continues from for saved.

        Otherwise its first micro-batch, within that step still, would overwrite the checkpoint with
        the position after it, and without the gradients that it has accumulated so far.
        """
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = self._step = trainer.global_step
        self._stops = False
        self._termination.at_once = False
        self._termination.listen_to_ctrl_c()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save on schedule, and whatever else may be the last that is saved.

        The last step is saved here, not at the end of the epoch: Lightning would take a checkpoint
        from there for a finished epoch, and a longer run could not continue from it.
        """
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == self._step:
            # A stop that another callback asks for (trainer.max_time) waits for the step's end.
            self._stops, trainer.should_stop = self._stops or trainer.should_stop, False
            return
        self._step = trainer.global_step
        trainer.should_stop = trainer.should_stop or self._stops
        stop = self._termination.agreed()
        finished = trainer.global_step >= trainer.estimated_stepping_batches
        finished |= trainer.should_stop and trainer.fit_loop._can_stop_early
        wanted = stop or finished or _is_validated_next(trainer)
        if wanted and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
        if stop:
            self._termination.stop_after_step()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal stop the run at once if the step before was saved."""
        termination = self._termination
        if trainer.training or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        termination.at_once = self._last_global_step_saved == trainer.global_step
        if trainer.received_sigterm:  # as all ranks have agreed
            raise SIGTERMException
        if termination.at_once and termination.received is not None:
            termination.stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a signal wait for the end of a step again."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._termination.at_once = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say where a run that was told to stop can be continued."""
        super().on_exception(trainer, pl_module, exception)
        if isinstance(exception, SIGTERMException):
            saved = self.last_model_path or str(trainer.ckpt_path or "")
            self._termination.finish(exception, saved)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing: a resumed run that has no step left would overwrite its checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the list of kept checkpoints, unless this run writes into another folder."""
        if state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Save; what goes wrong on the rank that writes ends all of them."""
        problem = ""
        try:
            super()._save_checkpoint(trainer, filepath)
        except SettingError as error:
            problem = str(error)
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the others wait
        if problem := trainer.strategy.broadcast(problem):
            raise SettingError(problem)

    def _save_last_checkpoint(
        self, trainer: Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        """Move `last.ckpt` on; only then remove what is kept no longer, which it may have named."""
        super()._save_last_checkpoint(trainer, monitor_candidates)
        for path in self._outdated:
            super()._remove_checkpoint(trainer, path)
        self._outdated.clear()

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self._outdated.append(filepath)

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        """Make the link, or a copy, in one step: Lightning removes the old one first."""
        problem = ""
        if trainer.is_global_zero:
            try:
                link_atomically(Path(filepath), Path(linkpath))
            except SettingError as error:
                problem = str(error)
        if problem := trainer.strategy.broadcast(problem):
            raise SettingError(problem)


def _is_validated_next(trainer: Trainer) -> bool:
    """Ask Lightning whether it validates after this step.

    Not where validation goes by the clock, of which every rank has its own.
    """
    if getattr(trainer, "_val_check_time_interval", None) is not None:
        return False
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
