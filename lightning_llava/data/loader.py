"""Planned packs as a map-style dataset: stateless workers, any order, exact resume."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_llava.batch import Batch
from lightning_llava.data.collate import Row, collate_packed
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import Index, IndexedSample
from lightning_llava.data.plan import Plan
from lightning_llava.errors import SettingError
from lightning_llava.geometry import VisionGeometry
from lightning_llava.text.conversation import ConversationEncoder


class PackDataset(Dataset[Batch]):
    """Micro-batch by global number."""

    def __init__(
        self,
        index: Index,
        plan: Plan,
        encoder: ConversationEncoder,
        transform: ImageTransform,
        geometry: VisionGeometry,
    ) -> None:
        self.samples = index.samples
        self.plan, self.encoder, self.transform, self.geometry = plan, encoder, transform, geometry

    def __getitem__(self, micro_batch: int) -> Batch:
        """Read, decode, tokenise and pack one micro-batch."""
        rows = [self._row(self.samples[i]) for i in self.plan.micro_batch(micro_batch)]
        seed = int(np.random.SeedSequence([self.plan.seed, 3, micro_batch]).generate_state(1)[0])
        batch = collate_packed(
            rows, self.geometry.image_tokens, self.geometry.image_size, rng_seed=seed
        )
        return replace(batch, micro_batch=micro_batch)

    def _row(self, indexed: IndexedSample) -> Row:
        sample = indexed.read()
        try:
            encoded = self.encoder.encode(sample.turns, len(sample.images))
            if (length := self.encoder.length(encoded.input_ids)) != indexed.length:
                raise SettingError(
                    f"{length} tokens, but {indexed.length} when it was indexed: the shard changed "
                    "since; start again (--ckpt_path resumes only with the same data)"
                )
            pixels = [self.transform(image) for image in sample.images]
        except SettingError as error:
            raise SettingError(f"shard {indexed.shard}, sample {indexed.key}: {error}") from error
        return Row(f"{indexed.source}/{sample.id}", encoded.input_ids, encoded.labels, pixels)


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
    dataset: PackDataset, sampler: PositionSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Any]:
    """Wrap both in torch's loader; the packs are batches already."""
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=False,
    )
