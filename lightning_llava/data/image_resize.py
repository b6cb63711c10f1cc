"""Pad, resize and crop with exactly Pillow's bicubic pixels, without making what the crop drops.

`image.resize(size).crop(...)` of a 1500 x 1 image first makes 504,000 x 336 pixels. The crop goes
into `resize(box=...)` where the box's single-precision corners leave every weight as it was, which
is computed, not assumed. Where the whole would be large, the cropped or padded axis is resampled
here, with Pillow's own weights in whole numbers.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

LARGEST_INTERMEDIATE = 1 << 24
"""Pixels that Pillow may make on the way; above, the axes are resampled in parts."""
PRECISION_BITS = 22
"""Of Pillow's weights (libImaging/Resample.c)."""
REACH = 2
"""Pixels that the bicubic filter reaches to either side, when it does not shrink."""
CHUNK = 1 << 22
"""Values that are resampled at once."""

Fill = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """What becomes of one side of an image: laid on a canvas, resized with it, cut."""

    image: int
    """Pixels of the image."""
    canvas: int
    """Pixels of the canvas; as many as the image where nothing is padded."""
    at: int
    """Where the image begins on the canvas."""
    resized: int
    """Pixels of the resized canvas."""
    start: int
    """First of the resized pixels that is kept."""
    kept: int
    """How many are."""

    @property
    def whole(self) -> bool:
        """Whether nothing is padded and nothing cut."""
        return self.canvas == self.image and self.kept == self.resized

    @property
    def stop(self) -> int:
        """Where the kept pixels end."""
        return self.start + self.kept


def is_large(horizontal: Axis, vertical: Axis) -> bool:
    """Tell whether the padded or the enlarged whole has too many pixels (shrinking adds none)."""
    padded = (horizontal.image, vertical.image) != (horizontal.canvas, vertical.canvas)
    enlarged = horizontal.resized > horizontal.canvas
    most = max(
        padded * horizontal.canvas * vertical.canvas,
        enlarged * horizontal.resized * vertical.resized,
    )
    return most > LARGEST_INTERMEDIATE


def resize(image: Image.Image, horizontal: Axis, vertical: Axis, fill: Fill) -> Image.Image:
    """Give the pixels of padding with `fill`, Pillow's bicubic `resize`, and `crop`.

    Args:
        image: RGB.
        horizontal: of its width.
        vertical: of its height.
        fill: RGB colour of the canvas.
    """
    if is_large(horizontal, vertical):
        return _resize_in_parts(image, horizontal, vertical, fill)
    canvas = image
    if image.size != (horizontal.canvas, vertical.canvas):
        canvas = Image.new("RGB", (horizontal.canvas, vertical.canvas), fill)
        canvas.paste(image, (horizontal.at, vertical.at))
    if box := _exact_box(horizontal, vertical):
        return canvas.resize((horizontal.kept, vertical.kept), Image.Resampling.BICUBIC, box)
    whole = canvas.resize((horizontal.resized, vertical.resized), Image.Resampling.BICUBIC)
    return whole.crop((horizontal.start, vertical.start, horizontal.stop, vertical.stop))


def _exact_box(horizontal: Axis, vertical: Axis) -> tuple[float, float, float, float] | None:
    """Give the kept part in pixels of the canvas, if Pillow then computes what it would anyway."""
    if horizontal.canvas < vertical.canvas:
        return None  # since Pillow 13 (#9549) a box may swap the two passes of a tall image
    columns, rows = _exact_range(horizontal), _exact_range(vertical)
    return (columns[0], rows[0], columns[1], rows[1]) if columns and rows else None


@lru_cache(maxsize=4096)
def _exact_range(axis: Axis) -> tuple[float, float] | None:
    if axis.kept == axis.resized:
        return 0.0, float(axis.canvas)
    low, high = (axis.canvas * edge / axis.resized for edge in (axis.start, axis.stop))
    of_part = _weights(axis.canvas, low, high, axis.kept, 0, axis.kept)
    same = all(np.array_equal(a, b) for a, b in zip(_axis_weights(axis), of_part, strict=True))
    return (low, high) if same else None


def _weights(
    canvas: int, low: float, high: float, size: int, start: int, kept: int
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, "kept reach"]]:
    """Compute Pillow's weights (Resample.c: precompute_coeffs, normalize_coeffs_8bpc).

    Args:
        canvas: pixels of the input.
        low: where the part that is resized begins; Pillow keeps it in single precision.
        high: where it ends.
        size: pixels of the output.
        start: first output pixel asked for.
        kept: how many.

    Returns:
        The first input pixel of each output pixel, and the weights from there on, in units of
        2^-22.
    """
    single_low, single_high = np.float32(low), np.float32(high)
    scale = float(single_high - single_low) / size
    stretch = max(scale, 1.0)
    support = REACH * stretch
    centres = float(single_low) + (np.arange(start, start + kept) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centres + support + 0.5).astype(np.int64), canvas)
    inputs = first[:, None] + np.arange(ceil(support) * 2 + 1)
    values = _bicubic((inputs - centres[:, None] + 0.5) * (1.0 / stretch))
    values[inputs >= end[:, None]] = 0.0
    values /= values.cumsum(axis=1)[:, -1:]  # in C's order; `sum` would round otherwise
    scaled = values * (1 << PRECISION_BITS)
    return first, (scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int64)


def _bicubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, its operations in Pillow's order."""
    a, x = -0.5, np.abs(distance)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _resize_in_parts(
    image: Image.Image, horizontal: Axis, vertical: Axis, fill: Fill
) -> Image.Image:
    """Resize as Pillow does, across, rounded, then down; but only what is kept.

    Pillow 13 goes down first where the height shrinks much more than the width; it does neither
    when an image is enlarged nor from square to square.
    """
    bicubic = Image.Resampling.BICUBIC
    first, weights = _axis_weights(vertical)
    top = max(int(first.min()) - vertical.at, 0)
    bottom = min(int(first.max()) + weights.shape[1] - vertical.at, image.height)
    image = image.crop((0, top, image.width, bottom))
    if horizontal.whole:
        image = image.resize((horizontal.resized, image.height), bicubic)
    else:
        columns = np.asarray(image).transpose(1, 0, 2)
        made = _resample(columns.reshape(image.width, -1), horizontal, 0, np.array(fill))
        image = Image.fromarray(
            np.ascontiguousarray(made.reshape(horizontal.kept, -1, 3).transpose(1, 0, 2))
        )
    if vertical.whole:
        return image.resize((horizontal.kept, vertical.resized), bicubic)
    padding = Image.new("RGB", (horizontal.canvas, 1), fill).resize(
        (horizontal.resized, 1), bicubic
    )
    padding = padding.crop((horizontal.start, 0, horizontal.stop, 1))
    rows, colours = np.asarray(image), np.asarray(padding).reshape(-1).astype(np.int64)
    made = _resample(rows.reshape(image.height, -1), vertical, top, colours)
    return Image.fromarray(made.reshape(vertical.kept, horizontal.kept, 3))


def _axis_weights(
    axis: Axis,
) -> tuple[Int64[np.ndarray, " kept"], Int64[np.ndarray, "kept reach"]]:
    return _weights(axis.canvas, 0.0, axis.canvas, axis.resized, axis.start, axis.kept)


def _resample(
    pixels: UInt8[np.ndarray, "part values"],
    axis: Axis,
    skipped: int,
    fill: Int64[np.ndarray, " period"],
) -> UInt8[np.ndarray, "kept values"]:
    """Resample along the first axis.

    Args:
        pixels: of the image, from its pixel `skipped` on, as far as they are needed.
        axis: what becomes of them.
        skipped: see above.
        fill: of the canvas, where the image is not; repeated over the values.
    """
    first, weights = _axis_weights(axis)
    inputs = first[:, None] + np.arange(weights.shape[1]) - (axis.at + skipped)
    inside = (inputs >= 0) & (inputs < len(pixels))
    beside = np.outer(np.where(inside, 0, weights).sum(axis=1), fill)
    values = pixels.shape[1]
    made = np.tile(_rounded(beside), values // len(fill))
    touched = inside.any(axis=1)
    low = max(int(inputs[touched].min()), 0)
    high = min(int(inputs[touched].max()) + 1, len(pixels))
    # Whole numbers below 2^53 are exact in double precision, in whatever order they are added.
    matrix = np.zeros((axis.kept, high - low))
    matrix[np.nonzero(inside)[0], inputs[inside] - low] = weights[inside]
    matrix, beside = matrix[touched], beside[touched]
    step = max(1, CHUNK // (max(len(pixels), axis.kept) * len(fill))) * len(fill)
    for start in range(0, values, step):
        part = slice(start, start + step)
        total = (matrix @ pixels[low:high, part].astype(np.float64)).astype(np.int64)
        total += np.tile(beside, total.shape[1] // len(fill))
        made[touched, part] = _rounded(total)
    return made


def _rounded(total: Int64[np.ndarray, "kept values"]) -> UInt8[np.ndarray, "kept values"]:
    half = 1 << (PRECISION_BITS - 1)
    return np.clip((total + half) >> PRECISION_BITS, 0, 255).astype(np.uint8)
