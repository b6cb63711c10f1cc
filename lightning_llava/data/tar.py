"""The members of a tar file, with every check that the standard library's reader leaves out.

`tarfile` parses the headers here, block by block; the walk is ours, because its own stops without a
word at a damaged header, at a cut, and where a second tar follows (CPython, tarfile.py:
TarFile.next). Nothing is ever extracted: a member is a name, a kind and an extent.
"""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

Extent = tuple[int, int]
"""Offset and size, in bytes, of a member's content in its tar."""
BLOCK = tarfile.BLOCKSIZE
EXTENDED_LIMIT = 1 << 20
"""Most bytes of an extended header; a real one takes less than a block."""
TAIL_CHUNK = 1 << 20
"""Bytes read at once when everything behind a tar's end must be zero."""
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "named pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
LONG_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
WITHOUT_CONTENT = ("folder", "hard link", "symbolic link", "device", "named pipe")
"""Kinds whose header is all there is, whatever size it states."""


class Member(NamedTuple):
    """One entry of a tar."""

    name: str
    """As it is written; bytes that are no UTF-8 become lone surrogates."""
    kind: str
    """`file`, or what else it is, in words."""
    content: Extent


class TarDamage(Exception):  # noqa: N818  # it is what was found, not an error of the walk
    """Where a tar stops making sense; the members before that are sound.

    Args:
        at: byte of the damage.
        reason: what was found there.
        name: the member whose content is cut off, if it is one.
    """

    def __init__(self, at: int, reason: str, name: str | None = None) -> None:
        super().__init__(reason)
        self.at, self.reason, self.name = at, reason, name


def tar_members(stream: BinaryIO, size: int) -> Iterator[Member]:
    """Walk a plain tar from header to header; the content in between is not read.

    GNU long names and pax headers are resolved. The stream may be moved between two members.

    Args:
        stream: seekable.
        size: of the whole file, in bytes.

    Raises:
        TarDamage: after the last sound member, when the file does not end as a tar must.
    """
    position, defaults = 0, dict[str, str]()
    while True:
        header, extended, position = _next_header(stream, position, size, defaults)
        if header is None:
            return
        sparse = any(key.startswith("GNU.sparse.") for key in extended)
        kind = KINDS.get(header.type, f"member of the unknown type {header.type!r}")
        name = extended.get("GNU.sparse.name") or extended.get("path") or header.name
        length = _length(header, extended, position)
        if header.type == tarfile.GNUTYPE_SPARSE:
            position = _skip_sparse_map(stream, position, size)
        length = 0 if kind in WITHOUT_CONTENT else length
        if position + length > size:
            missing = position + length - size
            raise TarDamage(size, f"the content of {name!r} ends {missing} bytes early", name)
        yield Member(name, "sparse file" if sparse else kind, (position, length))
        position += _padded(length)


def _next_header(
    stream: BinaryIO, position: int, size: int, defaults: dict[str, str]
) -> tuple[tarfile.TarInfo | None, dict[str, str], int]:
    """Read the header of the next member, and what extended headers in front of it say.

    Returns:
        The header (None at a proper end), the extended values, and where the content begins.
    """
    extended, start = dict(defaults), position
    while True:
        block = _block(stream, position, size)
        if not any(block):
            if position != start:
                raise TarDamage(position, "nothing follows an extended header")
            _check_tail(stream, position, size)
            return None, {}, position
        header = _parse(block, position)
        position += BLOCK
        if header.type not in PAX_TYPES + LONG_TYPES:
            return header, extended, position
        payload = _extended(stream, position, size, header)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            extended["path"] = payload.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif header.type in PAX_TYPES:
            values = _pax_values(payload, position)
            extended |= values
            if header.type == tarfile.XGLTYPE:
                defaults |= values
        position += _padded(header.size)


def _block(stream: BinaryIO, position: int, size: int) -> bytes:
    """Read the block where a header must stand."""
    if position >= size:
        found = "the file is empty" if not size else "the zero blocks that end a tar are missing"
        raise TarDamage(size, found)
    stream.seek(position)
    block = stream.read(BLOCK)
    if len(block) < BLOCK:
        if position == 0:
            raise TarDamage(0, not_a_tar(block))
        raise TarDamage(position, f"only {len(block)} of a header's {BLOCK} bytes are there")
    return block


def _parse(block: bytes, position: int) -> tarfile.TarInfo:
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if position == 0:
            raise TarDamage(0, not_a_tar(block)) from error
        raise TarDamage(position, f"no tar header: {error}") from error
    if header.size < 0:
        raise TarDamage(position, f"a header with the size {header.size}")
    return header


def not_a_tar(start: bytes) -> str:
    """Say what a file that is no tar looks like by its first bytes."""
    for magic, name in COMPRESSIONS.items():
        if start.startswith(magic):
            return f"compressed with {name}, expected a plain tar: unpack it"
    return f"not a tar (begins with {start[:16]!r})"


def _check_tail(stream: BinaryIO, position: int, size: int) -> None:
    """Refuse anything but zeros behind the first zero block; tars are padded to any length."""
    while position < size:
        stream.seek(position)
        chunk = stream.read(TAIL_CHUNK)
        if not chunk:
            raise TarDamage(position, f"the file ends here, not at byte {size}")
        if any(chunk):
            at = position + len(chunk) - len(chunk.lstrip(b"\0"))
            raise TarDamage(at, "the file goes on after the end of the tar (is it two in one?)")
        position += len(chunk)


def _length(header: tarfile.TarInfo, extended: dict[str, str], position: int) -> int:
    """Return the stored size of the content; pax may state it instead of the header."""
    if "size" not in extended:
        return header.size
    stated = extended["size"]
    if not (stated.isascii() and stated.isdigit() and len(stated) < 20):
        raise TarDamage(position, f"an extended header with the size {stated[:32]!r}")
    return int(stated)


def _extended(stream: BinaryIO, position: int, size: int, header: tarfile.TarInfo) -> bytes:
    if header.size > EXTENDED_LIMIT:
        raise TarDamage(position, f"an extended header of {header.size} bytes")
    stream.seek(position)
    payload = stream.read(header.size)
    if len(payload) < header.size:
        raise TarDamage(size, "cut off inside an extended header")
    return payload


def _pax_values(payload: bytes, position: int) -> dict[str, str]:
    """Read the `length key=value` lines of a pax header (POSIX.1-2001, pax interchange format)."""
    values, start = dict[str, str](), 0
    payload = payload.rstrip(b"\0")
    while start < len(payload):
        length, _, _ = payload[start : start + 20].partition(b" ")
        end = start + (int(length) if length.isdigit() else 0)
        key, equals, value = payload[start + len(length) + 1 : end].partition(b"=")
        if not equals or end > len(payload) or not value.endswith(b"\n"):
            raise TarDamage(position, "a pax header that cannot be read")
        values[key.decode("utf-8", "surrogateescape")] = value[:-1].decode(
            "utf-8", "surrogateescape"
        )
        start = end
    return values


def _skip_sparse_map(stream: BinaryIO, position: int, size: int) -> int:
    """Pass the blocks that an old GNU sparse header goes on in (flags at bytes 482 and 504)."""
    flag_at, base = 482, position - BLOCK
    while True:
        stream.seek(base + flag_at)
        if stream.read(1) in (b"\0", b""):
            return position
        flag_at, base = 504, position
        position += BLOCK
        if position > size:
            raise TarDamage(size, "cut off inside the map of a sparse file")


def _padded(size: int) -> int:
    """Round up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
