"""Scenes as maps in words: for each of the 8 x 8 places of a picture, what lies there."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np

from lightning_llava.demo import drawing
from lightning_llava.demo.drawing import Extent
from lightning_llava.demo.scenes import PrintedWord, Scene
from lightning_llava.demo.wording import Wording
from lightning_llava.demo.words import HELD_OUT_WORDS, SHARED_SHAPES, WORDS, Script
from lightning_llava.lettering import font, ink

GRID = 8
"""Places per side: as many as the mini tower has patches."""
EMPTY = "."
MIDDLE = "1"
"""Stands before an object's words where its middle lies: what lies at several places is one."""
COVERED = 0.25
"""Share of a place that an object must cover to be named there; that of its middle always is."""


def map_of(scene: Scene, wording: Wording) -> list[str]:
    """Say what lies at each place, row by row: an object's size, colour, shape and place; a letter.

    Where the middle of an object lies, `MIDDLE` stands in front.

    Returns:
        64 texts. A word's letters stand one to a place, in their order.
    """
    cells = [EMPTY] * GRID * GRID
    texts = [f"{wording.describe(o)} {wording.place(o.cell)}" for o in scene.objects]
    extents = [drawing.object_extent(o) for o in scene.objects]
    for text, extent in zip(texts, extents, strict=True):
        for cell in np.flatnonzero(coverage(extent) >= COVERED):
            cells[cell] = text
    for text, extent in zip(texts, extents, strict=True):  # behind all, which may cover it too
        cells[middle(extent)] = f"{MIDDLE} {text}"
    if scene.word is not None:
        for letter, cell in letter_places(scene.word):
            cells[cell] = letter
    return cells


def middle(extent: Extent) -> int:
    """Return the place where the middle of a box lies."""
    left, top, right, bottom = extent
    return int((top + bottom) / 2 * GRID) * GRID + int((left + right) / 2 * GRID)


def letter_places(word: PrintedWord) -> Iterator[tuple[str, int]]:
    """Give each letter the place where its middle lies, or the next one that is free."""
    free = 0
    for letter, extent in letters_of(word):
        row, column = divmod(middle(extent), GRID)
        column = min(GRID - 1, max(free, column))
        yield letter, row * GRID + column
        free = column + 1


def respelt(scene: Scene, rng: Random) -> Scene:
    """Put the letters of the printed word into any order that is no held-out word.

    So that a decoder learns letters, and not the words.
    """
    if scene.word is None:
        return scene
    text = scene.word.text
    while True:
        shuffled = "".join(rng.sample(text, len(text)))
        if shuffled not in HELD_OUT_WORDS:
            return replace(scene, word=replace(scene.word, text=shuffled))


def spelt_at_random(scene: Scene, rng: Random) -> Scene:
    """Print other letters of the word's script in its place, no held-out word.

    Words in any order of their letters are not enough for a tower: from those it learned which
    letters go together, and read 0.99 of the letters of words that it knew, 0.87 of others.
    """
    if scene.word is None:
        return scene
    script: Script = "latin" if scene.word.text in WORDS["latin"] else "cyrillic"
    alphabet = sorted({letter for word in WORDS[script] for letter in word})
    while True:
        text = "".join(rng.sample(alphabet, len(scene.word.text)))
        word = replace(scene.word, text=text)
        left, _, right, _ = drawing.word_extent(word)
        told_apart = not set(text) <= set(SHARED_SHAPES[script])
        if told_apart and text not in HELD_OUT_WORDS and 0 <= left < right <= 1:
            return replace(scene, word=word)


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
