"""What all metrics share: counts that add up over batches and processes."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_llava.errors import SettingError


class CountingMetric(Metric):
    """A metric whose whole state is a row of sums.

    A subclass says in `update` what to add and in `compute` what comes of it.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, size: int, dtype: torch.dtype = torch.long, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", default=torch.zeros(size, dtype=dtype), dist_reduce_fx="sum")

    def add(self, batch: Iterable[float]) -> None:
        """Add a batch's counts."""
        self.counts += torch.tensor(list(batch), dtype=self.counts.dtype, device=self.counts.device)


def ratio(part: float, whole: float) -> float:
    """Divide; a share of nothing is not a number."""
    return part / whole if whole else float("nan")


def check_lengths(**columns: Sequence[object]) -> None:
    """Refuse columns of different lengths, which would be joined by position and cut silently.

    Raises:
        SettingError: names the columns and their lengths.
    """
    if len({len(column) for column in columns.values()}) > 1:
        found = ", ".join(f"{len(column)} {name}" for name, column in columns.items())
        raise SettingError(f"{found}; expected as many of each")
