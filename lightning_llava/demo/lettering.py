"""The font that scenes are lettered with. It ships along: Pillow's own draws Cyrillic as boxes."""

from functools import cache
from importlib.resources import as_file, files

from PIL import ImageFont

FONT_FILE = files("lightning_llava") / "demo" / "fonts" / "DejaVuSans.ttf"
"""DejaVu Sans 2.37; its licence lies beside it."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Load the font.

    Args:
        size: Pixels per em.
    """
    with as_file(FONT_FILE) as path:
        # Basic layout: the same glyph positions whether or not Pillow was built with raqm.
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def ink(lettering: ImageFont.FreeTypeFont, text: str) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a text's ink, from the point where it is written.

    `getbbox` counts the white beside the first and the last letter in.
    """
    mask, (left, top) = lettering.getmask2(text, mode="L")
    first_column, first_row, last_column, last_row = mask.getbbox()
    return left + first_column, top + first_row, left + last_column, top + last_row
