from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lightning_llava.lettering import font, ink, wrap

LONG = "Есть ли на этой картинке что-нибудь, кроме красного круга и жёлтого квадрата? " * 20


def test_cyrillic_is_drawn_as_letters_and_not_as_boxes():
    def drawn(letter):
        image = Image.new("L", (24, 24))
        ImageDraw.Draw(image).text((2, 2), letter, fill=255, font=font(14))
        return image.tobytes()

    boxes = drawn("\U0010fffd")
    masks = [drawn(letter) for letter in "бвгджзийлпфцчшщъыьэюяё№«»"]
    assert boxes not in masks
    assert len(set(masks)) == len(masks)


@pytest.mark.parametrize("text", ["x", "Ёж", "щ ,"])
def test_ink_is_what_is_painted(text):
    image = Image.new("L", (200, 80))
    ImageDraw.Draw(image).text((20, 10), text, fill=255, font=font(30))
    rows, columns = np.nonzero(np.asarray(image))
    painted = (columns.min() - 20, rows.min() - 10, columns.max() - 19, rows.max() - 9)
    assert ink(font(30), text) == painted


def test_wrapped_lines_are_as_wide_as_allowed_and_say_everything():
    text = LONG[:150] + "щ" * 200
    lines = wrap(text, font(13), 200, 100)
    assert all(font(13).getlength(line) <= 200 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    # Greedy: the next line's first word would not have fitted.
    for line, following in pairwise(lines):
        assert font(13).getlength(f"{line} {following.split()[0]}") > 200
    assert wrap(text, font(13), 200, 3)[:2] == lines[:2]


@pytest.mark.parametrize("lines", [1, 6])
def test_long_texts_are_cut_visibly(lines):
    made = wrap(LONG, font(14), 240, lines)
    assert len(made) == lines
    assert made[-1].endswith(" …")
    assert all(font(14).getlength(line) <= 240 for line in made)
    assert wrap("", font(14), 240, lines) == [""]
