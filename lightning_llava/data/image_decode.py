"""Encoded images to RGB by Pillow; whatever cannot be used ends in one sentence."""

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from lightning_llava.errors import SettingError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF", "JPEG2000")
"""Shards hold the first three. A closed list: Pillow's EPS reader starts Ghostscript."""
MOST_PIXELS = 89_478_485
"""Pillow's own `Image.MAX_IMAGE_PIXELS`, at which it only warns: a quarter of a gigabyte of RGB."""
LONGEST_SIDE = 65_535
"""Pixels; a JPEG cannot be longer."""


def decode(encoded: bytes) -> Image.Image:
    """Decode to RGB: the first frame, as stored.

    The EXIF orientation is ignored, as LLaVA and CLIP's training did. Transparency shows white, and
    16 bits a channel keep their high byte.

    Raises:
        SettingError: the bytes are no image, a damaged one, one larger than `MOST_PIXELS` or
            `LONGEST_SIDE`, or one whose white is not known (32 bits a channel).
    """
    try:
        with warnings.catch_warnings():
            # Remarks on metadata, which nothing here reads; and that on size, which is an error.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
                check_size(*image.size)
                return _to_rgb(image)
    except SettingError:
        raise
    except UnidentifiedImageError as error:  # its own text is an address in memory
        detail = f"begins with {encoded[:8]!r}, no whole header" if encoded else "0 bytes"
        raise SettingError(f"the image cannot be decoded ({detail})") from error
    except Image.DecompressionBombError as error:
        raise SettingError(
            f"the image cannot be decoded (over the limit of {MOST_PIXELS:,} pixels)"
        ) from error
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        detail = str(error) or type(error).__name__
        raise SettingError(f"the image cannot be decoded ({detail})") from error


def check_size(width: int, height: int) -> None:
    """Refuse an image by its header, before memory is taken for its pixels.

    Raises:
        SettingError: too many pixels, too long, or none at all.
    """
    if min(width, height) < 1:
        problem = "no pixels"
    elif width * height > MOST_PIXELS:
        problem = f"over the limit of {MOST_PIXELS:,} pixels"
    elif max(width, height) > LONGEST_SIDE:
        problem = f"over the limit of {LONGEST_SIDE:,} pixels a side"
    else:
        return
    raise SettingError(f"the image cannot be decoded ({width} x {height}: {problem})")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise SettingError(
            f"the image cannot be decoded (32 bits a channel, Pillow's mode {image.mode}, do not"
            " say what white is; store it with 8 or 16)"
        )
    if image.mode.startswith("I;16"):
        # Pillow would clip whatever is brighter than 255 of 65535 to white.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        # On white, as transformers does (image_transforms.py: convert_to_rgb): the colour under
        # transparent pixels is arbitrary, often the black of the text in front of it.
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")
