from dataclasses import replace
from pathlib import Path

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import group_by_image, group_identical, make_rows, share
from lightning_llava.evaluation.benchmarks import Question


def question(number, image, text, split="random", label="yes", language="en"):
    return Question("pope", split, str(number), text, image and Path(image), label, language)


def test_identical_questions_are_asked_once_and_images_stay_together():
    questions = [
        question(1, "a.png", "Is there a dog?"),
        question(2, "b.png", "Is there a dog?"),
        question(3, "a.png", "Is there a cat?"),
        question(1, "a.png", "Is there a dog?", split="popular"),
        question(4, "a.png", "Is there a dog?", language="ru"),
    ]
    groups = group_identical(questions)
    assert [[(q.split, q.question_id) for q in group] for group in groups] == [
        [("random", "1"), ("popular", "1")],
        [("random", "3")],
        [("random", "4")],
        [("random", "2")],
    ]


def test_every_question_of_a_group_gets_its_row():
    group = [
        question(1, "a.png", "Is there a dog?"),
        question(7, "a.png", "Is there a dog?", label="no"),
    ]
    rows = make_rows(group, "USER: Is there a dog? ASSISTANT:", "No, a cat")
    assert [(r.question_id, r.parsed, r.correct) for r in rows] == [
        ("1", "no", False),
        ("7", "no", True),
    ]
    assert {r.prompt for r in rows} == {"USER: Is there a dog? ASSISTANT:"}


def test_a_question_without_label_is_not_judged():
    (row,) = make_rows([question(1, "a.png", "What?", label=None)], "What?", "No.")
    assert (row.parsed, row.correct) == (None, None)


def texts(shared):
    return [[same[0].text for same in group] for group in shared]


ASKED = [("a.png", "1"), ("b.png", "2"), (None, "3"), ("a.png", "4"), (None, "5"), (None, "6")]


def test_questions_about_an_image_stay_together_and_others_are_counted():
    groups = group_identical([question(text, image, text) for image, text in ASKED])
    together = group_by_image(groups, lambda group: group[0].image, 2)
    assert texts(together) == [["1", "4"], ["2"], ["3", "5"], ["6"]]


def test_a_process_gets_whole_images():
    groups = group_identical([question(text, image, text) for image, text in ASKED])
    parts = [texts(share(groups, rank, 2, at_once=2)) for rank in range(2)]
    assert parts == [[["1", "4"], ["3", "5"]], [["2"], ["6"]]]
    # Without images there is always enough for all.
    plain = group_identical([question(text, None, text) for text in "abc"])
    assert [texts(share(plain, rank, 3, at_once=16)) for rank in range(3)] == [
        [["a"]],
        [["b"]],
        [["c"]],
    ]


def test_a_process_without_an_image_is_refused():
    groups = group_identical([question(n, "a.png", str(n)) for n in range(5)])
    with pytest.raises(SettingError, match=r"5 different questions about 1 images for 2 processes"):
        share(groups, 0, 2, at_once=4)


def test_processes_in_step_take_questions_one_by_one_and_no_second_turns():
    groups = group_identical([question(text, image, text) for image, text in ASKED])
    parts = [texts(share(groups, rank, 2, at_once=4, in_step=True)) for rank in range(2)]
    assert parts == [[["1"], ["2"], ["5"]], [["4"], ["3"], ["6"]]]
    two_turns = [[replace(question("1", None, "1"), follow_up="2")], *groups]
    with pytest.raises(SettingError, match=r"second turns depend on the first.* fsdp2"):
        share(two_turns, 0, 2, at_once=4, in_step=True)
