"""One pass over a shard: which samples it holds, where they lie, and what is wrong with the rest.

Only the records and the first bytes of the images are read. Members are grouped by key wherever
they stand, and a key's members are all used or all left out, so nothing is ever paired by accident.
"""

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from lightning_llava.data.image_decode import MOST_PIXELS, check_size, decode
from lightning_llava.data.schema import IMAGE_EXTENSIONS, Sample, from_json, is_text
from lightning_llava.data.tar import Extent, Member, TarDamage, tar_members
from lightning_llava.errors import SettingError

RECORD_LIMIT = 64 << 20
"""Most bytes of a record that are read; conversations take a few thousand."""
IMAGE_LIMIT = 512 << 20
"""Most bytes of an encoded image that are read."""
HEAD = 16 << 10
"""Bytes of an image that are tried first: enough for the headers of nearly all."""
IMAGE_NUMBER = re.compile("[0-9]{1,6}")
"""A longer one is a time or an id: part of a dotted name."""
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
NOT_TOGETHER = "samples joined whose members do not stand together"
NO_SAMPLE = "the shard holds no sample"


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image whose header is sound."""

    extent: Extent
    size: tuple[int, int]
    """Width and height in pixels, as stored."""


@dataclass(frozen=True, slots=True)
class FoundSample:
    """A sample that is complete and keeps to the schema."""

    key: str
    extent: Extent
    """Of the record."""
    images: list[FoundImage]
    """In the order in which the placeholders consume them."""
    record: Sample
    """With one empty `bytes` per image."""


@dataclass
class Scan:
    """What a pass found besides the samples."""

    quarantine: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of everything left out; the key is empty where it is the shard itself."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was mended or ignored without a loss."""
    is_tar: bool = True
    """Whether the file begins as a tar does."""


@dataclass
class _Group:
    """The members of one key."""

    record: Extent | None = None
    payload: bytes = b""
    images: dict[int, FoundImage] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    """By what a member is (`json`, or the number of an image), how it is spelt."""
    problem: str = ""
    """The first one; decides."""
    last: int = -1
    """Number of its last member."""
    joined: bool = False


def scan_shard(
    stream: BinaryIO, size: int, scan: Scan, decode_images: bool = False
) -> Iterator[FoundSample]:
    """Find the samples of a shard, in the order of their first members.

    Args:
        stream: the shard, seekable.
        size: of the shard, in bytes.
        scan: takes the problems.
        decode_images: decode every image to its last pixel.

    Raises:
        OSError: the bytes cannot be read.
    """
    with warnings.catch_warnings():
        # Pillow's remarks on single images; its limit on pixels is an error of its own.
        warnings.simplefilter("ignore")
        groups, cut = _group(stream, size, scan, decode_images)
    for key, group in groups.items():
        try:
            found = _sample(key, group)
        except SettingError as error:
            reason = f"stands where the shard is damaged ({error})" if key == cut else str(error)
            scan.quarantine.append((key, reason))
        else:
            scan.notes[NOT_TOGETHER] += group.joined
            yield found
    scan.notes = +scan.notes  # without zeros
    if not groups and not scan.quarantine:
        scan.quarantine.append(("", NO_SAMPLE))


def countable(reason: str) -> str:
    """Leave out what differs from sample to sample: the parenthesis at the end."""
    return reason.partition(" (")[0] if reason.endswith(")") else reason


def image_size(encoded: bytes) -> tuple[int, int]:
    """Return width and height by an image's header.

    Raises:
        SettingError: no JPEG, PNG or WebP, or more pixels than training decodes; the text goes on
            from "image 0".
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS) as image:
            check_size(*image.size)
            return image.size
    except SettingError as error:
        raise SettingError(str(error).removeprefix("the image ")) from error
    except UnidentifiedImageError as error:  # its text holds an address in memory
        raise SettingError(
            f"has no header of a JPEG, PNG or WebP (begins with {encoded[:8]!r})"
        ) from error
    except Image.DecompressionBombError as error:
        raise SettingError(
            f"cannot be decoded (over the limit of {MOST_PIXELS:,} pixels: {error})"
        ) from error
    except Exception as error:  # Pillow's plugins raise what a broken file makes them raise
        raise SettingError(
            f"has a header that cannot be read ({type(error).__name__}: {error})"
        ) from error


def _group(
    stream: BinaryIO, size: int, scan: Scan, decode_images: bool
) -> tuple[dict[str, _Group], str | None]:
    """Collect the known members by key; say which key was the last before damage."""
    groups: dict[str, _Group] = {}
    last: str | None = None
    try:
        for number, member in enumerate(_known(tar_members(stream, size), scan)):
            key, ending = member[0], member[1]
            group = groups.setdefault(key, _Group())
            group.joined |= group.last >= 0 and last != key
            group.last, last = number, key
            try:
                _add(group, ending, member[2], stream, decode_images)
            except SettingError as error:
                group.problem = group.problem or str(error)
    except TarDamage as damage:
        split = split_name(damage.name) if damage.name else None
        if split and is_known(split[1]):
            last = split[0]
            cut = groups.setdefault(last, _Group())
            cut.problem = cut.problem or damage.reason
        scan.is_tar = damage.at > 0
        lost = "the shard is damaged and what follows is lost"
        where = f"{lost} (at byte {damage.at}: {damage.reason})"
        scan.quarantine.append(("", where if scan.is_tar else damage.reason))
        return groups, last
    return groups, None


def _known(members: Iterator[Member], scan: Scan) -> Iterator[tuple[str, str, Member]]:
    """Pass on the members that may belong to samples, with key and ending."""
    for member in members:
        split = split_name(member.name)
        if split and is_known(split[1]) and member.kind != "folder":
            yield *split, member
        elif member.kind != "folder":
            ending = member.name.rpartition("/")[2].rpartition(".")[2].lower()
            plain = ending.isascii() and ending.isalnum() and len(ending) <= 8
            scan.notes[f"members ignored that end in .{ending if plain else '…'}"] += 1


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member's name into key and ending at the first dot of its last part.

    As webdataset does (tariterators.py: base_plus_ext); None where there is no key, as in `.json`.
    """
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return (folder + slash + stem, ending.lower()) if stem and dot else None


def is_known(ending: str) -> bool:
    """Tell whether an ending is that of a record or an image, rightly named or not."""
    return ending.rpartition(".")[2] in ("json", *IMAGE_EXTENSIONS)


def _add(group: _Group, ending: str, member: Member, stream: BinaryIO, decode_images: bool) -> None:
    """Check a member and put it into its group.

    Raises:
        SettingError: it cannot be used, and so the sample cannot.
    """
    _check_name(member)
    number, dot, extension = ending.rpartition(".")
    if dot and not (extension in IMAGE_EXTENSIONS and IMAGE_NUMBER.fullmatch(number)):
        raise SettingError(
            "a name has more dots than the one before its ending, and webdataset ends the key of a "
            f"sample at the first: rename the members ({member.name!r})"
        )
    part = "json" if ending == "json" else str(int(number or 0))
    if part in group.endings:
        raise SettingError(f"a member is there twice ({group.endings[part]} and {ending})")
    group.endings[part] = ending
    if ending == "json":
        group.record = member.content
        group.payload = _read(stream, member.content, "the record takes", RECORD_LIMIT)
        return
    try:
        size = _measure(stream, member.content, decode_images)
    except SettingError as error:
        raise SettingError(f"image {part} {error}") from error
    group.images[int(part)] = FoundImage(member.content, size)


def _check_name(member: Member) -> None:
    parts = re.split(r"[/\\]", member.name)
    if ".." in parts or not parts[0]:
        raise SettingError(f"its name leaves the folder of the shard ({member.name!a})")
    if not is_text([member.name]):
        raise SettingError(f"its name is no UTF-8 ({member.name!a})")
    if member.kind != "file":
        raise SettingError(
            f"a {member.kind}, which is never followed; store the file itself ({member.name!r})"
        )


def _measure(stream: BinaryIO, extent: Extent, decode_images: bool) -> tuple[int, int]:
    """Return an image's width and height; its whole content is read where the head is not enough.

    Raises:
        SettingError: to be read after "image 0".
    """
    offset, length = extent
    if not length:
        raise SettingError("is empty")
    try:
        size = image_size(_read(stream, (offset, min(length, HEAD)), "takes", HEAD))
    except SettingError:
        size = image_size(_read(stream, extent, "takes", IMAGE_LIMIT))
    if decode_images:
        encoded = _read(stream, extent, "takes", IMAGE_LIMIT)
        try:
            decode(encoded)
        except SettingError as error:
            raise SettingError(str(error).removeprefix("the image ")) from error
    return size


def _read(stream: BinaryIO, extent: Extent, what: str, limit: int) -> bytes:
    offset, length = extent
    if length > limit:
        raise SettingError(f"{what} more than {limit} bytes ({length})")
    stream.seek(offset)
    content = stream.read(length)
    if len(content) < length:
        raise OSError(f"ends at byte {offset + len(content)} while it is read")
    return content


def _sample(key: str, group: _Group) -> FoundSample:
    if group.problem:
        raise SettingError(group.problem)
    if group.record is None:
        raise SettingError("the .json member is missing")
    images = [group.images[number] for number in sorted(group.images)]
    return FoundSample(key, group.record, images, from_json(group.payload, [b""] * len(images)))
