"""The progress bar."""

import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich.progress import ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

WIDE = 100
"""Columns from which there is room for the learning rates."""

LOG_EVERY_S = 60.0
"""Between two lines about questions where there is no terminal to draw a bar on."""


class Progress(RichProgressBar):
    """Rich progress bar: loss, tokens per second, MFU, waiting for data, time left.

    A line of 80 columns holds them; wider ones, and the lines that are written where there is no
    terminal, show the learning rate of every part too.

    Args:
        refresh_rate: batches between two updates; 0 switches the bar off.
    """

    def __init__(self, refresh_rate: int = 1) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._written = 0
        self._said = 0.0
        self._numbers = _Numbers()

    @property
    def total_train_batches(self) -> int | float:
        """Micro-batches of the run on this rank; Lightning knows no number when streaming."""
        total, steps = super().total_train_batches, self.trainer.max_steps
        if math.isinf(total) and steps > 0:
            return steps * self.trainer.accumulate_grad_batches
        return total

    @property
    def validation_description(self) -> str:
        """As long as that of training, which stands in the same column."""
        return "check"

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """In `fit`, make room for the numbers: they tell speed and time better than batches do."""
        columns = super().configure_columns(trainer)
        if trainer.state.fn != "fit":
            return columns
        self._numbers = _Numbers()
        done = TextColumn("{task.completed:.0f}/{task.total:.0f}")
        return [*columns[:2], done, self._numbers]

    def _get_train_description(self, current_epoch: int) -> str:
        return "train"  # a whole run is one epoch

    def _update_metrics(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled and self._console is not None:
            shown = self.get_metrics(trainer, pl_module)
            if self._console.width < WIDE:
                shown.pop("lr", None)
            text = " ".join(f"{name}: {value}" for name, value in shown.items())
            self._numbers.show(text, self.train_progress_bar_id)

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

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the time to the first line from here."""
        super().on_validation_start(trainer, pl_module)
        self._said = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As `on_validation_start`."""
        super().on_test_start(trainer, pl_module)
        self._said = time.monotonic()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the bar, or write how far the questions are."""
        super().on_validation_batch_end(
            trainer, pl_module, outputs, batch, batch_idx, dataloader_idx
        )
        self._say(trainer.num_val_batches, batch_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As `on_validation_batch_end`."""
        super().on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        self._say(trainer.num_test_batches, batch_idx)

    def _say(self, batches: Sequence[int | float], index: int) -> None:
        now, console = time.monotonic(), self._console
        if console is None or console.is_terminal or now - self._said < LOG_EVERY_S:
            return
        self._said = now
        sys.stderr.write(f"check: {index + 1} of {sum(batches)} batches of questions\n")

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Name what has been logged so far in few characters."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown = {
            name: layout(metrics[tag]) for tag, (name, layout) in SHOWN.items() if tag in metrics
        }
        rates = [format(v, ".0e") for tag, v in metrics.items() if tag.startswith("learning/lr/")]
        return {**shown, **({"lr": " ".join(rates)} if rates else {})}


class _Numbers(ProgressColumn):
    """Text behind the training bar; it is the bar that becomes shorter where room is scarce."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.show("", None)

    def show(self, text: str, task_id: int | None) -> None:
        self.content = task_id, Text(text, style="italic")

    def render(self, task: Task) -> Text:
        """Return the text, or none behind the bar of a validation."""
        task_id, text = self.content
        return text if task.id == task_id else Text()


def _rate(value: float) -> str:
    return f"{value / 1000:,.1f}k" if value >= 10_000 else f"{value:,.0f}"


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f}h"
    return f"{hours * 60:.0f}min" if hours >= 1 / 60 else f"{hours * 3600:.0f}s"


SHOWN = {
    "learning/loss": ("loss", "{:.3f}".format),
    "speed/tokens_per_second": ("tokens/s", _rate),
    "speed/mfu": ("mfu", "{:.0%}".format),
    "speed/data_wait": ("wait", "{:.0%}".format),
    "speed/hours_left": ("left", _duration),
}
"""What the bar shows of the logged scalars: its name there and how it is written."""
