"""Planned packs as a map-style dataset: stateless workers, any order, exact resume."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.data.collate import Row, collate_packed
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import Index, IndexedSample, read_sample
from lightning_llava.data.location import printable, shard_name
from lightning_llava.data.plan import Plan
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.workers import outlive_signals
from lightning_llava.errors import SettingError
from lightning_llava.geometry import VisionGeometry
from lightning_llava.text.conversation import ConversationEncoder

FIRST_PAUSE_S = 0.2
"""Pause before the second attempt to read a sample; each further one is twice as long."""


class PackDataset(Dataset[Batch]):
    """Micro-batch by global number.

    A sample that cannot be read, or not as it was indexed, is tried again; then a blank one of the
    planned length, with nothing supervised, takes its place, so that the plan stays what it was.

    Args:
        index: the samples.
        storage: where their bytes come from.
        plan: which of them make up which micro-batch.
        encoder: turns to ids and labels.
        transform: encoded image to pixels.
        geometry: of the vision tower.
        read_attempts: how often a sample is tried, with pauses of 0.2, 0.4, … seconds.
    """

    def __init__(
        self,
        index: Index,
        storage: ShardStorage,
        plan: Plan,
        encoder: ConversationEncoder,
        transform: ImageTransform,
        geometry: VisionGeometry,
        read_attempts: int = 4,
    ) -> None:
        self.index, self.storage, self.plan = index, storage, plan
        self.encoder, self.transform, self.geometry = encoder, transform, geometry
        self.read_attempts = read_attempts
        if read_attempts < 1:  # every sample would be a blank
            raise SettingError(f"data.read_attempts is {read_attempts}, expected 1 or more")

    def __getitem__(self, micro_batch: int) -> Batch:
        """Read, decode, tokenise and pack one micro-batch."""
        substituted: list[str] = []
        rows = [
            self._row(self.index[int(i)], substituted) for i in self.plan.micro_batch(micro_batch)
        ]
        seed = int(np.random.SeedSequence([self.plan.seed, 3, micro_batch]).generate_state(1)[0])
        batch = collate_packed(
            rows, self.geometry.image_tokens, self.geometry.image_size, rng_seed=seed
        )
        return replace(batch, micro_batch=micro_batch, substituted=substituted)

    def _row(self, indexed: IndexedSample, substituted: list[str]) -> Row:
        problem: Exception | None = None
        for attempt in range(self.read_attempts):
            if attempt:
                time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
            try:
                return self._read(indexed)
            except (SettingError, OSError) as error:
                again = isinstance(error, SettingError) and str(error) == str(problem)
                problem = error
            if again:  # the same bytes twice: they are wrong, not the reading
                break
        substituted.append(f"shard {printable(indexed.shard)}, sample {indexed.key}: {problem}")
        # The record's own id may be as unreadable as the rest.
        name = f"{indexed.source}/{shard_name(indexed.shard)}/{indexed.key}"
        ids = np.zeros(indexed.length, dtype=np.int64)  # any id will do
        return Row(name, ids, np.full_like(ids, IGNORE_INDEX), [])

    def _read(self, indexed: IndexedSample) -> Row:
        sample = read_sample(self.storage, indexed)
        pictures = self.transform.prepare(sample.images)
        encoded = self.encoder.encode(sample.turns, pictures.sizes)
        if encoded.length != indexed.length:
            raise SettingError(
                f"{encoded.length} tokens, but {indexed.length} when it was indexed: the shard "
                "changed since; start again (--ckpt_path resumes only with the same data)"
            )
        name, ids, labels = f"{indexed.source}/{sample.id}", encoded.input_ids, encoded.labels
        return Row(name, ids, labels, pictures.pixels, pictures.sizes, encoded.image_tokens)


class PositionSampler(Sampler[int]):
    """This rank's micro-batches: every `world`-th, from where the run stands.

    Args:
        total: micro-batches of the whole run and all ranks, a multiple of `world`.
        rank: of this process.
        world: number of processes.
        consumed: asked at the first `next()`, because a checkpoint may be loaded after the loader
            was made.
    """

    def __init__(self, total: int, rank: int, world: int, consumed: Callable[[], int]) -> None:
        self.total, self.rank, self.world, self.consumed = total, rank, world, consumed

    def __len__(self) -> int:
        """Micro-batches of the whole run on this rank, whatever part of it is over."""
        return self.total // self.world

    def __iter__(self) -> Iterator[int]:
        """Yield global micro-batch numbers."""
        yield from range(self.consumed() + self.rank, self.total, self.world)


def training_loader(
    dataset: Dataset[Batch],
    sampler: PositionSampler | None,
    num_workers: int,
    pin_memory: bool,
    context: BaseContext | None = None,
) -> DataLoader[Any]:
    """Wrap both in torch's loader; the packs are batches already.

    Args:
        dataset: packs by number, or in its own order.
        sampler: the numbers; None for a dataset with its own order.
        num_workers: processes.
        pin_memory: copy batches through pinned memory.
        context: how the processes start; None as usual.
    """
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=False,
        worker_init_fn=outlive_signals,
        multiprocessing_context=context,
    )
