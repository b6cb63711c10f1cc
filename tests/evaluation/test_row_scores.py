from dataclasses import replace
from pathlib import Path

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.row_scores import judged, row_score

HUMANS = ("two",) * 6 + ("2",) * 2 + ("a few", "three")


def row(kind, answer, label, answers=None, language="en"):
    answers = (label,) if answers is None else answers
    question = Question("x", "y", "1", "?", Path("a"), label, language, kind, answers)
    return make_rows([question], "?", answer)[0]


@pytest.mark.parametrize(
    ("kind", "answer", "label", "score", "parsed"),
    [
        ("pope", "Yes, it is.", "yes", 1, "yes"),
        ("pope", "No", "yes", 0, "no"),
        ("gqa", "Cat.", "cat", 1, "cat"),
        ("gqa", "a cat", "cat", 0, "a cat"),
        ("gqa", "", "cat", 0, ""),
        ("ocr", "Привет,  мир", "Привет, мир", 1, "Привет, мир"),
        ("ocr", "привет, мир", "Привет, мир", 0, "привет, мир"),
        # Half of the box: an IoU of 0.5, and a little less.
        ("regions", "It is [0, 0, 1, 0.25].", "[0.0, 0.0, 1.0, 0.5]", 1, "[0.0, 0.0, 1.0, 0.25]"),
        ("regions", "[0, 0, 1, 0.249]", "[0.0, 0.0, 1.0, 0.5]", 0, "[0.0, 0.0, 1.0, 0.249]"),
        ("regions", "left", "[0.1, 0.1, 0.2, 0.2]", 0, None),
    ],
)
def test_one_right_answer(kind, answer, label, score, parsed):
    found = row(kind, answer, label)
    assert (row_score(found), found.parsed, found.correct) == (score, parsed, score == 1)


@pytest.mark.parametrize("kind", ["vqav2", "textvqa"])
@pytest.mark.parametrize(
    ("answer", "score"), [("Two.", 1.0), ("2", 1.0), ("A few", 0.3), ("three", 0.3), ("ten", 0)]
)
def test_ten_answers(kind, answer, score):
    # `two` and `2` are the same once processed, so eight people said so.
    found = row(kind, answer, "two", HUMANS)
    assert (row_score(found), found.correct) == (score, score >= 0.5)


def test_russian_answers():
    assert row_score(row("pope", "Нет.", "no", language="ru")) == 1
    assert row_score(row("gqa_ru", "Кот!", "кот", language="ru")) == 1
    assert row_score(row("gqa_ru", "кошка", "кот", language="ru")) == 0


def test_what_was_brought_back_is_scored_in_english():
    found = row("gqa", "Кот.", "cat", language="ru")
    assert row_score(found) == 0
    english = judged(replace(found, english="Cat", route="map"))
    assert (english.parsed, english.correct, english.raw_answer) == ("cat", True, "Кот.")
    # POPE asked in Russian has unknown answers, translated or not.
    unclear = judged(replace(row("pope", "Возможно", "yes", language="ru"), english="Maybe"))
    assert (unclear.parsed, unclear.correct) == ("unknown", False)
    clear = judged(replace(unclear, english="No, it is not."))
    assert (clear.parsed, clear.correct) == ("no", False)
    # A Russian right answer is never compared with English.
    assert row_score(replace(row("gqa_ru", "кот", "кот", language="ru"), english="cat")) == 1


def test_rows_without_label_have_no_score():
    found = row("vqav2", "two", None, ())
    assert (found.parsed, found.correct) == (None, None)
    with pytest.raises(SettingError, match="question '1' of 'x', split 'y', has no label"):
        row_score(found)
