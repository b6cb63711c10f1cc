"""Which samples were trained on, and when: the proof of a resume."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lightning_llava.batch import Batch
from lightning_llava.callbacks.reports import run_folder
from lightning_llava.callbacks.run_lines import append_lines, forget_lines

NAME = "samples"


class SampleLog(Callback):
    """With `data.sample_log`, write a line per micro-batch when it has been trained on.

    `samples.rank{R}.jsonl` in the run folder holds `micro_batch` (global number; null when
    streaming), `step` (optimizer steps that were complete before it), `sample_ids` and `lengths`
    (tokens), and, where samples could not be read, `substituted` (shard, key and reason of each).
    A run that was killed has trained on more than its last checkpoint knows; the resumed run takes
    those lines out, so that the file always tells what the weights have seen.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run folder."""
        self.folder = run_folder(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take out what was trained after the checkpoint that the run continues from."""
        if _is_on(trainer):
            forget_lines(trainer, self.folder, NAME)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the step that this micro-batch is part of."""
        self.step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Append a line."""
        if not _is_on(trainer):
            return
        assert batch.cu_seqlens is not None  # training rows are packed
        line = {
            "micro_batch": batch.micro_batch,
            "step": self.step,
            "sample_ids": batch.sample_ids,
            "lengths": batch.cu_seqlens.diff().tolist(),
        }
        if batch.substituted:
            line["substituted"] = batch.substituted
        append_lines(self.folder / f"{NAME}.rank{trainer.global_rank}.jsonl", [line])


def _is_on(trainer: Trainer) -> bool:
    return bool(getattr(getattr(trainer, "datamodule", None), "sample_log", False))
