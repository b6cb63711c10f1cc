"""A canvas to draw charts on with Pillow alone, and round numbers for axes."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from lightning_llava.lettering import font

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (38, 38, 46)
MUTED: Colour = (112, 114, 124)
GRID: Colour = (226, 228, 233)
PAPER: Colour = (255, 255, 255)
SERIES: tuple[Colour, ...] = ((0, 114, 178), (213, 94, 0), (0, 135, 100), (170, 80, 150))
"""Told apart by colour-blind people, too (Okabe and Ito 2008, the darker ones)."""
SUPERSAMPLING = 3


class Canvas:
    """A white picture; coordinates and sizes are in pixels of the finished one.

    Args:
        width: of the picture.
        height: likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self._image = Image.new("RGB", size, PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1.0) -> None:
        """Draw a line through points."""
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self._pen.line(scaled, fill=colour, width=round(width * SUPERSAMPLING), joint="curve")

    def dot(self, middle: Point, radius: float, colour: Colour) -> None:
        """Draw a disc."""
        x, y, r = (value * SUPERSAMPLING for value in (*middle, radius))
        self._pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def text(
        self, place: Point, text: str, size: int = 13, colour: Colour = INK, anchor: str = "lm"
    ) -> None:
        """Write a line.

        Args:
            place: where its anchor is.
            text: the line.
            size: pixels per em.
            colour: of the letters.
            anchor: as Pillow names it: l, m or r, and m for the middle of the height.
        """
        x, y = (value * SUPERSAMPLING for value in place)
        lettering = font(size * SUPERSAMPLING)
        # The rim keeps letters readable on lines.
        rim = {"stroke_width": 2 * SUPERSAMPLING, "stroke_fill": PAPER}
        self._pen.text((x, y), text, fill=colour, font=lettering, anchor=anchor, **rim)

    def finished(self) -> Image.Image:
        """Return the picture at its own size."""
        return self._image.reduce(SUPERSAMPLING)

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.finished().save(path)


def round_ticks(highest: float, most: int = 5) -> list[float]:
    """Return numbers from 0 to at least `highest`, in steps of 1, 2 or 5 times a power of ten.

    Args:
        highest: above 0.
        most: steps there may be.
    """
    power = 10.0 ** math.floor(math.log10(highest / most))
    step = next(step for k in (1, 2, 5, 10) if (step := k * power) * most >= highest * (1 - 1e-9))
    return [step * i for i in range(math.ceil(highest / step * (1 - 1e-9)) + 1)]
