"""One pass over shards: where each sample lies, and how long it is."""

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import BinaryIO

from rich.progress import track

from lightning_llava.data.schema import IMAGE_EXTENSIONS, Sample, from_json
from lightning_llava.errors import SettingError
from lightning_llava.specs import SourceSpec
from lightning_llava.text.conversation import ConversationEncoder

Extent = tuple[int, int]
"""Offset and size of a member's bytes in its tar."""


@dataclass(frozen=True, slots=True)
class IndexedSample:
    """Where a sample lies and how many tokens it takes."""

    shard: str
    key: str
    record: Extent
    images: tuple[Extent, ...]
    source: str
    length: int
    """Tokens, image features included."""

    def read(self) -> Sample:
        """Read the sample's bytes; nothing but its own members is touched.

        Raises:
            SettingError: the bytes are no record any more; the shard changed since it was indexed,
                or is gone.
        """
        try:
            with Path(self.shard).open("rb") as stream:
                payloads = [_pread(stream, extent) for extent in (self.record, *self.images)]
            return from_json(payloads[0], payloads[1:])
        except (SettingError, OSError) as error:
            raise SettingError(f"shard {self.shard}, sample {self.key}: {error}") from error


@dataclass
class Index:
    """All usable samples of all sources, in the order of sources, shards and members."""

    samples: list[IndexedSample] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """One line per sample that was left out: shard, key and reason."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Number of samples left out, per source and reason."""
    dropped_turns: int = 0
    """Turns that over-long conversations lose."""


def expand_shards(source: str, spec: SourceSpec) -> list[str]:
    """List a source's tar files.

    Raises:
        SettingError: a pattern that matches nothing.
    """
    patterns = [spec.shards] if isinstance(spec.shards, str) else spec.shards
    found: list[str] = []
    for pattern in patterns:
        matches = sorted(glob(str(Path(pattern).expanduser()))) if pattern else []  # noqa: PTH207
        if not matches:
            raise SettingError(
                f"data.sources.{source}.shards: nothing matches {pattern!r} in {Path.cwd()}; "
                "expected WebDataset tar files "
                "(tools/shards.py convert writes them)"
            )
        found += matches
    return found


def build_index(sources: dict[str, SourceSpec], encoder: ConversationEncoder) -> Index:
    """Index every source; samples that cannot be used are counted and left out.

    Raises:
        SettingError: no sources, a pattern without files, or a source without a usable sample.
    """
    if not sources:
        raise SettingError(
            "data.sources is empty; stack a file of configs/data or name your shards there"
        )
    index = Index()
    shards = [(name, path) for name, spec in sources.items() for path in expand_shards(name, spec)]
    for name, path in track(
        shards, description="indexing shards", transient=True, disable=len(shards) < 4
    ):
        _index_shard(path, name, encoder, index)
    for name in sources:
        if not any(sample.source == name for sample in index.samples):
            own = tuple(f"shard {path}, " for source, path in shards if source == name)
            first = next(
                (line for line in index.refused if line.startswith(own)),
                "the shards hold no sample at all",
            )
            raise SettingError(
                f"data.sources.{name}: no usable sample in its shards; the first problem: {first}"
            )
    return index


def _index_shard(path: str, source: str, encoder: ConversationEncoder, index: Index) -> None:
    for key, found in _members_by_key(path):
        try:
            members = dict(found)
            if len(members) != len(found):
                raise SettingError("a member is there twice")
            sample = _index_sample(path, key, members, source, encoder, index)
        except SettingError as error:
            index.refused.append(f"shard {path}, sample {key}: {error}")
            index.reasons[f"{source}: {error}"] += 1
        else:
            index.samples.append(sample)


def _index_sample(
    path: str,
    key: str,
    members: dict[str, Extent],
    source: str,
    encoder: ConversationEncoder,
    index: Index,
) -> IndexedSample:
    if "json" not in members:
        raise SettingError("the .json member is missing")
    images = tuple(members[ext] for ext in sorted(members, key=_image_order) if ext != "json")
    with Path(path).open("rb") as stream:
        record = from_json(_pread(stream, members["json"]), [b""] * len(images))
    if problem := record.problem():
        raise SettingError(problem)
    encoded = encoder.encode(record.turns, len(images))
    index.dropped_turns += encoded.dropped_turns
    return IndexedSample(
        path, key, members["json"], images, source, encoder.length(encoded.input_ids)
    )


def _members_by_key(path: str) -> Iterator[tuple[str, list[tuple[str, Extent]]]]:
    """Group a tar's known members by key, in the order of first appearance."""
    groups: dict[str, list[tuple[str, Extent]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")  # `tar -cf x.tar .` writes ./
                stem, _, extension = name.partition(".")
                known = extension == "json" or extension.rpartition(".")[2] in IMAGE_EXTENSIONS
                if member.isfile() and known:
                    extent = (member.offset_data, member.size)
                    groups.setdefault(folder + slash + stem, []).append((extension, extent))
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise SettingError(f"shard {path}: not a readable tar ({error})") from error
    yield from groups.items()


def _check_end(path: str, offset: int) -> None:
    """Refuse a tar that does not end where tarfile stopped: it stops at damage without a word."""
    with Path(path).open("rb") as stream:
        # More than tar's padding, so that the second of two concatenated tars is seen too.
        end = _pread(stream, (offset, 2 * tarfile.RECORDSIZE))
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise SettingError(
            f"shard {path}: damaged or cut short at byte {offset}, where members go on or the "
            "zero blocks that end a tar are missing; copy or write it again"
        )


def _image_order(extension: str) -> int:
    """Sort `0.jpg` before `10.jpg`; a lone `jpg` is the first."""
    number = extension.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def _pread(stream: BinaryIO, extent: Extent) -> bytes:
    stream.seek(extent[0])
    return stream.read(extent[1])
