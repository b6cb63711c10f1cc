"""Shards to facts and lengths: by their sidecars where these hold, else by reading, in parallel."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lightning_llava.data.interrupts import interrupts_end_processes, signals_held
from lightning_llava.data.location import Stamp
from lightning_llava.data.measure import encoder_fingerprint, measure
from lightning_llava.data.scan import FoundSample, Scan, scan_shard
from lightning_llava.data.schema import from_json
from lightning_llava.data.sidecar import (
    Measured,
    ShardFacts,
    Sidecar,
    load_sidecar,
    write_sidecar,
)
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.workers import follow_parent, fork_server
from lightning_llava.errors import SettingError
from lightning_llava.text.conversation import ConversationEncoder

PARALLEL_BYTES = 32 << 20
"""Fewer are read sooner than further processes have started."""
UNREADABLE = "the shard cannot be read"
CHANGED = "the shard changed while it was indexed"
log = logging.getLogger(__name__)


@dataclass
class ShardIndex:
    """What became of a shard."""

    shard: str
    stamp: Stamp
    facts: ShardFacts
    measured: Measured | None = None
    """None without an encoder."""
    unsaved: str = ""
    """Why the sidecar could not be written."""

    def left_out(self) -> list[tuple[str, str]]:
        """Key and reason of what is not there, or was refused by the encoder."""
        refusals = self.measured.refusals if self.measured else {}
        refused = [(self.facts.keys[row], reason) for row, reason in refusals.items()]
        return self.facts.quarantine + refused


class ShardIndexer:
    """Indexes one shard at a time; goes to other processes as it is.

    Args:
        storage: where the bytes come from and the sidecars go.
        encoder: measures the samples; None leaves that out.
        decode: decode every image to its last pixel.
    """

    def __init__(
        self, storage: ShardStorage, encoder: ConversationEncoder | None, decode: bool = False
    ) -> None:
        self.storage, self.encoder, self.decode = storage, encoder, decode
        self.fingerprint = encoder_fingerprint(encoder) if encoder else ""

    def known(self, shard: str, stamp: Stamp) -> ShardIndex | None:
        """Return what a valid sidecar says; None when the shard must be read for it."""
        sidecar = self._sidecar(shard, stamp)
        return self._complete(shard, sidecar) if sidecar else None

    def index(self, shard: str) -> ShardIndex:
        """Read what is not known of a shard, and keep it; whatever is wrong is in the result."""
        stamp = Stamp(0, "")
        try:
            stamp = self.storage.stamp(shard)
            sidecar = self._sidecar(shard, stamp)
            if sidecar and (done := self._complete(shard, sidecar)):
                return done
            with self.storage.open(shard) as stream:
                sidecar, is_tar = self._read(stream, stamp, sidecar)
            if self.storage.stamp(shard) != stamp:
                return self._failed(shard, stamp, CHANGED)
        except (OSError, SettingError) as error:
            told = isinstance(error, OSError) and error.strerror
            return self._failed(shard, stamp, f"{UNREADABLE} ({told or error})")
        result = ShardIndex(shard, stamp, sidecar.facts, sidecar.encoders.get(self.fingerprint))
        if is_tar:  # whatever else a pattern catches gets no files beside it
            try:
                write_sidecar(self.storage.sidecar(shard), sidecar)
            except OSError as error:
                result.unsaved = str(error)
        return result

    def _read(
        self, stream: BinaryIO, stamp: Stamp, sidecar: Sidecar | None
    ) -> tuple[Sidecar, bool]:
        """Read only the records where the rest is known; the flag says that it is a tar."""
        if sidecar is not None and self.encoder:
            facts, rows = sidecar.facts, []
            try:
                for (offset, size), images in zip(facts.records, facts.sizes(), strict=True):
                    stream.seek(int(offset))
                    record = from_json(stream.read(int(size)), [b""] * len(images))
                    rows.append(measure(self.encoder, record, images))
                sidecar.add(self.fingerprint, Measured.of(rows))
            except SettingError:  # not the same bytes, although the stamp is the same
                return self._scan(stream, stamp)
            return sidecar, True
        return self._scan(stream, stamp)

    def _scan(self, stream: BinaryIO, stamp: Stamp) -> tuple[Sidecar, bool]:
        scan, rows = Scan(), []

        def measured() -> Iterator[FoundSample]:
            for found in scan_shard(stream, stamp.size, scan, self.decode):
                if self.encoder:
                    sizes = [image.size for image in found.images]
                    rows.append(measure(self.encoder, found.record, sizes))
                yield found

        sidecar = Sidecar(stamp, ShardFacts.of(measured(), scan, self.decode))
        if self.encoder:
            sidecar.add(self.fingerprint, Measured.of(rows))
        return sidecar, scan.is_tar

    def _failed(self, shard: str, stamp: Stamp, reason: str) -> ShardIndex:
        # Nothing is kept of it: the next start may find it whole.
        facts = ShardFacts.of([], Scan([("", reason)]))
        return ShardIndex(shard, stamp, facts, Measured.of([]) if self.encoder else None)

    def _sidecar(self, shard: str, stamp: Stamp) -> Sidecar | None:
        """Read the sidecar that tells most: our own, or one that came with the shard."""
        best: Sidecar | None = None
        for read in (self._own_sidecar, self.storage.fetch_sidecar):
            try:
                content = read(shard)
            except OSError:
                continue
            found = load_sidecar(content, stamp) if content else None
            if found is None or (self.decode and not found.facts.decoded):
                continue
            if self._complete(shard, found):
                return found
            best = best or found
        return best

    def _own_sidecar(self, shard: str) -> bytes:
        return self.storage.sidecar(shard).read_bytes()

    def _complete(self, shard: str, sidecar: Sidecar) -> ShardIndex | None:
        if self.encoder is None:
            return ShardIndex(shard, sidecar.stamp, sidecar.facts)
        measured = sidecar.encoders.get(self.fingerprint)
        return ShardIndex(shard, sidecar.stamp, sidecar.facts, measured) if measured else None


def index_shards(
    shards: Sequence[str], indexer: ShardIndexer, processes: int = 0, progress: bool = True
) -> list[ShardIndex]:
    """Index shards; the result does not depend on the number of processes.

    Args:
        shards: their names; each is indexed once.
        indexer: how.
        processes: that read shards side by side, if there is much to read; 0 or 1 reads them in
            this one.
        progress: show a bar while shards are read.

    Returns:
        One for each different shard, in their order.
    """
    stamps = {shard: _stamp(indexer.storage, shard) for shard in dict.fromkeys(shards)}
    known = {shard: stamp and indexer.known(shard, stamp) for shard, stamp in stamps.items()}
    unknown = {shard: stamps[shard] for shard, found in known.items() if found is None}
    if unknown:
        known |= _read_all(unknown, indexer, processes, progress)
    unsaved = [found for found in known.values() if found and found.unsaved]
    if unsaved:
        log.warning(
            "data: the indexes of %d shards could not be kept, so the next start reads them again; "
            "first: %s",
            len(unsaved),
            unsaved[0].unsaved,
        )
    return [found for found in known.values() if found]


def _stamp(storage: ShardStorage, shard: str) -> Stamp | None:
    try:
        return storage.stamp(shard)
    except (OSError, SettingError):
        return None  # told when it is to be read


def _read_all(
    stamps: dict[str, Stamp | None], indexer: ShardIndexer, processes: int, progress: bool
) -> dict[str, ShardIndex | None]:
    sizes = {shard: stamp.size if stamp else 0 for shard, stamp in stamps.items()}
    results: dict[str, ShardIndex | None] = {}
    console = Console(stderr=True)
    with Progress(
        TextColumn("indexing: {task.fields[samples]:,} samples"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (progress and console.is_terminal),
    ) as bar:
        task, samples = bar.add_task("", total=sum(sizes.values()), samples=0), 0
        processes = processes if sum(sizes.values()) >= PARALLEL_BYTES else 0
        for found in _results([*stamps], indexer, processes):
            results[found.shard] = found
            samples += len(found.facts.keys)
            bar.update(task, advance=sizes[found.shard], samples=samples)
    return results


def _results(shards: list[str], indexer: ShardIndexer, processes: int) -> Iterator[ShardIndex]:
    """Yield results as they are ready."""
    if min(processes, len(shards)) < 2:
        yield from map(indexer.index, shards)
        return
    # A fork of this process would inherit its threads' locks.
    pool = ProcessPoolExecutor(
        min(processes, len(shards)), fork_server(), initializer=_start, initargs=(indexer,)
    )
    try:
        with interrupts_end_processes():
            with signals_held():
                futures = [pool.submit(_index_one, shard) for shard in shards]
            for future in as_completed(futures):
                yield future.result()
    except BrokenProcessPool as error:
        raise SettingError(
            f"one of the {processes} processes that index shards was killed, most likely because "
            "memory ran out; use fewer processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_indexer: ShardIndexer | None = None
"""Of a process that was started for indexing."""


def _start(indexer: ShardIndexer) -> None:
    global _indexer
    _indexer = indexer
    follow_parent()


def _index_one(shard: str) -> ShardIndex:
    assert _indexer is not None
    return _indexer.index(shard)
