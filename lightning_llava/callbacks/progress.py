"""The progress bar."""

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar


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
        """Shorten the tags: `learning/lr/lora` becomes `lr/lora`."""
        metrics = super().get_metrics(trainer, pl_module)
        return {
            key.partition("/")[2] or key: value for key, value in metrics.items() if key != "v_num"
        }
