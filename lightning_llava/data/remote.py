"""Shards on servers, through fsspec: range reads behind a disk cache."""

import io
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lightning_llava.data.http_range import NoRangesError, http_download, http_range, http_stamp
from lightning_llava.data.location import Stamp, printable, scheme
from lightning_llava.data.range_cache import RangeCache
from lightning_llava.errors import SettingError

BLOCK = 4 << 20
"""Bytes per request in a sequential pass."""

RECHECK_SECONDS = 60.0
"""How long the version of a shard is believed where a range read does not tell it, that is
everywhere but over HTTP."""

ATTEMPTS, FIRST_PAUSE_S = 4, 0.2
"""How often a stamp, or a block of a sequential pass, is asked for, and the pause before the second
time; each further pause is twice as long. (Single reads are the caller's to repeat.)"""

VERSIONS = (
    *("ETag", "etag", "generation", "blob_id", "md5Hash", "content_md5", "checksum"),
    *("LastModified", "last_modified", "mtime", "modify", "last_write_time", "modified", "created"),
)
"""Under which names file systems tell a file's version, the strictest first."""

REFUSED = frozenset(
    [
        *(
            "file",
            "local",
            "asynclocal",
            "dir",
            "data",
            "git",
            "dvc",
            "jlab",
            "jupyter",
            "pyscript",
        ),
        *("cached", "blockcache", "filecache", "simplecache", "reference", "zip", "tar"),
        *("libarchive", "dask", "generic", "async_wrapper", "asyncwrapper", "arrow_hdfs"),
    ]
)
"""fsspec protocols that lead to files of this machine, or from one file system into another."""

Answer = TypeVar("Answer")

_SYSTEMS: dict[tuple[int, str, str], Any] = {}
"""File systems by process, protocol and host. An entry is never dropped: in a forked worker that
would close the parent's connections, on the parent's event loop."""


class RemoteShards:
    """Random reads of remote files.

    Args:
        cache: folder for the ranges that were read.
        cache_bytes: most that they may take there.
    """

    def __init__(self, cache: Path, cache_bytes: int) -> None:
        self._cache = RangeCache(cache, cache_bytes)
        self._seen: dict[str, tuple[float, Stamp]] = {}

    def expand(self, name: str) -> list[str]:
        """List what a glob matches; a plain name is returned as it is."""
        with _explained(name):
            fs = _file_system(name)
            path = name.partition("://")[2].partition("/")[2]
            if scheme(name) in ("http", "https"):
                path = path.partition("?")[0]  # what follows is no part of a name
            if not re.search(r"[*?[]", path):
                return [name]
            return sorted(str(fs.unstrip_protocol(found)) for found in fs.glob(name))

    def stamp(self, shard: str) -> Stamp:
        """Ask the server for size and version."""
        stamp = _patiently(lambda: self._ask(shard))
        self._seen[shard] = time.monotonic(), stamp
        return stamp

    def _ask(self, shard: str) -> Stamp:
        with _explained(shard):
            fs = _file_system(shard)
            if _is_http(shard):
                return http_stamp(fs, shard)
            fs.invalidate_cache()
            facts = fs.info(shard)
            if facts["type"] != "file" or facts["size"] is None:
                raise OSError("not a file of known size")
            version = next((str(facts[key]) for key in VERSIONS if facts.get(key)), "")
            return Stamp(int(facts["size"]), version)

    def open(self, shard: str) -> BinaryIO:
        """Open for a sequential pass in blocks; another version in the middle is an error."""
        stamp = self.stamp(shard)

        def fetch(offset: int, size: int) -> bytes:
            return _patiently(lambda: self._fetch(shard, offset, size, stamp))

        return io.BufferedReader(_RangeFile(fetch, stamp.size), BLOCK)  # pyright: ignore[reportReturnType]

    def copy(self, shard: str, file: BinaryIO) -> None:
        """Write a whole shard into a file, whether the server knows ranges or not."""
        try:
            with self.open(shard) as stream:
                shutil.copyfileobj(stream, file, BLOCK)
        except NoRangesError:
            file.seek(0)
            file.truncate()
            with _explained(shard):
                http_download(_file_system(shard), shard, file)

    def read(self, shard: str, offset: int, size: int, stamp: Stamp | None) -> bytes:
        """Read exactly `size` bytes, from the cache or in one request."""
        # Nothing is kept of a file without a version: nobody could tell that it is stale.
        key = f"{shard} {stamp} {offset} {size}" if stamp and stamp.version else None
        content = self._cache.get(key) if key else None
        if content is None:
            content = self._fetch(shard, offset, size, stamp)
            if key:
                self._cache.put(key, content)
        return content

    def fetch_sidecar(self, shard: str) -> bytes | None:
        """Read the index that was published beside a shard."""
        _file_system(shard)  # a protocol that cannot be used is no missing index
        path, query, secret = shard.partition("?" if _is_http(shard) else "\0")
        name = f"{path}.index.json{query}{secret}"
        try:
            return self._fetch(name, 0, self.stamp(name).size, None)
        except (FileNotFoundError, PermissionError, SettingError):
            return None

    def _fetch(self, shard: str, offset: int, size: int, stamp: Stamp | None) -> bytes:
        if not size:
            return b""
        found = self._recent_stamp(shard) if stamp and not _is_http(shard) else stamp
        with _explained(shard):
            fs = _file_system(shard)
            if _is_http(shard):
                content, found = http_range(fs, shard, offset, size)
            else:
                content = fs.cat_file(shard, start=offset, end=offset + size)
            if stamp and content and found != stamp:  # an answer without content tells no version
                raise OSError(f"changed since it was indexed: {found}, then {stamp}")
            if len(content) != size:
                raise OSError(f"{len(content)} bytes from {offset}, expected {size}")
            return content

    def _recent_stamp(self, shard: str) -> Stamp:
        asked, stamp = self._seen.get(shard, (-RECHECK_SECONDS, None))
        if stamp and time.monotonic() - asked < RECHECK_SECONDS:
            return stamp
        return self.stamp(shard)


class _RangeFile(io.RawIOBase):
    """A remote file of known size; every read is a request."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._position = fetch, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def readall(self) -> bytes:  # Python's own goes in requests of 8 KiB
        parts: list[bytes] = []
        while part := self.read(BLOCK):
            parts.append(part)
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._position))
        buffer[:size] = self._fetch(self._position, size)
        self._position += size
        return size


def _is_http(shard: str) -> bool:
    return scheme(shard) in ("http", "https")


def _file_system(shard: str) -> Any:
    """Return this process's file system for a shard: event loops and connections do not fork."""
    protocol = scheme(shard)
    if protocol == "pipe":
        raise SettingError(
            "shards: `pipe:` would run a shell command; give the URL itself (http, s3, gs, hf)"
        )
    if protocol in REFUSED or "::" in shard:
        raise SettingError(
            f"shards: {printable(shard)!r} leads through the protocol {protocol!r}; expected a "
            "path of this machine, or one of http, https, s3, gs, hf and fsspec's other remote ones"
        )
    try:
        from fsspec import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError as error:
        raise SettingError(
            f"{protocol}:// needs the package fsspec; pip install 'lightning-llava[data]'"
        ) from error
    if protocol not in known_implementations:
        raise SettingError(
            f"shards: {printable(shard)!r} has the unknown protocol {protocol!r}; expected http, "
            "https, s3, gs, hf or another of fsspec's"
        )
    key = os.getpid(), protocol, shard.partition("://")[2].partition("/")[0]
    if key not in _SYSTEMS:
        _SYSTEMS[key] = url_to_fs(shard, skip_instance_cache=True)[0]
    return _SYSTEMS[key]


def _patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again after errors that may pass."""
    pause = FIRST_PAUSE_S
    for _ in range(ATTEMPTS - 1):
        try:
            return ask()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(pause)
            pause *= 2
    return ask()


@contextmanager
def _explained(shard: str) -> Iterator[None]:
    """Turn what the many file systems raise into `OSError`, without logins and signatures."""
    try:
        yield
    except SettingError:
        raise
    except ImportError as error:
        raise SettingError(
            f"reading {printable(shard)} needs a package that is not installed ({error}); "
            "for http: pip install 'lightning-llava[data]'; for s3: s3fs; for gs: gcsfs; "
            "for hf: huggingface_hub"
        ) from error
    except Exception as error:
        known = isinstance(error, FileNotFoundError | PermissionError)
        kind = type(error) if known else OSError
        # The chain would print the URL again, with all that it holds.
        raise kind(f"{printable(shard)}: {_reason(error, shard)}") from None


def _reason(error: Exception, shard: str) -> str:
    text = str(error).replace(shard, printable(shard)) or type(error).__name__
    text = re.sub(r"//[^/\s@]*@", "//", text)
    return re.sub(r"\?[^\s'\")]+", "?…", text)
