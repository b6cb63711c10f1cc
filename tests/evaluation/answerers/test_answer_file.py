"""A file of answers joins on ids, and on nothing that only looks alike."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.answer_file import AnswerFile
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.ledger import write_ledger

LLAVA = [
    {"question_id": i, "text": t, "prompt": p}
    for i, t, p in [(1, "Yes", "Is there a dog?\nAnswer briefly."), (2, "no", "Is there a cat?")]
]
VQA = [{"question_id": 1, "answer": "Yes"}, {"question_id": 2, "answer": "no"}]
GQA = [{"questionId": "1", "prediction": "Yes"}, {"questionId": "2", "prediction": "no"}]


def question(number, text, split="random"):
    return Question("pope", split, number, text, Path("a/cat.jpg"), "yes", "en", answers=("yes",))


ASKED = [question("2", "Is there a cat?"), question("1", "Is there a dog?")]


def written(folder, content):
    path = folder / "answers.json"
    path.write_text(json.dumps(content))
    return AnswerFile(path)


@pytest.mark.parametrize("content", [LLAVA, VQA, GQA])
def test_any_form(tmp_path, content):
    answers = written(tmp_path, content)
    assert answers.answer(None, ASKED) == ["no", "Yes"]
    assert answers.fingerprint is None


def test_the_prompt_is_what_the_file_says(tmp_path):
    assert written(tmp_path, LLAVA).prompt(ASKED[1]) == "Is there a dog?\nAnswer briefly."
    assert written(tmp_path, VQA).prompt(ASKED[1]) == "Is there a dog?"


def test_equal_questions_may_have_different_answers(tmp_path):
    same = [question("1", "Is there a dog?"), question("2", "Is there a dog?")]
    assert written(tmp_path, VQA).answer(None, same) == ["Yes", "no"]


def test_a_ledger_joins_on_its_splits_too(tmp_path):
    asked = [question("1", "Is there a dog?", split) for split in ("random", "popular")]
    rows = [
        row
        for one, said in zip(asked, ("Yes", "no"), strict=True)
        for row in make_rows([one], "prompt: Is there a dog?", said)
    ]
    write_ledger(tmp_path / "ledger.jsonl", rows)
    answers = AnswerFile(tmp_path / "ledger.jsonl")
    assert answers.answer(None, asked[::-1]) == ["no", "Yes"]
    with pytest.raises(
        SettingError, match=r"does not say which split .* 1 question ids .* data\.benchmarks"
    ):
        written(tmp_path, VQA[:1]).answer(None, asked)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (VQA[:1], r"answers missing: 1 \(\('2',\)\)"),
        ([*VQA, {"question_id": 3, "answer": "no"}], "does not have: 1"),
        ([*VQA, VQA[0]], "answered more than once: 1"),
        ([LLAVA[0], LLAVA[1] | {"prompt": "Is there a car?"}], "was asked 'Is there a car"),
        ([VQA[0], VQA[1] | {"image": "dog.jpg"}], "is about 'dog.jpg'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, content, said):
    with pytest.raises(SettingError, match=said):
        written(tmp_path, content).answer(None, ASKED)


def test_answers_are_taken_as_they_were_given(tmp_path):
    asked = question("1", "Есть ли тут собака?")
    (row,) = make_rows([asked], "prompt", "Да")
    write_ledger(tmp_path / "ledger.jsonl", [replace(row, english="yes", route="map")])
    assert AnswerFile(tmp_path / "ledger.jsonl").answer(None, [asked]) == ["Да"]
