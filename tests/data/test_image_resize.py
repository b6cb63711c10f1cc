"""Exact parts of Pillow's resize: against Pillow itself, pixel by pixel."""

import resource
import time
from random import Random

import numpy as np
import pytest
from PIL import Image

from lightning_llava.data import image_resize
from lightning_llava.data.image_resize import resize
from lightning_llava.data.images import Recipe, expand_to_square

SIDE = 96
CLIP = Recipe(keeps_aspect=True, size=SIDE, crop=SIDE)
FILL = (122, 116, 104)
BICUBIC = Image.Resampling.BICUBIC


def noise(width, height):
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_pillow(image, pad, edge=SIDE, side=SIDE):
    image = expand_to_square(image, FILL) if pad else image
    short = min(image.size)
    size = [edge if length == short else int(edge * length / short) for length in image.size]
    left, top = ((length - side) // 2 for length in size)
    return image.resize(size, BICUBIC).crop((left, top, left + side, top + side))


def assert_exact(size, pad, recipe=CLIP):
    image = noise(*size)
    made = resize(image, *recipe.axes(*size, pad), FILL)
    expected = by_pillow(image, pad, recipe.size, recipe.crop)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(expected), err_msg=str(size))


SIZES = [(1, 1), (2, 1), (1, 2), (96, 97), (97, 96), (95, 96), (192, 96), (400, 3), (3, 400)]
SIZES += [(1, 150), (150, 1), (500, 333), (333, 500), (640, 480)]


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("in_parts", [False, True])
def test_every_size_gives_pillows_pixels(monkeypatch, pad, in_parts):
    if in_parts:
        monkeypatch.setattr(image_resize, "LARGEST_INTERMEDIATE", 0)
    random = Random(7)
    sizes = SIZES + [(random.randint(1, 300), random.randint(1, 300)) for _ in range(40)]
    for size in sizes:
        parts = image_resize.is_large(*CLIP.axes(*size, pad))
        enlarged = min(size) < SIDE
        assert parts == (in_parts and ((pad and size[0] != size[1]) or enlarged))
        assert_exact(size, pad)


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_crop_of_both_sides(monkeypatch, in_parts):
    if in_parts:
        monkeypatch.setattr(image_resize, "LARGEST_INTERMEDIATE", 0)
    recipe = Recipe(keeps_aspect=True, size=110, crop=SIDE)
    for size in [(110, 110), (220, 165), (165, 220), (60, 50), (50, 60), (31, 7), (7, 31)]:
        for pad in (False, True):
            assert_exact(size, pad, recipe)


def test_the_crop_goes_into_pillows_resize_where_that_changes_nothing(monkeypatch):
    made = []
    monkeypatch.setattr(Image.Image, "resize", spy(Image.Image.resize, made))
    for size in [(640, 480), (500, 375), (500, 333)]:
        resize(noise(*size), *CLIP.axes(*size, pad=False), FILL)
    # 500 x 333: 500 / 144 of a pixel per pixel has no single-precision corners.
    assert made == [(96, 96), (96, 96), (144, 96)]


def spy(function, calls):
    def called(image, size, *more):
        calls.append(tuple(size))
        return function(image, size, *more)

    return called


@pytest.mark.parametrize(
    "size",
    [(1500, 1), (1, 1500), (30_000, 20), (20, 30_000), (65_535, 1), (1, 65_535), (40_000, 200)],
)
@pytest.mark.parametrize("pad", [False, True])
def test_long_images_take_neither_time_nor_memory(size, pad):
    recipe = Recipe(keeps_aspect=True, size=336, crop=336)
    image = Image.new("RGB", size, "red")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    made = np.asarray(resize(image, *recipe.axes(*size, pad), FILL))
    assert time.process_time() - start < 5
    # 1500 x 1 enlarged as a whole is 680 MB, 30,000 pixels squared 3.6 GB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
    assert made.shape == (336, 336, 3)
    if pad and max(size) < 2000:
        assert not np.array_equal(made[168, 168], FILL)
        assert np.array_equal(made[0, 0], FILL) or np.array_equal(made[0, -1], FILL)
    if not pad:
        assert (made == (255, 0, 0)).all()


def test_a_long_image_shows_its_middle():
    """Half black, half white: the edge is in the middle, as wide as one pixel enlarged."""
    for size, transposed in [((1500, 1), False), ((1, 1500), True)]:
        values = np.zeros(1500, np.uint8)
        values[750:] = 255
        pixels = np.repeat(values[:, None], 3, axis=1).reshape(*size[::-1], 3)
        recipe = Recipe(keeps_aspect=True, size=336, crop=336)
        made = np.asarray(resize(Image.fromarray(pixels), *recipe.axes(*size, False), FILL))
        made = made[..., 0].T if transposed else made[..., 0]
        row = made[0].astype(int)
        assert (made == row).all()
        # A pixel becomes 336 pixels wide: seen is the half of one on either side of the edge.
        assert row[0] < 2
        assert row[-1] > 253
        assert abs(row[167] + row[168] - 255) <= 1
        assert (np.diff(row)[20:-20] >= 0).all()
