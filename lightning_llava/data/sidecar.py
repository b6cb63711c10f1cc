"""What is known of a shard, kept in `{shard}.index.json` so that the next run need not read it.

The file is one JSON object: `version`, `sha256` of the text of its last value, and that value,
`index`. A file that is not exactly as it was written is built anew, never trusted; so is one whose
shard has another size or time.
"""

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from lightning_llava.data.location import Stamp
from lightning_llava.data.scan import FoundSample, Scan
from lightning_llava.tiling import Size

SIDECAR_VERSION = 1
"""Counts up when the layout or a check of the scan changes."""
KEPT_ENCODERS = 4
"""Encoders whose lengths are kept, the ones used last."""


@dataclass
class ShardFacts:
    """What does not depend on an encoder: a column per fact, a row per sample or image."""

    keys: list[str]
    records: Int64[np.ndarray, "samples 2"]
    """Offset and size of the `.json` member."""
    num_images: Int64[np.ndarray, " samples"]
    images: Int64[np.ndarray, "images 2"]
    """Offset and size of the images, sample by sample."""
    image_sizes: Int64[np.ndarray, "images 2"]
    """Width and height in pixels."""
    languages: list[str]
    """Per sample."""
    pairs: Int64[np.ndarray, " samples"]
    """Questions with their answers."""
    characters: Int64[np.ndarray, " samples"]
    """Of all turns."""
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of what was left out; no key where it is the shard itself."""
    notes: Counter[str] = field(default_factory=Counter)
    decoded: bool = False
    """Whether every image was decoded to its last pixel."""

    @classmethod
    def of(cls, found: Iterable[FoundSample], scan: Scan, decoded: bool = False) -> "ShardFacts":
        """Lay samples out in columns; `scan` is complete after the last of them."""
        keys, languages, extents, num_images = [], [], [], []
        images, pairs, characters = [], [], []
        for sample in found:
            keys.append(sample.key)
            extents.append(sample.extent)
            num_images.append(len(sample.images))
            images += sample.images
            turns = sample.record.turns
            languages.append(sample.record.language)
            pairs.append(len(turns) // 2)
            characters.append(sum(len(turn.text) for turn in turns))
        return cls(
            keys=keys,
            records=_pairs(extents),
            num_images=_column(num_images),
            images=_pairs([image.extent for image in images]),
            image_sizes=_pairs([image.size for image in images]),
            languages=languages,
            pairs=_column(pairs),
            characters=_column(characters),
            quarantine=scan.quarantine,
            notes=scan.notes,
            decoded=decoded,
        )

    def sizes(self) -> Iterator[list[Size]]:
        """Yield the sizes of each sample's images."""
        sizes = [(width, height) for width, height in self.image_sizes.tolist()]
        ends = np.cumsum(self.num_images).tolist()
        return (sizes[start:end] for start, end in pairwise([0, *ends]))


@dataclass
class Measured:
    """What an encoder makes of a shard's samples; a row each."""

    lengths: Int64[np.ndarray, " samples"]
    """Tokens, image features included; 0 where the sample is refused."""
    dropped: Int64[np.ndarray, " samples"]
    """Turns that an over-long conversation loses."""
    refusals: dict[int, str] = field(default_factory=dict)
    """Reason by row."""

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, str | None]]) -> "Measured":
        """Lay out (length, dropped turns, refusal) in columns."""
        columns = list(rows)
        return cls(
            lengths=_column([length for length, _, _ in columns]),
            dropped=_column([dropped for _, dropped, _ in columns]),
            refusals={i: refusal for i, (_, _, refusal) in enumerate(columns) if refusal},
        )


@dataclass
class Sidecar:
    """The content of a file."""

    stamp: Stamp
    facts: ShardFacts
    encoders: dict[str, Measured] = field(default_factory=dict)
    """By encoder fingerprint, the one used last first."""

    def add(self, fingerprint: str, measured: Measured) -> None:
        """Put an encoder first and forget the oldest."""
        others = {name: m for name, m in self.encoders.items() if name != fingerprint}
        kept = [(fingerprint, measured), *others.items()][:KEPT_ENCODERS]
        self.encoders = dict(kept)


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write atomically: a reader sees the old file or the new one, whoever else is writing.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and of a name that no glob over shards finds.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            file.write(dump_sidecar(sidecar))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def dump_sidecar(sidecar: Sidecar) -> bytes:
    """Serialise; the same facts give the same bytes."""
    facts = sidecar.facts
    index = {
        "stamp": {"size": sidecar.stamp.size, "version": sidecar.stamp.version},
        "keys": facts.keys,
        "records": facts.records.tolist(),
        "num_images": facts.num_images.tolist(),
        "images": facts.images.tolist(),
        "image_sizes": facts.image_sizes.tolist(),
        "languages": facts.languages,
        "pairs": facts.pairs.tolist(),
        "characters": facts.characters.tolist(),
        "quarantine": facts.quarantine,
        "notes": dict(facts.notes),
        "decoded": facts.decoded,
        "encoders": {
            name: {
                "lengths": measured.lengths.tolist(),
                "dropped": measured.dropped.tolist(),
                "refusals": measured.refusals,
            }
            for name, measured in sidecar.encoders.items()
        },
    }
    body = json.dumps(index, separators=(",", ":")).encode()
    return _head(body) + body + b"}\n"


def load_sidecar(content: bytes, stamp: Stamp) -> Sidecar | None:
    """Read a file's content back; None unless it is whole, sound, and of this stamp."""
    head = _head(b"")
    body = content[len(head) : -2]
    if content != _head(body) + body + b"}\n":
        return None
    try:
        index = json.loads(body)
        sidecar = _sidecar(index)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return sidecar if sidecar.stamp == stamp else None


def _head(body: bytes) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return f'{{"version":{SIDECAR_VERSION},"sha256":"{digest}","index":'.encode()


def _sidecar(index: dict[str, Any]) -> Sidecar:
    """Check every value: the digest tells only that nobody changed them.

    Raises:
        ValueError: or any other that a wrong type brings.
    """
    stamp = Stamp(**index["stamp"])
    keys = _texts(index["keys"])
    samples, num_images = len(keys), _column(index["num_images"])
    images, notes = int(num_images.sum()), index["notes"]
    _require(len(set(keys)) == samples == len(num_images))
    facts = ShardFacts(
        keys=keys,
        records=_extents(index["records"], samples, stamp.size),
        num_images=num_images,
        images=_extents(index["images"], images, stamp.size),
        image_sizes=_pairs(index["image_sizes"], images),
        languages=_texts(index["languages"], samples),
        pairs=_column(index["pairs"], samples),
        characters=_column(index["characters"], samples),
        quarantine=[(key, reason) for key, reason in map(_texts, index["quarantine"])],
        notes=Counter(dict(zip(notes, _column([*notes.values()]).tolist(), strict=True))),
        decoded=index["decoded"] is True,
    )
    encoders = {name: _measured(value, samples) for name, value in index["encoders"].items()}
    return Sidecar(stamp, facts, encoders)


def _measured(value: dict[str, Any], rows: int) -> Measured:
    lengths = _column(value["lengths"], rows)
    refusals = {int(row): reason for row, reason in value["refusals"].items()}
    _texts([*refusals.values()])
    _require(sorted(refusals) == np.flatnonzero(lengths == 0).tolist())
    return Measured(lengths, _column(value["dropped"], rows), refusals)


def _column(values: list[int], rows: int | None = None) -> Int64[np.ndarray, " rows"]:
    """Make a column of counts, none of them negative."""
    array = np.asarray(values) if values else np.empty(0, dtype=np.int64)
    _require(array.dtype == np.int64 and array.ndim == 1 and (array >= 0).all())
    _require(rows is None or len(array) == rows)
    return array


def _pairs(values: list[tuple[int, int]], rows: int | None = None) -> Int64[np.ndarray, "rows 2"]:
    array = np.asarray(values) if values else np.empty((0, 2), dtype=np.int64)
    _require(array.dtype == np.int64 and array.ndim == 2 and array.shape[1] == 2)
    _require((array >= 0).all() and (rows is None or len(array) == rows))
    return array


def _extents(values: list[tuple[int, int]], rows: int, size: int) -> Int64[np.ndarray, "rows 2"]:
    array = _pairs(values, rows)
    _require(((array[:, 0] <= size) & (array[:, 1] <= size - array[:, 0])).all())
    return array


def _texts(values: list[str], rows: int | None = None) -> list[str]:
    _require(isinstance(values, list) and all(isinstance(value, str) for value in values))
    _require(rows is None or len(values) == rows)
    return values


def _require(sound: object) -> None:
    if not sound:
        raise ValueError("a value that was never written")
