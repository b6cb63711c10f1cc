from io import BytesIO
from itertools import combinations, product
from random import Random

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageFont

from lightning_llava.demo.drawing import (
    BACKGROUNDS,
    IMAGE_SIZE,
    RADII,
    RGB,
    draw,
    encode,
    object_extent,
    word_extent,
)
from lightning_llava.demo.scenes import (
    COLOURS,
    NUM_BACKGROUNDS,
    SHAPES,
    Kind,
    PrintedWord,
    Scene,
    SceneObject,
)
from lightning_llava.demo.words import WORDS
from lightning_llava.lettering import FONT_FILE

ALL_WORDS = [word for words in WORDS.values() for word in words]


def characters(file):
    return set(TTFont(file).getBestCmap())


def painted(scene):
    """Find left, top, right and bottom of what differs from the background, in pixels."""
    difference = np.asarray(draw(scene), dtype=int) - BACKGROUNDS[scene.background]
    rows, columns = np.nonzero(difference.any(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def assert_tight(extent, scene):
    # Half-painted pixels at an edge count as painted: up to a pixel, never more.
    np.testing.assert_allclose(np.multiply(extent, IMAGE_SIZE), painted(scene), rtol=0, atol=1)


def some_thing(shape, colour="red", size="large", rng=None, cell=4):
    rng = rng or Random(0)
    shift, tilt = (rng.uniform(-1, 1), rng.uniform(-1, 1)), rng.uniform(-12, 12)
    return SceneObject(Kind(colour, shape), size, cell, shift, tilt, rng.randint(-14, 14))


def test_the_font_has_every_character_that_is_printed():
    needed = {ord(letter) for word in ALL_WORDS for letter in word}
    assert len(needed) == 26 + 33
    with FONT_FILE.open("rb") as file:
        assert needed <= characters(file)


def test_pillows_own_font_would_not_do():
    assert ord("Ж") not in characters(ImageFont.load_default(20).path)


def test_the_font_comes_with_its_licence():
    licence = (FONT_FILE.parent / "LICENSE-DejaVu.txt").read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in licence
    with FONT_FILE.open("rb") as file:
        name = TTFont(file)["name"]
        assert (name.getDebugName(1), name.getDebugName(5)) == ("DejaVu Sans", "Version 2.37")


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_fit_objects(shape):
    rng = Random(shape)
    for size, cell in product(RADII, range(9)):
        thing = some_thing(shape, rng.choice(list(COLOURS)), size, rng, cell)
        scene = Scene("train", 0, (thing,), None, cell % NUM_BACKGROUNDS)
        assert_tight(object_extent(thing), scene)


def test_boxes_fit_words_and_words_fit_pictures():
    rng = Random(0)
    for text in ALL_WORDS:
        row, shift = rng.randrange(3), rng.choice((-1, rng.uniform(-1, 1), 1))
        word = PrintedWord(text, row, shift)
        left, top, right, bottom = word_extent(word)
        assert 0 < left < right < 1
        assert row / 3 <= top < bottom <= (row + 1) / 3
        assert_tight((left, top, right, bottom), Scene("train", 0, (), word))


def test_objects_stay_in_their_cells_at_the_extremes():
    for shape, shift, tilt, cell in product(SHAPES, (-1, 1), range(-12, 13), (0, 4, 8)):
        thing = SceneObject(Kind("red", shape), "large", cell, (shift, shift), tilt)
        left, top, right, bottom = object_extent(thing)
        column, row = cell % 3, cell // 3
        assert column / 3 <= left < right <= (column + 1) / 3
        assert row / 3 <= top < bottom <= (row + 1) / 3


def test_nothing_overlaps(scenes):
    for scene in scenes["train"] + scenes["validation"]:
        extents = [object_extent(thing) for thing in scene.objects]
        extents += [word_extent(scene.word)] if scene.word else []
        for a, b in combinations(extents, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert all(0 <= edge <= 1 for extent in extents for edge in extent)


def test_colours_stay_apart_whatever_the_shade():
    for first, second in combinations([*RGB.values(), *BACKGROUNDS], 2):
        if {first, second} <= set(BACKGROUNDS):
            continue
        # Shades move each channel by up to 14, both colours of a pair towards each other.
        assert np.abs(np.subtract(first, second)).max() > 2 * 14


def test_every_object_has_its_colour_shape_and_size():
    for colour, rgb in RGB.items():
        thing = SceneObject(Kind(colour, "square"), "large", 4)
        assert draw(Scene("train", 0, (thing,))).getpixel((64, 64)) == rgb
    areas = {}
    for shape, size in product(SHAPES, RADII):
        scene = Scene("train", 0, (SceneObject(Kind("red", shape), size, 4),))
        areas[shape, size] = (np.asarray(draw(scene))[..., 1] < 128).sum()
    side = {size: IMAGE_SIZE * radius for size, radius in RADII.items()}
    for size in RADII:
        # By elementary geometry: a disc of 0.96 radii, a square whose corners lie at 1.18 radii.
        assert areas["circle", size] == pytest.approx(np.pi * (0.96 * side[size]) ** 2, rel=0.05)
        assert areas["square", size] == pytest.approx(2 * (1.18 * side[size]) ** 2, rel=0.05)
        assert len({areas[shape, size] for shape in SHAPES}) == len(SHAPES)
    assert all(areas[shape, "large"] > 2 * areas[shape, "small"] for shape in SHAPES)


def test_encoding_is_lossless_and_repeatable(scenes):
    scene = next(scene for scene in scenes["train"] if scene.word)
    first = encode(scene)
    assert first == encode(scene)
    with Image.open(BytesIO(first)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (IMAGE_SIZE, IMAGE_SIZE), "RGB")
        assert (np.asarray(image) == np.asarray(draw(scene))).all()
