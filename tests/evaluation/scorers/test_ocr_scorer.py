import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.ocr import (
    edit_distance,
    normalise_reading,
    ocr_compute,
    ocr_update,
)


@pytest.mark.parametrize(
    ("found", "expected", "distance"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "abc", 0),
        ("flaw", "lawn", 2),
        ("шит", "щит", 1),
        (["a", "b"], ["b", "a"], 2),
    ],
)
def test_edit_distance(found, expected, distance):
    assert edit_distance(found, expected) == distance


WORDS = st.text(alphabet="abв", max_size=6)


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_metric(first, second, third):
    assert edit_distance(first, second) == edit_distance(second, first)
    assert (edit_distance(first, second) == 0) == (first == second)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(
        second, third
    )


def test_corpus_rates_weigh_by_length_and_means_by_row():
    # 1 of 2 characters wrong; 1 of 18 characters and 1 of 3 words wrong.
    scores = ocr_compute(
        ocr_update(["да", "улица ленина, дом"], ["до", "улица Ленина, дом"], "verbatim")
    )
    assert scores["correct"] == 0
    assert scores["cer"] == 2 / 19
    assert scores["mean_cer"] == pytest.approx((1 / 2 + 1 / 17) / 2)
    assert scores["wer"] == 2 / 4
    assert scores["mean_wer"] == pytest.approx((1 + 1 / 3) / 2)


def test_a_long_answer_to_a_short_text_exceeds_one():
    scores = ocr_compute(ocr_update(["a sign that reads STOP"], ["STOP"], "verbatim"))
    assert scores["cer"] == 18 / 4
    assert scores["wer"] == 4.0


@pytest.mark.parametrize(
    ("found", "expected", "same_in"),
    [
        ("й", "и\u0306", ("verbatim", "folded", "lookalike")),
        ("Дом  5", "Дом\n5", ("verbatim", "folded", "lookalike")),
        ("ЕЛКА", "ёлка", ("folded", "lookalike")),
        ("«Да» — нет…", '"да" - нет...', ("folded", "lookalike")),
        ("МOCКBА", "Москва", ("lookalike",)),  # O, C, B are Latin
        ("STOP", "СТОП", ()),
        ("шит", "щит", ()),
    ],
)
def test_forms(found, expected, same_in):
    names = ("verbatim", "folded", "lookalike")
    same = [name for name in names if ocr_update([found], [expected], name).correct]
    assert tuple(same) == same_in


def test_lookalike_leaves_latin_words_alone():
    assert normalise_reading("Xbox и cокол", "lookalike") == "xbox и сокол"


def test_refuses_what_cannot_be_scored():
    with pytest.raises(SettingError, match="a reference is empty"):
        ocr_update(["x"], [" "], "verbatim")
    with pytest.raises(
        SettingError, match="'official' for ocr: the benchmark's own script defines"
    ):
        ocr_update(["x"], ["x"], "official")
