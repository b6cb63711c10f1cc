"""The progress bar."""

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
