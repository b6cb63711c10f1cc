"""Checkpoints every N optimizer steps, and one of the last step."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoint(ModelCheckpoint):
    """Save what trains, the optimizer and the position in the data.

    Args:
        every_n_train_steps: optimizer steps between two checkpoints; the last step is always saved.
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that a run continues from for saved.

        Otherwise its first micro-batch, within that step still, would overwrite the checkpoint with
        the position after it, and without the gradients that it has accumulated so far.
        """
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save on schedule, and at the last step of the run.

        The last step is saved here, not at the end of the epoch: Lightning would take a checkpoint
        from there for a finished epoch, and a longer run could not continue from it.
        """
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        finished = trainer.global_step >= trainer.estimated_stepping_batches
        if finished and self._last_global_step_saved != trainer.global_step:
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing: a resumed run that has no step left would overwrite its checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the list of kept checkpoints, unless this run writes into another folder."""
        if state_dict["dirpath"] == self.dirpath:
            super().load_state_dict(state_dict)
