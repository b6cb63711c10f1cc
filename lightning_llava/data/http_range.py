"""Range reads over HTTP that notice when the file changed or the server sends something else.

fsspec's own `cat_file` reads a whole shard into memory from a server without ranges, and hides the
headers that tell the version; its session and event loop are used here all the same, and so is the
user's fsspec configuration (headers, logins, proxies).
"""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO

from lightning_llava.data.location import Stamp, printable
from lightning_llava.errors import SettingError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

CONNECT_SECONDS, SILENCE_SECONDS = 30, 60
"""How long a server may take to accept a connection, and be silent within one."""

CHUNK = 1 << 20
"""Bytes that a download holds in memory."""

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)$")


class NoRangesError(SettingError):
    """The server sends whole files only."""


def http_stamp(fs: Any, url: str) -> Stamp:
    """Ask for one byte: signed URLs often refuse HEAD, and so it is seen whether ranges work."""
    return http_range(fs, url, 0, 1)[1]


def http_range(fs: Any, url: str, offset: int, size: int) -> tuple[bytes, Stamp]:
    """Read up to `size` bytes in one request.

    Args:
        fs: fsspec's HTTP file system.
        url: of the file.
        offset: first byte.
        size: number of bytes, at least 1.

    Returns:
        The bytes, fewer only where the file ends, and the version that they come from.

    Raises:
        NoRangesError: the server knows no ranges.
        Exception: whatever the connection raises.
    """
    from fsspec.asyn import sync

    answer: Any = sync(fs.loop, _get, fs, url, offset, size)
    return answer


def http_download(fs: Any, url: str, file: BinaryIO) -> None:
    """Copy a whole file, from a server that knows no ranges.

    Raises:
        Exception: whatever the connection raises; fewer bytes than announced are an error too.
    """
    from fsspec.asyn import sync

    sync(fs.loop, _download, fs, url, file)


async def _get(fs: Any, url: str, offset: int, size: int) -> tuple[bytes, Stamp]:
    session = await fs.set_session()
    wanted = {"Range": f"bytes={offset}-{offset + size - 1}"}
    async with session.get(fs.encode_url(url), **_options(fs, wanted)) as response:
        total = _check(response, url, offset, size)
        headers = response.headers
        stamp = Stamp(total, headers.get("ETag") or headers.get("Last-Modified") or "")
        expected = min(size, max(0, total - offset))
        content = await response.content.readexactly(expected) if expected else b""
    return content, stamp


async def _download(fs: Any, url: str, file: BinaryIO) -> None:
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), **_options(fs, {})) as response:
        if response.status != HTTPStatus.OK:
            raise OSError(f"the server answers {response.status} {response.reason}")
        async for chunk in response.content.iter_chunked(CHUNK):
            file.write(chunk)


def _options(fs: Any, headers: dict[str, str]) -> dict[str, Any]:
    """Return the options of a request: ours below the user's, the headers of the range above."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
    # Offsets are those of the file itself, not of a compressed transfer.
    headers = {**fs.kwargs.get("headers", {}), **headers, "Accept-Encoding": "identity"}
    return {"timeout": timeout, **fs.kwargs, "headers": headers}


def _check(response: "ClientResponse", url: str, offset: int, size: int) -> int:
    """Refuse an answer that is not the range asked for; return the size of the whole file."""
    status, length = response.status, response.content_length
    if status == HTTPStatus.NOT_FOUND:
        raise FileNotFoundError("the server has no such file (404)")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise PermissionError(f"the server refuses ({status}); log in by fsspec's configuration")
    if status == HTTPStatus.OK and length is not None and (offset, length) in ((0, 0), (0, size)):
        return length  # all of it is what was asked for
    if status == HTTPStatus.OK:
        raise NoRangesError(
            f"shard {printable(url)}: the server answers a range request with the whole file, so "
            "samples cannot be read one by one; serve it with range requests, copy the shards to "
            "this machine, or set data.mode: streaming"
        )
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and found:
        return int(found[3])
    if status != HTTPStatus.PARTIAL_CONTENT or not found or not found[1]:
        raise OSError(f"the server answers {status} {response.reason}")
    total, end = int(found[3]), int(found[2]) + 1
    if int(found[1]) != offset or end != min(offset + size, total):
        raise OSError(f"the server sends bytes {found[1]}-{found[2]}, not {size} from {offset}")
    return total
