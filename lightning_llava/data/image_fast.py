"""The fast backend: libjpeg-turbo called directly, and torch's bicubic on bytes."""

import numpy as np
import PIL
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from lightning_llava.data.image_decode import check_size
from lightning_llava.data.image_resize import Axis, Fill
from lightning_llava.errors import SettingError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

PILLOW_13 = int(PIL.__version__.partition(".")[0]) >= 13
JPEG = b"\xff\xd8\xff"
COLOURS = ("Gray", "YCbCr", "RGB")
"""Colour spaces that become RGB in one way only; four channels are left to Pillow."""


def require_simplejpeg() -> None:
    """Refuse the fast backend without its library.

    Raises:
        SettingError: it is not installed.
    """
    if simplejpeg is None:
        raise SettingError(
            "data.image_backend is fast, but the package simplejpeg is not installed; install the "
            "extra (pip install 'lightning-llava[data]') or set data.image_backend: pillow"
        )


def decode_jpeg(encoded: bytes) -> UInt8[np.ndarray, "height width 3"] | None:
    """Decode a sound JPEG to RGB, with the slow, exact DCT and smooth chroma, as Pillow does.

    Returns:
        None for whatever else: Pillow decides what becomes of other formats and of damaged files.

    Raises:
        SettingError: too large, by its header.
    """
    if simplejpeg is None or not encoded.startswith(JPEG):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours not in COLOURS:
            return None
        check_size(int(width), int(height))
        return simplejpeg.decode_jpeg(encoded, "RGB", fastdct=False, fastupsample=False)
    except SettingError:
        raise
    except ValueError:
        return None


def resize(
    pixels: UInt8[np.ndarray, "height width 3"], horizontal: Axis, vertical: Axis, fill: Fill
) -> UInt8[Tensor, "3 kept_height kept_width"]:
    """Pad, resize (torch's bicubic with antialias, on bytes) and crop."""
    if pixels.shape[:2] != (vertical.canvas, horizontal.canvas):
        canvas = np.empty((vertical.canvas, horizontal.canvas, 3), np.uint8)
        canvas[:] = fill
        bottom, right = vertical.at + vertical.image, horizontal.at + horizontal.image
        canvas[vertical.at : bottom, horizontal.at : right] = pixels
        pixels = canvas
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    if _down_first(horizontal, vertical):
        image = _bicubic(image, vertical.resized, horizontal.canvas)
    whole = _bicubic(image, vertical.resized, horizontal.resized)[0]
    return whole[:, vertical.start : vertical.stop, horizontal.start : horizontal.stop].contiguous()


def _bicubic(image: UInt8[Tensor, "1 3 rows columns"], height: int, width: int) -> Tensor:
    return functional.interpolate(image, (height, width), mode="bicubic", antialias=True)


def _down_first(horizontal: Axis, vertical: Axis) -> bool:
    """Tell whether Pillow resizes down before across, since 13 (#9549); torch goes across first.

    What is between the two is cut off at black and white, so the order shows where edges overshoot:
    by up to 9 levels where one side is enlarged and the other is not. The rule was found by trial.
    """
    shrinks = vertical.canvas - vertical.resized
    return PILLOW_13 and shrinks > max(0, 2 * (horizontal.canvas - horizontal.resized))
