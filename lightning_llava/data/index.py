"""All usable samples of all sources: where each lies, and how long it is.

Columns of numbers, not an object per sample: mix665k's 665,298 take about 60 MB. Data workers share
them where they are forks of the process that trains; where several train, each has its own.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Int64

from lightning_llava.data.indexer import UNREADABLE, ShardIndex, ShardIndexer, index_shards
from lightning_llava.data.location import Stamp, printable, scheme
from lightning_llava.data.scan import countable
from lightning_llava.data.schema import Sample, from_json
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.tar import Extent
from lightning_llava.errors import SettingError
from lightning_llava.specs import SourceSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.tiling import Size, Tiling


class IndexedSample(NamedTuple):
    """Where a sample lies and how many tokens it takes."""

    shard: str
    stamp: Stamp
    key: str
    record: Extent
    images: tuple[Extent, ...]
    source: str
    length: int
    """Tokens, image features included."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that was left out."""

    source: str
    shard: str
    """Without what may be secret in a URL."""
    key: str
    """Empty where it is the shard itself, or what was lost of it."""
    reason: str

    def __str__(self) -> str:
        """Name it in a sentence."""
        key = self.key if self.key.isprintable() else ascii(self.key)
        return f"shard {self.shard}{f', sample {key}' if key else ''}: {self.reason}"


@dataclass(eq=False)
class Index:
    """The usable samples, in the order of sources, shards and members."""

    sources: list[str]
    """Their names, as they were given."""
    shards: list[str]
    stamps: list[Stamp]
    """Per shard."""
    lengths: Int64[np.ndarray, " samples"]
    """Tokens, image features included."""
    source_numbers: Int64[np.ndarray, " samples"]
    """Which of `sources`."""
    num_images: Int64[np.ndarray, " samples"]
    shard_numbers: Int64[np.ndarray, " samples"]
    """Which of `shards`."""
    records: Int64[np.ndarray, "samples 2"]
    """Offset and size of the record in its shard."""
    images: Int64[np.ndarray, "images 2"]
    """Offset and size of every image, sample by sample."""
    image_sizes: Int64[np.ndarray, "images 2"]
    """Width and height in pixels, as stored."""
    keys: bytes
    """One after another, in UTF-8."""
    key_ends: Int64[np.ndarray, " samples"]
    fingerprint: str = ""
    """Hash of sources, names of shards, keys, lengths and sizes, in order. The folder has no part
    in it."""
    quarantine: list[Quarantined] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """How much was left out, by `source: reason` without what differs from sample to sample."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was mended or ignored without a loss, by `source: note`."""
    dropped_turns: Counter[str] = field(default_factory=Counter)
    """Turns that over-long conversations lose, by source."""
    truncated_samples: Counter[str] = field(default_factory=Counter)
    """Conversations that lose them, by source."""
    languages: dict[str, Counter[str]] = field(default_factory=dict)
    """Samples by source and language."""

    def __post_init__(self) -> None:
        self._image_ends = np.cumsum(self.num_images)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> IndexedSample:
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        number %= len(self)
        shard = self.shard_numbers.item(number)
        start = self.key_ends.item(number - 1) if number else 0
        return IndexedSample(
            self.shards[shard],
            self.stamps[shard],
            self.keys[start : self.key_ends.item(number)].decode(),
            (self.records.item(number, 0), self.records.item(number, 1)),
            self._images_of(number) if self.num_images.item(number) else (),
            self.sources[self.source_numbers.item(number)],
            self.lengths.item(number),
        )

    def _images_of(self, number: int) -> tuple[Extent, ...]:
        return tuple((offset, size) for offset, size in self.images[self._range(number)].tolist())

    def sizes_of(self, number: int) -> list[Size]:
        """Return the size of each image of a sample."""
        return [(width, height) for width, height in self.image_sizes[self._range(number)].tolist()]

    def count_tiles(self, tiling: Tiling) -> Int64[np.ndarray, " samples"]:
        """Count what a tower encodes of each sample with any resolution."""
        tiles = [tiling.count_tiles((width, height)) for width, height in self.image_sizes.tolist()]
        owners = np.repeat(np.arange(len(self)), self.num_images)
        return np.bincount(owners, tiles, minlength=len(self)).astype(np.int64)

    def _range(self, number: int) -> slice:
        end = self._image_ends.item(number)
        return slice(end - self.num_images.item(number), end)

    def __iter__(self) -> Iterator[IndexedSample]:
        return map(self.__getitem__, range(len(self)))


def build_index(
    sources: dict[str, SourceSpec],
    encoder: ConversationEncoder,
    storage: ShardStorage,
    processes: int = 0,
    decode: bool = False,
    progress: bool = True,
) -> Index:
    """Index every source; what cannot be used is counted, named and left out.

    Args:
        sources: shards by name.
        encoder: measures the samples.
        storage: where the shards' bytes come from.
        processes: that read shards side by side; 0 reads them in this one.
        decode: also leave out samples with an image that does not decode to its last pixel.
        progress: show a bar while shards are read.

    Raises:
        SettingError: no sources, a pattern that matches nothing, a shard that a source names twice
            or that cannot be reached, or a source without a usable sample.
    """
    if not sources:
        raise SettingError(
            "data.sources is empty; stack a file of configs/data or name your shards there"
        )
    shards = {
        name: expand_shards(f"data.sources.{name}.shards", spec.shards, storage)
        for name, spec in sources.items()
    }
    named = [shard for of_source in shards.values() for shard in of_source]
    indexed = index_shards(named, ShardIndexer(storage, encoder, decode), processes, progress)
    _refuse_unreadable(indexed)
    by_name = {found.shard: found for found in indexed}
    index = assemble({name: [by_name[shard] for shard in own] for name, own in shards.items()})
    present = set(index.source_numbers.tolist())
    for number, name in enumerate(sources):
        if number not in present:
            first = next(entry for entry in index.quarantine if entry.source == name)
            raise SettingError(
                f"data.sources.{name}: no usable sample in its shards; the first problem: {first}"
            )
    return index


def _refuse_unreadable(indexed: list[ShardIndex]) -> None:
    """Refuse shards that are away: what they hold is sound, and would be missing unnoticed."""
    lost = {
        printable(found.shard): reason
        for found in indexed
        for key, reason in found.left_out()
        if not key and reason.startswith(UNREADABLE)
    }
    if lost:
        shard, reason = next(iter(lost.items()))
        raise SettingError(
            f"data.sources: {len(lost)} of {len(indexed)} shards cannot be reached, first {shard}: "
            f"{reason}. Start again if that passes; else mend what they lie on, or take them out"
        )


def expand_shards(setting: str, patterns: str | list[str], storage: ShardStorage) -> list[str]:
    """List the tar files that patterns name.

    Args:
        setting: where the patterns were written, for the errors.
        patterns: paths, globs, brace ranges or URLs.
        storage: knows what is there.

    Raises:
        SettingError: a pattern that matches nothing or cannot be listed, or a shard named twice.
    """
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            matches = storage.expand(pattern)
        except (SettingError, OSError) as error:
            raise SettingError(f"{setting}: {str(error).removeprefix('shards: ')}") from error
        # A pattern may catch what lies beside the shards.
        matches = [shard for shard in matches if not shard.endswith(".index.json")]
        if not matches:
            folder = pattern and not scheme(pattern) and Path(pattern).expanduser().is_dir()
            hint = f" (it is a folder; {pattern.rstrip('/')}/*.tar?)" if folder else ""
            raise SettingError(
                f"{setting}: nothing matches {printable(pattern)!r} in {Path.cwd()}{hint}; "
                "expected WebDataset tar files (tools/shards.py convert writes them)"
            )
        found += matches
    places = Counter(shard if scheme(shard) else str(Path(shard).absolute()) for shard in found)
    twice = [place for place, count in places.items() if count > 1]
    if twice:
        raise SettingError(
            f"{setting}: {printable(twice[0])} is named twice; name it once (a weight of 2 shows "
            "every sample of a source twice)"
        )
    return found


def read_sample(storage: ShardStorage, indexed: IndexedSample) -> Sample:
    """Read a sample's bytes; nothing but its own members is touched.

    Raises:
        SettingError: the bytes are no record any more.
        OSError: the shard is gone, was changed, or cannot be read now; trying again may help.
    """
    extents = (indexed.record, *indexed.images)
    record, *images = storage.read_parts(indexed.shard, extents, indexed.stamp)
    return from_json(record, images)


def assemble(sources: dict[str, list[ShardIndex]]) -> Index:
    """Join the measured shards of all sources; samples that the encoder refused stay out."""
    parts = [_Part(number, found) for number, own in enumerate(sources.values()) for found in own]
    keys = [key for part in parts for key in part.kept_keys()]
    index = Index(
        sources=list(sources),
        shards=[part.found.shard for part in parts],
        stamps=[part.found.stamp for part in parts],
        lengths=_joined([part.measured.lengths[part.kept] for part in parts]),
        source_numbers=_joined([np.full(part.size, part.source) for part in parts]),
        num_images=_joined([part.facts.num_images[part.kept] for part in parts]),
        shard_numbers=_joined([np.full(part.size, i) for i, part in enumerate(parts)]),
        records=_joined([part.facts.records[part.kept] for part in parts], 2),
        images=_joined([part.facts.images[part.kept_images] for part in parts], 2),
        image_sizes=_joined([part.facts.image_sizes[part.kept_images] for part in parts], 2),
        keys=b"".join(keys),
        key_ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
    )
    for part in parts:
        _note(index, part)
    index.fingerprint = _fingerprint(index)
    return index


class _Part:
    """A shard of one source, with the rows that are kept of it."""

    def __init__(self, source: int, found: ShardIndex) -> None:
        assert found.measured is not None
        self.source, self.found = source, found
        self.facts, self.measured = found.facts, found.measured
        self.kept = self.measured.lengths > 0
        self.kept_images = np.repeat(self.kept, self.facts.num_images)
        self.size = int(self.kept.sum())

    def kept_keys(self) -> list[bytes]:
        return [key.encode() for key in compress(self.facts.keys, self.kept.tolist())]


def _note(index: Index, part: _Part) -> None:
    """Count what a shard lost and had mended."""
    source, shard = index.sources[part.source], printable(part.found.shard)
    for key, reason in part.found.left_out():
        index.quarantine.append(Quarantined(source, shard, key, reason))
        index.reasons[f"{source}: {countable(reason)}"] += 1
    for note, count in part.facts.notes.items():
        index.notes[f"{source}: {note}"] += count
    if dropped := int(part.measured.dropped.sum()):
        index.dropped_turns[source] += dropped
        index.truncated_samples[source] += int((part.measured.dropped > 0).sum())
    spoken = index.languages.setdefault(source, Counter())
    spoken.update(compress(part.facts.languages, part.kept.tolist()))


def _joined(columns: list[np.ndarray], width: int = 0) -> np.ndarray:
    empty = np.empty((0, width) if width else 0, dtype=np.int64)
    return np.concatenate([empty, *columns])


def _fingerprint(index: Index) -> str:
    names = [PurePosixPath(urlsplit(s).path if scheme(s) else s).name for s in index.shards]
    counts = np.bincount(index.shard_numbers, minlength=len(names)).tolist()
    digest = hashlib.sha256(json.dumps([index.sources, names, counts]).encode())
    digest.update(index.keys)
    for column in (
        index.key_ends,
        index.source_numbers,
        index.lengths,
        index.num_images,
        index.records[:, 1],
        index.images[:, 1],
    ):
        digest.update(np.ascontiguousarray(column, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]
