"""Checkpoint files that are whole or absent, whenever the process is killed or the disk is full."""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lightning_llava.errors import SettingError

UNFINISHED = ".unfinished"
"""How temporary names end; they begin with a dot and the name that the file is to have."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that say: no room, on the disk, in the quota, or below the limit on a file's size."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints under a temporary name, and give them theirs when they are on the disk.

    The bytes go straight into the file: Lightning's own class first builds a second copy in memory,
    moves it from another folder, and does not wait for the disk. Paths with `://` are left to it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a file, or leave the one of that name as it was.

        Raises:
            SettingError: the disk is full, or the folder cannot be written.
        """
        if is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _appears(path) as unfinished, unfinished.open("xb") as file:
                _write(checkpoint, file)
        except OSError as error:
            raise SettingError(_failure(path, error, lambda: _size(checkpoint))) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read tensors and plain values; code in a checkpoint is never run."""
        return super().load_checkpoint(path, map_location, weights_only=True)


def link_atomically(target: Path, link: Path) -> None:
    """Make `link` name `target`, so that at any moment it names the old or the new one.

    Where there are no symbolic links it becomes a copy.

    Raises:
        SettingError: the disk is full, or the folder cannot be written.
    """
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)  # a sharded checkpoint is a folder, and no link can replace one
    try:
        with _appears(link) as unfinished:
            try:
                unfinished.symlink_to(os.path.relpath(target, link.parent))
            except OSError as error:
                if error.errno in FULL:
                    raise
                shutil.copyfile(target, unfinished)
                with unfinished.open("rb+") as file:
                    os.fsync(file.fileno())
    except OSError as error:
        raise SettingError(_failure(link, error, lambda: target.stat().st_size)) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what runs that were killed while they saved have left."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


def is_remote(path: str | Path) -> bool:
    """Tell a URL (`s3://…`) from a path of this machine."""
    return "://" in str(path)


@contextmanager
def _appears(path: Path) -> Iterator[Path]:
    """Yield a temporary name in the same folder; at the end it takes the place of `path`."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        unfinished.unlink(missing_ok=True)  # of a process that had the same number
        yield unfinished
        unfinished.replace(path)
        _sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        # torch fails once more when it closes its archive, which hides the reason.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until the new name is on the disk too."""
    if os.name == "nt":  # folders cannot be opened there
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _size(checkpoint: dict[str, Any]) -> int:
    """Count the bytes that a checkpoint takes as a file."""
    counter = _Counter()
    torch.save(checkpoint, counter)  # pyright: ignore[reportArgumentType]
    return counter.bytes


class _Counter(io.RawIOBase):
    bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)


def _failure(path: Path, error: OSError, size: Callable[[], int]) -> str:
    said = f"cannot write the checkpoint {str(path)!r} ({error.strerror})"
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free
        said += f": it takes {size():,} bytes, and {str(path.parent)!r} has {free:,} free"
    return (
        f"{said}; make room there, set checkpoint.dirpath to a folder with more, or lower "
        f"checkpoint.keep (there must be room for one more than it keeps). {_last_good(path)}"
    )


def _last_good(path: Path) -> str:
    last = path.with_name("last.ckpt")
    if last.is_file():
        return f"The run can be continued with --ckpt_path {last} ({last.resolve().name})"
    return "No checkpoint was saved before it"
