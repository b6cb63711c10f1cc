import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llava.data.converters.regions import Picture, place_region
from lightning_llava.evaluation.scorers.regions import (
    iou,
    parse_box,
    regions_compute,
    regions_update,
    unpad,
)


@pytest.mark.parametrize(
    ("answer", "box"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("It is at [0,.25,1,0.5].", (0.0, 0.25, 1.0, 0.5)),
        ("[0.1, 0.2, 0.3]", None),
        ("0.1, 0.2, 0.3, 0.4", None),
        ("", None),
    ],
)
def test_boxes_in_answers(answer, box):
    assert parse_box(answer) == box


def test_iou_by_hand():
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == 1 / 7
    assert iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert iou((1, 1, 0, 0), (0, 0, 1, 1)) == 0  # corners the wrong way round


EDGE = st.floats(0.0, 1.0)
BOX = st.tuples(EDGE, EDGE, EDGE, EDGE)


@given(BOX, BOX)
def test_iou_is_symmetric_and_a_fraction(first, second):
    assert iou(first, second) == pytest.approx(iou(second, first))
    assert 0 <= iou(first, second) <= 1 + 1e-9


def test_accuracy_counts_half_and_unparsed_covers_nothing():
    box = (0.0, 0.0, 1.0, 1.0)
    answers = ["[0, 0, 1, 0.5]", "[0, 0, 1, 0.49]", "[0, 0, 1, 1]", "on the left"]
    assert regions_compute(regions_update(answers, [box] * 4)) == {
        "accuracy": 0.5,
        "mean_iou": pytest.approx((0.5 + 0.49 + 1) / 4),
        "unknown_rate": 0.25,
        "correct": 2,
        "total": 4,
    }


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (400, 400)])
@pytest.mark.parametrize("coordinates", ["padded", "image"])
def test_the_converters_own_boxes_are_right(size, coordinates):
    picture = Picture("1", "1.jpg", *size)
    region = place_region("1", (60.0, 80.0, 300.0, 340.0), "a cat", picture, coordinates)
    padded = [size] if coordinates == "padded" else None
    counts = regions_update([region.written], [region.box.xyxy], padded)
    assert counts.iou_sum > 0.97  # two decimals
    if coordinates == "padded" and size[0] != size[1]:
        assert regions_update([region.written], [region.box.xyxy]).iou_sum < counts.iou_sum


def test_unpad_by_hand():
    # 200 x 100 lies between a quarter and three quarters of a square of 200.
    assert unpad((0.0, 0.25, 1.0, 0.75), (200, 100)) == (0.0, 0.0, 1.0, 1.0)
    assert unpad((0.25, 0.0, 0.5, 1.0), (100, 200)) == (0.0, 0.0, 0.5, 1.0)
