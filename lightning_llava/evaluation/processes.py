"""How the processes of one evaluation share it: `torchrun tools/evaluate.py …`."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

PATIENCE = timedelta(days=7)
"""The first to be done waits for the last; torchrun ends them all if one fails."""


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this one prints and reports."""
        return self.rank == 0

    def join(self) -> None:
        """Meet the others."""
        if self.world > 1:
            dist.init_process_group("gloo", timeout=PATIENCE)

    def total(self, number: int) -> int:
        """Wait for all, and add up a number of each."""
        if self.world == 1:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor)
        return int(tensor)

    def leave(self) -> None:
        """Part."""
        if dist.is_initialized():
            dist.destroy_process_group()


def launched() -> Processes:
    """Read what torchrun tells its processes."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    rank, world, local_rank = (int(os.environ.get(n, d)) for n, d in zip(names, "010", strict=True))
    return Processes(rank, world, local_rank)
