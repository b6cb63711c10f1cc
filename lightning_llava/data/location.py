"""What the name of a shard says: where it lies, which names a pattern means, how it is printed."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from braceexpand import braceexpand

from lightning_llava.errors import SettingError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:::\S*)?://|(pipe):")


@dataclass(frozen=True)
class Stamp:
    """What tells one version of a shard from another."""

    size: int
    """Bytes."""
    version: str
    """Local: the time of the last change in nanoseconds. Remote: what the file system gives for it
    (ETag, checksum, date); empty where it gives nothing."""


@lru_cache(maxsize=1 << 16)  # asked at every read
def scheme(shard: str) -> str:
    """Return the protocol of a remote shard, and nothing for a local one."""
    match = _SCHEME.match(shard)
    return (match[1] or match[2]).lower() if match else ""


def printable(shard: str) -> str:
    """Leave out what may be secret, user, password and query, for messages and logs."""
    if not (protocol := scheme(shard)):
        return shard
    host, slash, path = shard.partition("://")[2].partition("/")
    path, query, _ = (host.rpartition("@")[2] + slash + path).partition("?")
    return (
        f"{protocol}:{'//' * ('://' in shard)}{path}{query and '?…'}" if path else f"{protocol}:…"
    )


def shard_name(shard: str) -> str:
    """Return the file name alone, without a URL's query."""
    return PurePosixPath(urlsplit(shard).path if scheme(shard) else shard).name


def expand_braces(pattern: str) -> list[str]:
    """Write out `x-{000000..000131}.tar` and `{a,b}.tar`.

    Raises:
        SettingError: braces that do not close.
    """
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError as error:
        raise SettingError(
            f"shards: the braces of {printable(pattern)!r} do not close; "
            "expected something like x-{000000..000131}.tar"
        ) from error
