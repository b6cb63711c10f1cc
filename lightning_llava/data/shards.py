"""Write training records as WebDataset shards (the layout is described in `schema.py`)."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from webdataset.writer import TarWriter

from lightning_llava.data.schema import Sample, to_json
from lightning_llava.errors import SettingError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Full disk, full quota, and a file beyond what the file system or the shell's limit allows."""


class NoRoomError(SettingError):
    """A file could not be written for want of space; nothing of it was left behind."""


def write_shards(
    samples: Iterable[Sample], folder: Path, prefix: str, max_samples: int = 5000
) -> list[Path]:
    """Write samples to `{prefix}-{index:06d}.tar`, in their order.

    The same samples give byte-identical files. A file under its final name is always complete.
    Shards of the same prefix are replaced, and those left from a longer earlier run are removed, so
    that afterwards the prefix names these samples and no others.

    Args:
        samples: Read once, one at a time.
        folder: Where the shards go; created when missing.
        prefix: Start of the file names.
        max_samples: Samples per shard; the last shard may hold fewer.

    Returns:
        The shards in order; none when there are no samples.

    Raises:
        SettingError: a record with a problem, an image that is neither JPEG, PNG nor WebP, or a
            full disk; shards that were finished before it stay.
    """
    check_prefix(prefix)
    if max_samples < 1:
        raise SettingError(f"{max_samples} samples per shard; max_samples must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    numbered = enumerate(samples)
    shards: list[Path] = []
    while first := next(numbered, None):
        path = folder / shard_name(prefix, len(shards))
        write_shard(chain([first], islice(numbered, max_samples - 1)), path)
        shards.append(path)
    for path in existing_shards(folder, prefix):
        if path not in shards:
            path.unlink()
    return shards


def write_shard(numbered: Iterable[tuple[int, Sample]], path: Path) -> None:
    """Write one shard; afterwards the file is complete, or it is not there.

    Args:
        numbered: Samples, each after the number that becomes its key; read one at a time.
        path: Replaced when it exists.

    Raises:
        SettingError: a record with a problem, or an image that is neither JPEG, PNG nor WebP.
        NoRoomError: the disk is full.
    """
    # Fixed owner and time: nothing of the machine or the moment goes into the file.
    with (
        whole_file(path) as file,
        TarWriter(file, user="root", group="root", mtime=0, encoder=False) as tar,
    ):
        for number, sample in numbered:
            tar.write(_members(number, sample))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when all of it is on the disk.

    Raises:
        NoRoomError: the disk is full.
    """
    # Hidden and without the ending, so that no glob over shards ever finds it; with the process,
    # so that one that was given up and still writes cannot spoil its successor's file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoomError(
            f"no room to write {path.name} in {path.parent} ({error.strerror})"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that would lead out of the folder.

    Raises:
        SettingError: the prefix is not a plain file name.
    """
    if not prefix or Path(prefix).name != prefix:
        raise SettingError(
            f"shard prefix {prefix!r} is not a plain file name; give the folder apart from it"
        )


def shard_name(prefix: str, index: int) -> str:
    """Name a shard."""
    return f"{prefix}-{index:06d}.tar"


def existing_shards(folder: Path, prefix: str) -> list[Path]:
    """List the shards of this prefix that stand in a folder, in order."""
    candidates = folder.glob("*.tar") if folder.is_dir() else []
    return sorted(path for path in candidates if _is_shard_name(path.stem, prefix))


def image_extension(encoded: bytes) -> str | None:
    """Tell `jpg`, `png` or `webp` by the first bytes; None for anything else."""
    if encoded.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    return None


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_shard_name(stem: str, prefix: str) -> bool:
    number = stem.removeprefix(f"{prefix}-")
    return number != stem and len(number) == 6 and number.isdecimal()


def _members(number: int, sample: Sample) -> dict[str, str | bytes]:
    if problem := sample.problem():
        raise SettingError(f"{_name(sample)}: {problem}; mend the source or leave the record out")
    members: dict[str, str | bytes] = {"__key__": f"{number:09d}", "json": to_json(sample)}
    for position, encoded in enumerate(sample.images):
        extension = image_extension(encoded)
        if extension is None:
            raise SettingError(
                f"{_name(sample)}: image {position} begins with {encoded[:8]!r}, expected JPEG,"
                " PNG or WebP; convert it or leave the record out"
            )
        members[extension if len(sample.images) == 1 else f"{position}.{extension}"] = encoded
    return members


def _name(sample: Sample) -> str:
    return f"record {sample.id!r} of source {sample.source!r}"
