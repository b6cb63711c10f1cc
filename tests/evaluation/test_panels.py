import numpy as np
import pytest
from PIL import Image, ImageChops

from lightning_llava.evaluation.panels import draw_panel
from lightning_llava.lettering import font

GREEN, RED, GREY = (20, 125, 50), (185, 30, 30), (95, 95, 95)
LONG = "Есть ли на этой картинке что-нибудь, кроме красного круга и жёлтого квадрата? " * 20


def panel(
    size=(32, 32), question="dog?", prediction="No", reference="yes", verdict=False, **settings
):
    image = Image.new(settings.get("mode", "RGB"), size)
    return draw_panel(image, question, prediction, reference, verdict)


def test_tiny_pictures_grow_without_smoothing():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    drawn = np.asarray(draw_panel(Image.fromarray(pixels), "dog?", "No", "yes", False))
    assert drawn.shape[1] == 270, "256 / 30, rounded up to a whole factor, is 9"
    np.testing.assert_array_equal(drawn[: 24 * 9], pixels.repeat(9, 0).repeat(9, 1))


@pytest.mark.parametrize(
    ("size", "width", "picture"),
    [
        ((336, 336), 336, (336, 336)),
        ((2000, 1000), 512, (512, 256)),
        ((4000, 3), 512, (512, 1)),
        ((50, 2000), 256, (13, 512)),
        ((100, 200), 256, (200, 400)),
    ],
)
def test_sizes(size, width, picture):
    drawn = panel(size)
    assert drawn.width == width
    black = (np.asarray(drawn) == 0).all(-1)[: picture[1]]
    assert black[0].sum() == picture[0]
    assert black.all(0).sum() == picture[0], "the picture fills its rows"
    margin = (width - picture[0]) // 2
    assert black[0, margin : margin + picture[0]].all(), "centred"


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_any_mode_becomes_rgb(mode):
    assert panel(mode=mode).mode == "RGB"


@pytest.mark.parametrize(("verdict", "colour"), [(True, GREEN), (False, RED), (None, GREY)])
def test_verdict_has_a_colour_and_a_word(verdict, colour):
    drawn = panel(verdict=verdict)
    assert drawn.getpixel((1, drawn.height - 2)) == colour
    colours = {GREEN, RED, GREY}
    shown = {pixel for _, pixel in drawn.getcolors(1 << 16) or []}
    assert shown & colours == {colour}


def test_reference_adds_a_line_and_empty_answers_show():
    without = draw_panel(Image.new("RGB", (32, 32)), "dog?", "No", None, False)
    assert without.height < panel().height
    assert panel(prediction=" ").height == panel(prediction="(empty)").height
    difference = ImageChops.difference(panel(prediction=" "), panel(prediction="(empty)"))
    assert difference.getbbox() is None


def test_long_texts_are_cut_after_six_lines():
    heights = [panel(question=question).height for question in ("dog?", LONG, LONG * 2)]
    line_height = sum(font(14).getmetrics()) + 2
    assert heights == [heights[0], heights[0] + 5 * line_height, heights[0] + 5 * line_height]


def test_cyrillic_letters_differ():
    shown = {panel(question=letter).tobytes() for letter in "ЁЖЩЪЫЯ"}
    assert len(shown) == 6
