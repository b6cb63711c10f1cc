"""What could not be read: counted, written down, and too much of it stops the run."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_llava.batch import Batch
from lightning_llava.callbacks.reports import run_folder
from lightning_llava.callbacks.run_lines import append_lines, forget_lines, json_lines
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import write_atomically

NAME = "faults"
AT_LEAST = 1000
"""Samples that `data.max_bad_fraction` is taken of in the beginning."""


class Faults(Callback):
    """Write down what the index left out, and which samples were replaced by blanks in the run.

    `left_out.jsonl` in the run folder has a line for each of the former, `faults.rank{R}.jsonl` for
    each of the latter, appended across resumes. The scalar `data/substituted` counts the latter on
    all ranks, since the start or the last resume.
    """

    def __init__(self) -> None:
        self.seen = self.bad = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the run folder."""
        self.folder = run_folder(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what the index left out."""
        self.seen = self.bad = 0
        index = getattr(trainer.datamodule, "index", None)  # pyright: ignore[reportAttributeAccessIssue]
        if index is None or not index.quarantine or not trainer.is_global_zero:
            return
        lines = [
            {"source": one.source, "shard": one.shard, "key": one.key, "reason": one.reason}
            for one in index.quarantine
        ]
        write_atomically(self.folder / "left_out.jsonl", json_lines(lines))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take out what was found after the checkpoint that the run continues from."""
        forget_lines(trainer, self.folder, NAME)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count; at the end of an optimizer step, stop when it is too much.

        Raises:
            SettingError: on all ranks alike.
        """
        self.seen += len(batch.sample_ids)
        if batch.micro_batch is None:  # streaming: what is bad is not in the batch
            self.seen += len(batch.substituted)
        self.bad += len(batch.substituted)
        if batch.substituted:
            found = [{"micro_batch": batch.micro_batch, "problem": p} for p in batch.substituted]
            path = self.folder / f"{NAME}.rank{trainer.global_rank}.jsonl"
            append_lines(path, found)
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            rank_zero_info(f"data: not trained on {batch.substituted[0]}{more} ({path.name})")
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        counts = torch.tensor([self.bad, self.seen], device=pl_module.device)
        bad, seen = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        if bad:
            pl_module.log("data/substituted", float(bad), rank_zero_only=True)
        most: float = trainer.datamodule.max_bad_fraction  # pyright: ignore[reportAttributeAccessIssue]
        if bad > most * max(seen, AT_LEAST):
            first = f"; on this rank last: {batch.substituted[-1]}" if batch.substituted else ""
            raise SettingError(
                f"{bad} of {seen} samples could not be read, more than data.max_bad_fraction "
                f"({most}) allows{first}. They are named in {self.folder}/faults.*.jsonl; "
                "mend the shards or what they lie on and continue with --ckpt_path, or raise it"
            )
