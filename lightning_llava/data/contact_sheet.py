"""Samples side by side in one picture, to be looked at."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from lightning_llava.data.images import decode
from lightning_llava.data.schema import Sample
from lightning_llava.errors import SettingError
from lightning_llava.lettering import font, wrap
from lightning_llava.text.turns import IMAGE_PLACEHOLDER

WIDTH = 240
"""Pixels of a tile, and of the longest thumbnail."""
PICTURE_HEIGHT = 180
MARGIN = 8
FONT_SIZE = 13
LINES = {"head": 3, "question": 5, "answer": 5}
GROUND, PAPER = (232, 232, 232), (255, 255, 255)
COLOURS = {"head": (95, 95, 95), "question": (30, 30, 30), "answer": (20, 90, 160)}
WRONG, BOX = (185, 30, 30), (230, 0, 120)


@dataclass(frozen=True)
class Tile:
    """A sample and where it was found."""

    shard: str
    """Name of the file, without folders."""
    key: str
    sample: Sample | None
    problem: str = ""
    """Why it cannot be read, where there is no sample."""


def draw_sheet(tiles: Sequence[Tile], columns: int) -> Image.Image:
    """Draw tiles in reading order: picture (or `text only`), where it is from, question, answer.

    Of several images and questions the first is shown, with their number. Regions are outlined.

    Returns:
        An RGB image, `columns` tiles wide, or fewer where there are not so many.
    """
    columns = min(columns, len(tiles))
    drawn = [_draw_tile(tile) for tile in tiles]
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    size = (columns * (WIDTH + MARGIN) + MARGIN, sum(heights) + MARGIN * (len(rows) + 1))
    sheet, top = Image.new("RGB", size, GROUND), MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (MARGIN + column * (WIDTH + MARGIN), top))
        top += height + MARGIN
    return sheet


def _draw_tile(tile: Tile) -> Image.Image:
    lettering = font(FONT_SIZE)
    line_height = sum(lettering.getmetrics()) + 1
    picture, lines = _thumbnail(tile), _lines(tile)
    height = PICTURE_HEIGHT + 2 * MARGIN + line_height * len(lines)
    drawn = Image.new("RGB", (WIDTH, height), PAPER)
    left, top = (WIDTH - picture.width) // 2, (PICTURE_HEIGHT - picture.height) // 2
    drawn.paste(picture, (left, top))
    draw = ImageDraw.Draw(drawn)
    for row, (line, colour) in enumerate(lines):
        place = (MARGIN, PICTURE_HEIGHT + MARGIN + row * line_height)
        draw.text(place, line, fill=colour, font=lettering)
    return drawn


def _thumbnail(tile: Tile) -> Image.Image:
    if tile.sample is None:
        return _words(tile.problem, WRONG)
    if not tile.sample.images:
        return _words("text only", COLOURS["head"])
    try:
        picture = decode(tile.sample.images[0])
    except SettingError as error:
        return _words(str(error), WRONG)
    picture.thumbnail((WIDTH, PICTURE_HEIGHT), Image.Resampling.LANCZOS)
    draw, (width, height) = ImageDraw.Draw(picture), (picture.width - 1, picture.height - 1)
    for box in tile.sample.boxes:
        if box.image == 0:
            left, top, right, bottom = box.xyxy
            corners = (left * width, top * height, right * width, bottom * height)
            draw.rectangle(corners, outline=BOX)
    return picture


def _words(text: str, colour: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (WIDTH, PICTURE_HEIGHT), (245, 245, 245))
    lettering = font(FONT_SIZE)
    lines = "\n".join(wrap(text, lettering, WIDTH - 2 * MARGIN, lines=8))
    middle = (WIDTH // 2, PICTURE_HEIGHT // 2)
    ImageDraw.Draw(picture).multiline_text(
        middle, lines, fill=colour, font=lettering, anchor="mm", align="center"
    )
    return picture


def _lines(tile: Tile) -> list[tuple[str, tuple[int, int, int]]]:
    """Break the texts under a picture into lines with their colours."""
    texts = {"head": f"{tile.shard}, {tile.key}"}
    if sample := tile.sample:
        images, pairs = len(sample.images), len(sample.turns) // 2
        more = f", 1 of {images} images" * (images > 1) + f", 1 of {pairs} questions" * (pairs > 1)
        question, answer = (turn.text for turn in sample.turns[:2])
        texts = {
            "head": f"{sample.source or '(no source)'}: {tile.shard}, {tile.key}{more}",
            "question": question.replace(IMAGE_PLACEHOLDER, "").strip() or "(no question)",
            "answer": answer.strip() or "(empty)",
        }
    return [
        (line, COLOURS[part])
        for part, text in texts.items()
        for line in wrap(text, font(FONT_SIZE), WIDTH - 2 * MARGIN, LINES[part])
    ]
