"""Answered questions as pictures in TensorBoard."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.panels import draw_panel


class Panels(Callback):
    """After each validation, draw some questions with picture, prediction and reference.

    Args:
        per_language: how many questions of each language; the same ones every time, so that each
            tag shows one question's history.
    """

    def __init__(self, per_language: int = 8) -> None:
        self.per_language = per_language

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one tag per question: `panels/ru/03`."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        rows: list[LedgerRow] = pl_module.rows  # pyright: ignore[reportAssignmentType]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for tag, row in choose_panels(rows, self.per_language).items():
                    pixels = np.asarray(draw_row(row))
                    logger.experiment.add_image(tag, pixels, trainer.global_step, dataformats="HWC")


def choose_panels(rows: list[LedgerRow], per_language: int) -> dict[str, LedgerRow]:
    """Choose questions evenly over the rows of each language, the same at every validation."""
    by_language: dict[str, list[LedgerRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.key):
        by_language[row.language].append(row)
    chosen = {}
    for language, group in by_language.items():
        positions = np.linspace(0, len(group) - 1, min(per_language, len(group))).astype(int)
        chosen |= {f"panels/{language}/{i:02d}": group[p] for i, p in enumerate(positions)}
    return chosen


def draw_row(row: LedgerRow) -> Image.Image:
    """Draw a ledger row; text-only questions stand on white."""
    if row.image is None:
        image = Image.new("RGB", (256, 16), "white")
    else:
        with Image.open(Path(row.image)) as opened:
            image = opened.convert("RGB")
    return draw_panel(image, row.question, row.raw_answer, row.label, row.correct)
