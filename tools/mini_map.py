"""Scenes as maps in words: for each of the 8 x 8 places of a picture, what lies there."""

from collections.abc import Iterator

import numpy as np

from lightning_llava.demo import drawing
from lightning_llava.demo.drawing import Extent
from lightning_llava.demo.scenes import PrintedWord, Scene
from lightning_llava.demo.wording import Wording
from lightning_llava.lettering import font, ink

GRID = 8
"""Places per side: as many as the mini tower has patches."""
EMPTY = "."
COVERED = 0.25
"""Share of a place that an object must cover to be named there; the one covered most always is."""


def map_of(scene: Scene, wording: Wording) -> list[str]:
    """Say what lies at each place, row by row: an object's size, colour, shape and place; a letter.

    Returns:
        64 texts. A word's letters stand one to a place, in their order.
    """
    cells = [EMPTY] * GRID * GRID
    for thing in scene.objects:
        covered = coverage(drawing.object_extent(thing))
        text = f"{wording.describe(thing)} {wording.place(thing.cell)}"
        for cell in np.flatnonzero((covered >= COVERED) | (covered == covered.max())):
            cells[cell] = text
    if scene.word is not None:
        free = 0
        for letter, (left, top, right, bottom) in letters_of(scene.word):
            column = min(GRID - 1, max(free, int((left + right) / 2 * GRID)))
            cells[int((top + bottom) / 2 * GRID) * GRID + column] = letter
            free = column + 1
    return cells


def letters_of(word: PrintedWord) -> Iterator[tuple[str, Extent]]:
    """Locate the letters of a printed word."""
    side = drawing.IMAGE_SIZE * drawing.SUPERSAMPLING
    lettering = font(drawing.FONT_SIZE * drawing.SUPERSAMPLING)
    left, top, _, bottom = drawing.word_extent(word)
    start = left - ink(lettering, word.text)[0] / side
    for i, letter in enumerate(word.text):
        edges = [start + lettering.getlength(word.text[: i + more]) / side for more in (0, 1)]
        yield letter, (edges[0], top, edges[1], bottom)


def shares(extent: Extent) -> np.ndarray:
    """Return the share of a box that lies at each place, [64], float32."""
    area = coverage(extent)
    return (area / area.sum()).astype(np.float32)


def coverage(extent: Extent) -> np.ndarray:
    """Return the share of each place that a box covers, [64]."""
    left, top, right, bottom = (edge * GRID for edge in extent)
    first = np.arange(GRID)
    across = np.clip(np.minimum(first + 1, right) - np.maximum(first, left), 0, None)
    down = np.clip(np.minimum(first + 1, bottom) - np.maximum(first, top), 0, None)
    return np.outer(down, across).ravel()
