"""The progress bar."""

import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

SHOWN = {
    "learning/loss": ("loss", ".3f"),
    "speed/tokens_per_second": ("tokens/s", ",.0f"),
}


class Progress(RichProgressBar):
    """Rich progress bar with loss, tokens per second and learning rates.

    Args:
        refresh_rate: batches between two updates; 0 switches the bar off.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._written = 0

    def _get_train_description(self, current_epoch: int) -> str:
        return "train"  # a whole run is one epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar; where there is no terminal to draw it on, write a line now and then."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        step, every = trainer.global_step, trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        console = self._console
        if console is None or console.is_terminal or step == self._written or step % every:
            return
        self._written = step
        metrics = self.get_metrics(trainer, pl_module)
        total = int(trainer.estimated_stepping_batches)
        numbers = ", ".join(f"{name} {value}" for name, value in metrics.items())
        sys.stderr.write(f"step {step} of {total}: {numbers}\n")

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Show loss, speed and the rate of every part, short enough for 80 columns."""
        metrics = super().get_metrics(trainer, pl_module)
        shown = {
            name: format(metrics[tag], layout)
            for tag, (name, layout) in SHOWN.items()
            if tag in metrics
        }
        rates = [format(v, ".0e") for tag, v in metrics.items() if tag.startswith("learning/lr/")]
        return {**shown, **({"lr": " ".join(rates)} if rates else {})}
