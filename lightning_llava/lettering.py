"""Texts in pictures: the font that ships along, where its ink is, and line breaks."""

from functools import cache
from importlib.resources import as_file, files

from PIL import ImageFont

FONT_FILE = files("lightning_llava") / "demo" / "fonts" / "DejaVuSans.ttf"
"""DejaVu Sans 2.37, its licence beside it: Pillow's own font draws Cyrillic as boxes."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Load the font.

    Args:
        size: pixels per em.
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


def wrap(text: str, lettering: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Break a text into at most `lines` lines of `width` pixels; overlong words anywhere."""
    made, line = [], ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        while len(made) <= lines and joined and lettering.getlength(joined) > width:
            fits = len(line) if line else _fitting(joined, lettering, width)
            made.append(joined[:fits])
            joined, line = joined[fits:].lstrip(), ""
        line = joined
    made.append(line)
    if len(made) > lines:
        made = [*made[: lines - 1], _shortened(made[lines - 1], lettering, width)]
    return made


def _fitting(word: str, lettering: ImageFont.FreeTypeFont, width: int) -> int:
    """Count the letters that fit, one at least."""
    return next(
        (n - 1 for n in range(2, len(word) + 1) if lettering.getlength(word[:n]) > width), 1
    )


def _shortened(line: str, lettering: ImageFont.FreeTypeFont, width: int) -> str:
    while line and lettering.getlength(f"{line} …") > width:
        line = line[:-1]
    return f"{line} …"
