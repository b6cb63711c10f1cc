from pathlib import Path

from lightning_llava.evaluation.answering import group_identical, make_rows
from lightning_llava.evaluation.benchmarks import Question


def question(number, image, text, split="random", label="yes", language="en"):
    return Question("pope", split, str(number), text, Path(image), label, language)


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
