"""Shards one after another, without an index: an endless run that is *not exactly resumable*.

What a sample is, and what is wrong with a shard, is decided by the same scan that the index makes:
webdataset's own reader passes over cuts and damaged headers without a word (tariterators.py), and
opens `pipe:` addresses in a shell.
"""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import BinaryIO

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from lightning_llava.batch import Batch
from lightning_llava.data.collate import Row, collate_packed
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import Quarantined, expand_shards
from lightning_llava.data.location import printable
from lightning_llava.data.plan import best_fit_decreasing
from lightning_llava.data.scan import FoundSample, Scan, scan_shard
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.geometry import VisionGeometry
from lightning_llava.specs import SourceSpec
from lightning_llava.text.conversation import ConversationEncoder, Encoded
from lightning_llava.tiling import Size

WINDOW = 256
"""Samples that compete for places in packs; a worker holds their encoded images in memory."""

BARREN = 16
"""Shards without a usable sample, one after another on a worker, that end the run: by chance a
worker is dealt the same bad one a few times."""


@dataclass(frozen=True)
class _Drawn:
    """A sample that was read and tokenised; its images are still encoded."""

    source: str
    shard: str
    key: str
    id: str
    images: list[bytes]
    sizes: list[Size]
    encoded: Encoded


class StreamDataset(IterableDataset[Batch]):
    """Endless packs from shards that are read whole, each by one worker of one rank.

    A pass over a source deals its shards, in another order each time, to all workers of all ranks,
    so that each sample is there once; within a shard the samples come in random order. Every worker
    goes through its passes at its own speed, so no rank ever waits for another, and only over many
    passes has every sample been seen equally often. Bad samples and damaged shards are skipped, and
    named in `substituted` of the next batch. A remote shard is first copied into the cache folder,
    one per worker, and for no longer than it is read.

    The order depends on the seed, the number of ranks and of workers, and `position`; nothing of it
    can be restored. A resumed run draws anew.

    Args:
        sources: shards and weight by name. A weight here is a ratio of probabilities: a source of
            weight 2 gives twice as many samples as one of weight 1, however many either holds.
        storage: where the shards' bytes come from.
        encoder: turns to ids and labels.
        transform: encoded image to pixels.
        geometry: of the vision tower.
        pack_tokens: most tokens in a micro-batch.
        seed: of every shuffle.
        rank: of this process.
        world: number of processes.
        num_workers: of this process's loader.

    Raises:
        SettingError: a pattern that matches nothing, weights that are none, or a source with fewer
            shards than workers on all ranks.
    """

    def __init__(
        self,
        sources: Mapping[str, SourceSpec],
        storage: ShardStorage,
        encoder: ConversationEncoder,
        transform: ImageTransform,
        geometry: VisionGeometry,
        pack_tokens: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.storage, self.encoder, self.transform = storage, encoder, transform
        self.geometry, self.pack_tokens, self.seed = geometry, pack_tokens, seed
        self.rank, self.world, self.workers = rank, world, max(1, num_workers)
        self.position = 0
        """Micro-batches that a resumed run had consumed. Another number gives another order, so
        that the samples of a run's beginning are not those seen most."""
        self.weights = _weights(sources)
        self.shards = {
            name: expand_shards(f"data.sources.{name}.shards", sources[name].shards, storage)
            for name in self.weights
        }
        for name, shards in self.shards.items():
            if len(shards) < world * self.workers:
                raise SettingError(
                    f"data.sources.{name}: {len(shards)} shards for {world} processes with "
                    f"{self.workers} workers each, and streaming reads a shard by one worker only; "
                    "lower data.num_workers, write more and smaller shards, or set data.mode to "
                    "planned"
                )

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's packs, without end.

        Raises:
            SettingError: nothing usable for long.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        assert workers == self.workers, f"{workers} workers, but the shards were dealt to others"
        faults: list[str] = []
        draws = self._draw(self.rank * workers + worker, faults)
        numbers = count()
        rng = self._rng(1, self.rank, worker)
        while True:
            window = list(islice(draws, WINDOW))
            lengths = np.asarray([drawn.encoded.length for drawn in window])
            packs = best_fit_decreasing(lengths, self.pack_tokens)
            usable = 0
            for i in rng.permutation(len(packs)):
                rows = [row for j in packs[i] if (row := self._row(window[j], faults))]
                usable += len(rows)
                if rows:
                    seed = int(self._rng(2, self.rank, worker, next(numbers)).integers(2**32))
                    yield self._batch(rows, seed, faults)
            if not usable:
                raise SettingError(
                    f"data.sources: nothing usable among {WINDOW} samples in a row; the last "
                    f"problem: {faults[-1]}"
                )

    def _batch(self, rows: list[Row], rng_seed: int, faults: list[str]) -> Batch:
        size = self.geometry.image_size
        batch = collate_packed(rows, self.geometry.image_tokens, size, rng_seed)
        told = replace(batch, substituted=faults.copy())
        faults.clear()
        return told

    def _row(self, drawn: _Drawn, faults: list[str]) -> Row | None:
        try:
            pictures = self.transform.prepare(drawn.images)
            if pictures.sizes != drawn.sizes:
                raise SettingError(
                    f"images of {pictures.sizes} pixels, but {drawn.sizes} by their headers"
                )
        except SettingError as error:
            faults.append(_fault(drawn.source, drawn.shard, drawn.key, error))
            return None
        name, encoded = f"{drawn.source}/{drawn.id}", drawn.encoded
        ids, labels = encoded.input_ids, encoded.labels
        return Row(name, ids, labels, pictures.pixels, pictures.sizes, encoded.image_tokens)

    def _draw(self, slot: int, faults: list[str]) -> Iterator[_Drawn]:
        """Mix the sources."""
        streams = [self._passes(name, slot, faults) for name in self.shards]
        weights = np.asarray(list(self.weights.values()))
        rng = self._rng(3, slot)
        while True:
            yield next(streams[rng.choice(len(streams), p=weights / weights.sum())])

    def _passes(self, source: str, slot: int, faults: list[str]) -> Iterator[_Drawn]:
        """Read this slot's shards of a source, pass after pass."""
        number, shards = list(self.shards).index(source), self.shards[source]
        own = self._rng(4, number, slot)
        barren = 0
        for turn in count():
            dealt = self._rng(5, number, turn).permutation(len(shards))  # the same on every slot
            for i in dealt[slot :: self.world * self.workers]:
                barren += 1
                for drawn in self._samples(source, shards[i], own, faults):
                    barren = 0
                    yield drawn
                if barren == BARREN:
                    raise SettingError(
                        f"data.sources.{source}: nothing usable in {BARREN} shards one after "
                        f"another; the last problem: {faults[-1]}"
                    )

    def _samples(
        self, source: str, shard: str, rng: np.random.Generator, faults: list[str]
    ) -> Iterator[_Drawn]:
        """Read a shard's samples in random order."""
        scan = Scan()
        try:
            with self.storage.whole(shard) as stream:
                found = list(scan_shard(stream, stream.seek(0, io.SEEK_END), scan))
                faults += [_fault(source, shard, key, reason) for key, reason in scan.quarantine]
                for i in rng.permutation(len(found)):
                    try:
                        drawn = self._read(source, shard, found[i], stream)
                    except SettingError as error:
                        faults.append(_fault(source, shard, found[i].key, error))
                    else:
                        yield drawn
        except (OSError, SettingError) as error:
            lost = f"the shard cannot be read, and the rest of it is left out ({error})"
            faults.append(_fault(source, shard, "", lost))

    def _read(self, source: str, shard: str, found: FoundSample, stream: BinaryIO) -> _Drawn:
        images = [_pread(stream, *image.extent) for image in found.images]
        sizes = [image.size for image in found.images]
        encoded = self.encoder.encode(found.record.turns, sizes)
        if encoded.length > self.pack_tokens:
            raise SettingError(
                f"takes more than data.pack_tokens ({encoded.length} tokens, {self.pack_tokens} "
                "allowed)"
            )
        return _Drawn(source, shard, found.key, found.record.id, images, sizes, encoded)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 4, self.position, *purpose])


def _weights(sources: Mapping[str, SourceSpec]) -> dict[str, float]:
    """Return the weights above zero."""
    weights = {name: spec.weight for name, spec in sources.items()}
    if not all(0 <= weight < math.inf for weight in weights.values()):
        raise SettingError(f"data.sources: the weights are {weights}; expected numbers from 0 up")
    if not any(weights.values()):
        raise SettingError(f"data.sources: the weights {weights} leave no source; raise one")
    return {name: weight for name, weight in weights.items() if weight}


def _fault(source: str, shard: str, key: str, reason: object) -> str:
    return str(Quarantined(source, printable(shard), key, str(reason)))


def _pread(stream: BinaryIO, offset: int, size: int) -> bytes:
    stream.seek(offset)
    content = stream.read(size)
    if len(content) < size:
        raise OSError(f"ends at byte {offset + len(content)} while it is read")
    return content
