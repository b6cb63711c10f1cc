"""Which samples were trained on, and when: the proof of a resume."""

import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lightning_llava.batch import Batch
from lightning_llava.callbacks.reports import run_folder


class SampleLog(Callback):
    """With `data.sample_log`, write a line per micro-batch when it has been trained on.

    `samples.rank{R}.jsonl` in the run folder holds `micro_batch` (global number), `step` (optimizer
    steps that were complete before it), `sample_ids` and `lengths` (tokens). A run that was killed
    has trained on more than its last checkpoint knows; the resumed run takes those lines out, so
    that the file always tells what the weights have seen.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take out what was trained after the checkpoint that the run continues from."""
        if not _is_on(trainer):
            return
        path = _path(trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        kept = lines[: progress.ready]
        # Through a second file: a kill in the middle must not cost the lines that are right.
        shortened = path.with_suffix(".tmp")
        shortened.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        shortened.replace(path)

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
        with _path(trainer).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _is_on(trainer: Trainer) -> bool:
    return bool(getattr(getattr(trainer, "datamodule", None), "sample_log", False))


def _path(trainer: Trainer) -> Path:
    return run_folder(trainer) / f"samples.rank{trainer.global_rank}.jsonl"
