"""Where the bytes of shards come from: files of this machine, or a server behind a disk cache."""

import hashlib
import os
import resource
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from glob import glob, has_magic
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from lightning_llava.data.location import Stamp, expand_braces, printable, scheme
from lightning_llava.data.remote import RemoteShards
from lightning_llava.errors import SettingError

OPEN_FILES = 256
"""Shards that a process keeps open at most; fewer where the limit on open files is low."""


GAP = 64 << 10
"""Bytes between the parts of a sample that are read along rather than asked for separately."""


class ShardStorage:
    """Reads any part of any shard, local or remote, and knows when a shard was changed.

    It may be pickled and may be forked: open files are shared by forks, for which `pread` has no
    position that could be moved, and connections are made anew in every process.

    Args:
        cache_dir: Where parts of remote shards, and indexes that cannot lie beside their shard, are
            kept; None takes `lightning_llava` in the user's cache folder.
        cache_gb: Most gigabytes (10^9 bytes) that parts of remote shards take there.
    """

    def __init__(self, cache_dir: str | None = None, cache_gb: float = 10.0) -> None:
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else user_cache()
        self._local = LocalShards()
        self._remote = RemoteShards(self.cache_dir / "ranges", int(cache_gb * 1e9))

    def expand(self, pattern: str) -> list[str]:
        """List the shards that a path, a glob, a URL or a brace range of those means, sorted.

        Remote globs need a file system that lists (s3, gs, hf; http where the server shows a
        folder's links). Remote names without a glob are not looked up.

        Returns:
            Their names; none when nothing matches.

        Raises:
            SettingError: some of the shards that braces name are not there, or a remote file system
                that cannot be used.
            OSError: a remote file system cannot be listed.
        """
        if not scheme(pattern) and (path := Path(pattern).expanduser()).is_file():
            return [str(path)]  # whatever braces and brackets its name holds
        names = expand_braces(pattern) if pattern else []
        matches = {name: self._matches(name) for name in names}
        missing = [name for name in names if not matches[name]]
        if missing and len(missing) < len(names):
            raise SettingError(
                f"shards: {len(missing)} of the {len(names)} names in {printable(pattern)!r} match "
                f"nothing, first {printable(missing[0])!r}; mend the range or copy what is missing"
            )
        return sorted({shard for found in matches.values() for shard in found})

    def _matches(self, name: str) -> list[str]:
        if scheme(name):
            return self._remote.expand(name)
        path = str(Path(name).expanduser())
        if has_magic(path):
            return glob(path)  # noqa: PTH207 (patterns may be absolute)
        return [path] if Path(path).is_file() else []

    def stamp(self, shard: str) -> Stamp:
        """Return size and version of a shard as it is now.

        Raises:
            OSError: it is not there, or cannot be reached.
            SettingError: a protocol that cannot be used.
        """
        return self._side(shard).stamp(shard)

    def open(self, shard: str) -> BinaryIO:
        """Open for one sequential pass; seeking works. Nothing goes into the cache.

        Raises:
            OSError: it is not there, or cannot be reached.
            SettingError: a protocol that cannot be used.
        """
        return self._side(shard).open(shard)

    def read(self, shard: str, offset: int, size: int, stamp: Stamp | None = None) -> bytes:
        """Read a part of a shard.

        Args:
            shard: its name.
            offset: first byte.
            size: number of bytes.
            stamp: the version that the bytes must come from. With it, parts of remote shards are
                kept in the cache, and taken from there without asking the server.

        Returns:
            Exactly `size` bytes.

        Raises:
            OSError: fewer bytes, another version, or none at all; trying again may help.
            SettingError: a protocol or a server that cannot be used.
        """
        return self.read_parts(shard, [(offset, size)], stamp)[0]

    def read_parts(
        self, shard: str, extents: Sequence[tuple[int, int]], stamp: Stamp | None = None
    ) -> list[bytes]:
        """Read several parts, given by offset and size, of a shard.

        Remote ones that lie near together, as a sample's members do, take one request.

        Raises:
            OSError, SettingError: as `read`.
        """
        if not scheme(shard):
            return self._local.read_parts(shard, extents, stamp)
        start = min((offset for offset, _ in extents), default=0)
        size = max((offset + size for offset, size in extents), default=0) - start
        if size > sum(size for _, size in extents) + GAP:
            return [self._remote.read(shard, offset, size, stamp) for offset, size in extents]
        content = self._remote.read(shard, start, size, stamp)
        return [content[offset - start : offset - start + size] for offset, size in extents]

    @contextmanager
    def whole(self, shard: str) -> Iterator[BinaryIO]:
        """Open a shard that lies on this machine: itself, or a copy while the block runs.

        The copy of a remote shard has no name, so that nothing is left of it; it takes its size in
        the cache folder, whatever the bound. The server need not know ranges.

        Raises:
            OSError, SettingError: as `open`.
        """
        if not scheme(shard):
            with self._local.open(shard) as stream:
                yield stream
            return
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.cache_dir) as copy:
            self._remote.copy(shard, copy)
            copy.seek(0)
            yield copy

    def sidecar(self, shard: str) -> Path:
        """Return where the index of a shard is written: beside it, or else in the cache."""
        if not scheme(shard):
            path = Path(shard)
            if os.access(path.parent, os.W_OK):
                return path.with_name(f"{path.name}.index.json")
            shard = str(path.resolve())
        name = hashlib.sha256(shard.encode()).hexdigest()[:32]
        return self.cache_dir / "indexes" / f"{name}.index.json"

    def fetch_sidecar(self, shard: str) -> bytes | None:
        """Read `{shard}.index.json` from where the shard lies; None when it is not there.

        Raises:
            OSError: the server cannot be reached.
        """
        if scheme(shard):
            return self._remote.fetch_sidecar(shard)
        try:
            return Path(f"{shard}.index.json").read_bytes()
        except (FileNotFoundError, PermissionError):
            return None

    def _side(self, shard: str) -> "LocalShards | RemoteShards":
        return self._remote if scheme(shard) else self._local


class LocalShards:
    """Random reads of files that stay open, the ones used last."""

    def __init__(self) -> None:
        self._open: dict[str, _Descriptor] = {}
        self._most = _most_open_files()

    def stamp(self, shard: str) -> Stamp:
        """Return size and time of the last change."""
        return _stamp(shard, os.stat(shard))  # noqa: PTH116 (a Path would cost as much again)

    def open(self, shard: str) -> BinaryIO:
        """Open for a sequential pass."""
        return Path(shard).open("rb")

    def read_parts(
        self, shard: str, extents: Sequence[tuple[int, int]], stamp: Stamp | None
    ) -> list[bytes]:
        """Read exactly these parts; the file's stamp is compared each time."""
        held = self._descriptor(shard)
        try:
            return _read_parts(held.number, extents, stamp)
        except OSError:
            # The next attempt opens it anew: on a network disk a handle may be what went stale.
            self._open.pop(shard, None)
            raise

    def _descriptor(self, shard: str) -> "_Descriptor":
        found = self._open.pop(shard, None) or _Descriptor(shard)
        self._open[shard] = found  # the one used last is last
        if len(self._open) > self._most:
            for oldest in list(self._open)[: -self._most]:
                self._open.pop(oldest, None)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LocalShards.__init__(self)


class _Descriptor:
    """A file descriptor, closed when nobody holds it.

    Closing it when it leaves the LRU would let another thread read from whatever file gets its
    number next.
    """

    _close = staticmethod(os.close)  # still there while the interpreter goes down

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            self._close(self.number)


def _read_parts(file: int, extents: Sequence[tuple[int, int]], stamp: Stamp | None) -> list[bytes]:
    try:
        return [_pread(file, offset, size) for offset, size in extents]
    finally:
        # Afterwards, so that a change between two parts is seen, and told before a lack of bytes
        # that comes of it.
        if stamp:
            _compare(os.fstat(file), stamp)


def _pread(file: int, offset: int, size: int) -> bytes:
    content = os.pread(file, size, offset)
    while len(content) < size:  # Linux reads 2 GiB at most
        more = os.pread(file, size - len(content), offset + len(content))
        if not more:
            raise OSError(
                f"ends at byte {offset + len(content)}, expected {size} bytes from {offset}"
            )
        content += more
    return content


def _compare(status: os.stat_result, stamp: Stamp) -> None:
    if status.st_size != stamp.size or str(status.st_mtime_ns) != stamp.version:
        raise OSError(
            f"changed since it was indexed: {status.st_size:,} bytes of "
            f"{_moment(status.st_mtime_ns)} instead of {stamp.size:,} of {_moment(stamp.version)}"
        )


def _moment(nanoseconds: int | str) -> str:
    return datetime.fromtimestamp(int(nanoseconds) / 1e9).isoformat(" ", "milliseconds")


def _stamp(shard: str, status: os.stat_result) -> Stamp:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{shard} is not a file")
    return Stamp(status.st_size, str(status.st_mtime_ns))


def _most_open_files() -> int:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES if allowed == resource.RLIM_INFINITY else min(OPEN_FILES, allowed // 4)


def user_cache() -> Path:
    """Return the folder for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "lightning_llava"
