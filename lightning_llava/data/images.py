"""Encoded images to the tower's pixels, as uint8: the tower normalises on its device."""

import io
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from transformers import AutoImageProcessor

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.specs import VisionSpec

ImageMode = Literal["square", "pad"]


class ImageTransform:
    """Decode, make square, resize: the tower's own processor (Pillow) but for normalisation.

    Args:
        spec: tower whose processor is used.
        mode: `square` resizes the shorter edge and crops the centre (LLaVA's align stage); `pad`
            first pads to a square with the processor's mean colour (LLaVA mm_utils.py:
            expand2square), so that nothing is cut off.
    """

    def __init__(self, spec: VisionSpec, mode: ImageMode) -> None:
        name = resolve(spec.name, "model.vision.name")
        with explain_loading(spec.name, "model.vision.name"):
            self.processor = AutoImageProcessor.from_pretrained(
                name, revision=spec.revision, backend="pil", trust_remote_code=False
            )
        self.mode = mode
        self.fill = tuple(int(255 * mean) for mean in self.processor.image_mean)

    def __call__(self, encoded: bytes) -> UInt8[Tensor, "3 height width"]:
        """Decode one image.

        Raises:
            SettingError: the bytes are no image that Pillow can decode.
        """
        image = decode(encoded)
        if self.mode == "pad":
            image = expand_to_square(image, self.fill)
        pixels = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="np")[
            "pixel_values"
        ]
        return torch.from_numpy(np.ascontiguousarray(pixels[0], dtype=np.uint8))


def decode(encoded: bytes) -> Image.Image:
    """Decode to RGB. The EXIF orientation is ignored, as LLaVA and CLIP's training did.

    Raises:
        SettingError: the bytes are no image that Pillow can decode.
    """
    try:
        return _to_rgb(Image.open(io.BytesIO(encoded)))
    except (
        UnidentifiedImageError,
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise SettingError(f"the image cannot be decoded ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip whatever is brighter than 255 of 65535 to white.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        # On white, as transformers does (image_transforms.py: convert_to_rgb): the colour under
        # transparent pixels is arbitrary, often the black of the text in front of it.
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def expand_to_square(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """Centre an image on a square of the fill colour; odd remainders go to the right and bottom."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
