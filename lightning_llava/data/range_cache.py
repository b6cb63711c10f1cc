"""Parts of remote shards on this machine's disk, within a bound, shared by all processes."""

import fcntl
import hashlib
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BLOCK = 4096
"""What the smallest file takes on most disks; sizes are counted in whole blocks."""

KEPT = 0.8
"""Share of the bound that is left after throwing out, so that it is done seldom."""


class RangeCache:
    """Files of one range each, those used longest ago thrown out first.

    Writers take turns by a lock on the file `used`, which also holds the total; so the bound is
    kept whatever number of processes write. Readers need no lock: a file is complete or not there,
    and its checksum is compared.

    Args:
        folder: created at the first write.
        most: bytes that all files may take; 0 keeps nothing.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most
        self._warned = False

    def get(self, key: str) -> bytes | None:
        """Return what was put under a key; None when it is not there, or damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # used now: many disks do not note the time of reading
        except OSError:  # never there, or thrown out by another process a moment ago
            return None
        payload, checksum = content[:-4], content[-4:]
        return payload if _checksum(payload) == checksum else None

    def put(self, key: str, payload: bytes) -> None:
        """Keep bytes under a key. A disk that is full or read-only is worth a warning only."""
        content = payload + _checksum(payload)
        if _blocks(len(content)) > self.most:
            return
        try:
            with self._total(_blocks(len(content))):
                path = self._path(key)
                path.parent.mkdir(exist_ok=True)
                partial = path.with_suffix(".partial")
                try:
                    partial.write_bytes(content)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"the cache of remote shards, {self.folder}, cannot be written ({error}); "
                    "reading goes on without it",
                    stacklevel=2,
                )

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:]

    @contextmanager
    def _total(self, more: int) -> Iterator[None]:
        """Hold the lock while `more` bytes are written, and make room for them."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ledger = os.open(self.folder / "used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(ledger, fcntl.LOCK_EX)
            written = os.pread(ledger, 20, 0)
            used = int(written) if written.isdigit() else self._throw_out(self.most)
            if used + more > self.most:
                used = self._throw_out(min(int(KEPT * self.most), self.most - more))
            # Before the bytes themselves: a kill in between leaves a total that is too high, which
            # the next throwing out mends, and never one that is too low.
            os.pwrite(ledger, b"%020d" % (used + more), 0)
            yield
        finally:
            os.close(ledger)  # and with it the lock

    def _throw_out(self, most: int) -> int:
        """Delete the files used longest ago until the rest takes `most` bytes; return the rest."""
        files: list[tuple[int, int, str]] = []
        for folder in self.folder.glob("??"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime_ns, _blocks(status.st_size), entry.path))
        used = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if used <= most:
                break
            Path(path).unlink(missing_ok=True)
            used -= size
        return used


def _checksum(payload: bytes) -> bytes:
    return zlib.crc32(payload).to_bytes(4, "little")


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
