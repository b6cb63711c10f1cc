"""Encoded images to the tower's pixels, as uint8: the tower normalises on its device."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from transformers.image_processing_backends import PilBackend

from lightning_llava.data import image_fast
from lightning_llava.data.image_decode import decode
from lightning_llava.data.image_resize import Axis, is_large, resize
from lightning_llava.data.image_tiles import cut_tiles
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_geometry, load_image_processor
from lightning_llava.specs import VisionSpec
from lightning_llava.tiling import Size

__all__ = ["ImageBackend", "ImageMode", "ImageTransform", "decode", "expand_to_square"]

ImageMode = Literal["square", "pad"]
ImageBackend = Literal["pillow", "fast"]

Decoded = Image.Image | UInt8[np.ndarray, "height width 3"]
"""RGB: by Pillow, or by the fast backend."""

STEPS = ("process_image", "convert_to_rgb", "resize", "center_crop", "pad", "_preprocess")
"""What a processor must have left as it is in transformers' base class to be followed here."""


@dataclass(frozen=True)
class Recipe:
    """What a processor does to sizes, in pixels."""

    keeps_aspect: bool
    """Whether it resizes the shorter edge, keeping the aspect; or stretches to a square."""
    size: int
    """Of that edge, or of the square."""
    crop: int
    """Side of the square that is cut out of the centre."""

    def axes(self, width: int, height: int, pad: bool) -> tuple[Axis, Axis]:
        """Say what becomes of width and height."""
        square = max(width, height)
        shortest = square if pad else min(width, height)

        def axis(image: int) -> Axis:
            canvas, resized = square if pad else image, self.size
            if self.keeps_aspect and canvas > shortest:
                # As transformers writes it: rounded down, after a division in double precision.
                resized = int(self.size * canvas / shortest)
            start = (resized - self.crop) // 2
            return Axis(image, canvas, (canvas - image) // 2, resized, start, self.crop)

        return axis(width), axis(height)


@dataclass
class Pictures:
    """The images of a sample as the tower takes them."""

    pixels: list[UInt8[Tensor, "3 height width"]] = field(default_factory=list)
    """One square of each image; with any resolution an image's overview and its tiles, and then
    those of the next."""
    sizes: list[Size] = field(default_factory=list)
    """Of each image, as it was decoded."""


class ImageTransform:
    """Decode, make square, resize: the tower's own processor but for normalisation.

    Args:
        spec: tower whose processor is followed; with any resolution, transformers' LLaVA-NeXT.
        mode: `square` resizes the shorter edge and crops the centre (LLaVA's align stage); `pad`
            first pads to a square with the processor's mean colour (LLaVA mm_utils.py:
            expand2square), so that nothing is cut off. Any resolution does neither.
        backend: `pillow` gives the pixels of transformers' PIL processor, bit by bit. `fast` takes
            simplejpeg and torch for JPEGs, and Pillow for everything else. Its values differ by at
            most 2 levels of 255: on photographs fewer than 1 % of them, on smooth ones that are
            resized by a round factor up to 4 %, on stripes up to 13 %.

    Raises:
        SettingError: the tower has no processor, or `fast` cannot be had.
    """

    def __init__(self, spec: VisionSpec, mode: ImageMode, backend: ImageBackend = "pillow") -> None:
        processor = load_image_processor(spec)
        self.mode, self.backend = mode, backend
        self.tiling = load_geometry(spec).tiling if spec.any_resolution else None
        self.fill = tuple(int(255 * mean) for mean in processor.image_mean)
        self.recipe = read_recipe(processor)
        self.processor = processor if self.recipe is None else None
        if backend == "fast":
            image_fast.require_simplejpeg()
            if self.recipe is None and self.tiling is None:
                raise SettingError(
                    f"data.image_backend is fast, which cannot follow {type(processor).__name__}, "
                    f"the processor of {spec.name!r}; set data.image_backend: pillow"
                )

    def prepare(self, images: Iterable[bytes]) -> Pictures:
        """Decode the images of a sample.

        Raises:
            SettingError: the bytes are no image that can be decoded.
        """
        pictures = Pictures()
        for encoded in images:
            image = self._decode(encoded)
            size = _size(image)
            if self.tiling is None:
                pictures.pixels.append(self._square(image))
            else:
                pictures.pixels += cut_tiles(partial(self._resize, image), size, self.tiling)
            pictures.sizes.append(size)
        return pictures

    def __call__(self, encoded: bytes) -> UInt8[Tensor, "3 height width"]:
        """Decode one image and make it square.

        Raises:
            SettingError: the bytes are no image that can be decoded.
        """
        return self._square(self._decode(encoded))

    def _decode(self, encoded: bytes) -> Decoded:
        pixels = image_fast.decode_jpeg(encoded) if self.backend == "fast" else None
        return decode(encoded) if pixels is None else pixels

    def _square(self, image: Decoded) -> UInt8[Tensor, "3 height width"]:
        if self.recipe is None:
            return self._by_processor(image)
        return self._resize(image, *self.recipe.axes(*_size(image), self.mode == "pad"))

    def _resize(
        self, image: Decoded, horizontal: Axis, vertical: Axis
    ) -> UInt8[Tensor, "3 height width"]:
        if isinstance(image, np.ndarray):
            if not is_large(horizontal, vertical):
                return image_fast.resize(image, horizontal, vertical, self.fill)
            image = Image.fromarray(image)
        made = resize(image, horizontal, vertical, self.fill)
        return torch.from_numpy(np.array(made)).permute(2, 0, 1).contiguous()

    def _by_processor(self, image: Decoded) -> UInt8[Tensor, "3 height width"]:
        assert isinstance(image, Image.Image)  # `fast` follows no such processor
        if self.mode == "pad":
            image = expand_to_square(image, self.fill)
        assert self.processor is not None
        pixels = self.processor(image, do_rescale=False, do_normalize=False, return_tensors="np")[
            "pixel_values"
        ]
        return torch.from_numpy(np.ascontiguousarray(pixels[0], dtype=np.uint8))


def _size(image: Decoded) -> Size:
    if isinstance(image, Image.Image):
        return image.size
    height, width, _ = image.shape
    return width, height


def read_recipe(processor: Any) -> Recipe | None:
    """Read what a processor does; None when it is more than resizing and cutting out the centre."""
    if (
        any(getattr(type(processor), step, None) is not getattr(PilBackend, step) for step in STEPS)
        or not (processor.do_convert_rgb and processor.do_resize)
        or getattr(processor, "do_pad", False)
        or processor.resample != Image.Resampling.BICUBIC
    ):
        return None
    size = {key: value for key, value in dict(processor.size).items() if value}
    edges = set(size.values())
    if set(size) not in ({"shortest_edge"}, {"height", "width"}) or len(edges) != 1:
        return None
    edge = edges.pop()
    crop = dict(processor.crop_size) if processor.do_center_crop else {}
    sides = (crop.get("height", edge), crop.get("width", edge))
    if sides[0] != sides[1] or sides[0] > edge:  # larger ones would be filled up with black
        return None
    return Recipe("shortest_edge" in size, edge, sides[0])


def expand_to_square(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """Centre an image on a square of the fill colour; odd remainders go to the right and bottom."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
