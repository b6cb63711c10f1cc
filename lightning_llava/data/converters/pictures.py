"""Read images out of a folder, decode each once in full, and leave its bytes as they are.

Only when asked is an image encoded anew: when it is larger than a limit, or in a format that shards
do not take. It then holds what training would have seen of the original: EXIF orientation ignored,
transparency on white.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image, UnidentifiedImageError

from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.image_decode import decode
from lightning_llava.data.shards import image_extension
from lightning_llava.errors import SettingError

STORED = ("JPEG", "PNG", "WEBP")
REENCODED: dict[str, Literal["JPEG", "PNG"]] = {
    "BMP": "PNG",
    "GIF": "PNG",
    "PPM": "PNG",
    "TIFF": "PNG",
    "AVIF": "JPEG",
    "JPEG2000": "JPEG",
}
"""What `reencode` makes of other formats. A closed list: Pillow's EPS reader starts Ghostscript."""
JPEG_QUALITY = 95
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Tried in this order, then in capitals, when a named file is missing."""


@dataclass(frozen=True)
class Picture:
    """An image that can be decoded, and how it was come by."""

    encoded: bytes
    other_extension: bool = False
    """Found under another file name extension than the record's."""
    reencoded: bool = False


@dataclass(frozen=True)
class PictureReader:
    """Reads the images of drafts."""

    folder: Path | None = None
    """Where paths start, resolved; nothing outside it is read. None when there are no paths."""
    max_side: int | None = None
    """Pixels; larger images become JPEGs of this longer side. None leaves them alone."""
    reencode: bool = False
    """Make PNGs or JPEGs of other formats instead of refusing them."""

    def read(self, image: str | bytes) -> Picture:
        """Read and verify one image, given as a path inside the folder or as its bytes.

        Raises:
            Unusable: `missing`, `corrupt`, `path` or `format`.
        """
        if isinstance(image, bytes):
            name, encoded, other_extension = "embedded image", image, False
        else:
            path, other_extension = self._find(image)
            name, encoded = image, _read(path, image)
        format_name, decoded = _verify(name, encoded, self.reencode)
        stored = image_extension(encoded) is not None
        too_large = self.max_side is not None and max(decoded.size) > self.max_side
        if stored and not too_large:
            return Picture(encoded, other_extension)
        target = "JPEG" if too_large else REENCODED[format_name]
        encoded = _encode_anew(name, decoded, target, self.max_side if too_large else None)
        return Picture(encoded, other_extension, reencoded=True)

    def size(self, image: str) -> int:
        """Give the bytes of an image's file.

        Raises:
            Unusable: `missing` or `path`.
        """
        return self._find(image)[0].stat().st_size

    def _find(self, name: str) -> tuple[Path, bool]:
        """Give the file, and whether it is there under another extension only."""
        if self.folder is None:
            raise Unusable("missing", f"{name}: no images folder is given")
        for candidate in _candidates(name):
            path = _inside(self.folder, candidate)
            try:
                if path.is_file():
                    return path, candidate != name
            except OSError as error:
                raise Unusable("missing", f"{name}: {error.strerror}") from error
        other = ", under no other ending either" if _varies(name) else ""
        raise Unusable("missing", f"{name}: no such file in {self.folder}{other}")


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Make an error of Pillow's warning of a merely suspiciously large image; silence the others.

    The filter is global to the process: enter it once, around many images.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _candidates(name: str) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    if _varies(name):
        for extension in (*EXTENSIONS, *map(str.upper, EXTENSIONS)):
            if extension != path.suffix:
                yield str(path.with_suffix(extension))


def _varies(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def _inside(folder: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise Unusable("path", f"{name}: expected a path inside the images folder")
    try:
        path = (folder / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # name too long, links in a circle, NUL
        raise Unusable("path", f"{name!r}: {error}") from error
    if not path.is_relative_to(folder):
        raise Unusable("path", f"{name}: a link that leads out of the images folder")
    return path


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unusable("missing", f"{name}: {error.strerror}") from error


def _verify(name: str, encoded: bytes, reencode: bool) -> tuple[str, Image.Image]:
    """Decode in full, as training does; give the format's name and the image in RGB."""
    if not encoded:
        raise Unusable("corrupt", f"{name}: empty file")
    if image_extension(encoded) is None and not reencode:
        detail = f"{name}: begins with {encoded[:8]!r}, expected JPEG, PNG or WebP"
        raise Unusable("format", detail)
    formats = STORED if image_extension(encoded) else tuple(REENCODED)
    try:
        with Image.open(BytesIO(encoded), formats=formats) as image:
            return str(image.format), decode(encoded)
    except UnidentifiedImageError as error:
        if formats == STORED:
            raise Unusable("corrupt", f"{name}: its header cannot be read") from error
        known = ", ".join((*STORED, *REENCODED))
        detail = f"{name}: begins with {encoded[:8]!r}, expected one of {known}"
        raise Unusable("format", detail) from error
    except SettingError as error:
        raise Unusable("corrupt", f"{name}: {error}") from error
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise Unusable("corrupt", f"{name}: {type(error).__name__}: {error}") from error


def _encode_anew(name: str, image: Image.Image, target: str, max_side: int | None) -> bytes:
    if max_side is not None:
        scale = max_side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.info = {}  # no profile or comment of the original goes into the copy
    stream = BytesIO()
    try:
        image.save(stream, target, **({"quality": JPEG_QUALITY} if target == "JPEG" else {}))
    except (OSError, ValueError) as error:
        raise Unusable("corrupt", f"{name}: cannot be encoded anew: {error}") from error
    return stream.getvalue()
