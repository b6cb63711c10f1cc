from dataclasses import replace

import pytest

from ledgers import ledger_row
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.measures import with_intervals
from lightning_llava.evaluation.report import score_rows

ROW = ledger_row()


def pope(answers, split="random", start=0):
    """Three questions about every image; the first has the label yes."""
    return [
        replace(
            ROW,
            split=split,
            question_id=str(number),
            image=f"{start + number // 3}.jpg",
            raw_answer={"y": "Yes", "n": "No"}[answer],
            label="no" if number % 3 else "yes",
            correct=(answer == "y") == (number % 3 == 0),
        )
        for number, answer in enumerate(answers)
    ]


def test_values_are_those_of_the_report():
    rows = [*pope("ynnyynnnn"), *pope("ynynnnyyy", "popular", start=1)]
    found, scores = with_intervals(rows)["pope"], score_rows(rows)["pope"]
    for split in ("random", "popular", "mean"):
        for measure in ("accuracy", "f1"):
            assert found[split][measure].value == pytest.approx(scores[split][measure])
    assert list(found["mean"]) == ["f1", "accuracy"], "the headline comes first"
    images = {split: numbers["f1"].images for split, numbers in found.items()}
    assert images == {"random": 3, "popular": 3, "mean": 4}
    assert found["mean"]["f1"].questions == 18


def test_an_answer_brought_back_is_read_in_english():
    back = replace(ROW, language="ru", raw_answer="Конечно", english="yes", route="mt")
    wrong = replace(back, question_id="2", english="no", correct=False)
    numbers = with_intervals([back, wrong])["pope"]["random"]
    assert numbers["f1"].value == pytest.approx(2 / 3)
    # «Конечно» is no yes by itself, and the strict reading of Russian is for what stayed Russian.
    assert with_intervals([replace(back, english=None)])["pope"]["random"]["f1"].value == 0


def test_questions_without_image_stand_for_themselves():
    rows = [
        replace(ROW, benchmark="text", kind="gqa", question_id=str(n), image=None, label=label)
        for n, label in enumerate(["yes", "yes", "yes", "no", "no"])
    ]
    numbers = with_intervals(rows)["text"]["random"]
    assert list(numbers) == ["accuracy"]
    assert (numbers["accuracy"].value, numbers["accuracy"].images) == (0.6, 5)


def test_letters_read_wrong_have_an_interval():
    readings = {"дом": "дым", "мир": "мир", "да": ""}
    rows = [
        replace(
            ROW,
            **{"benchmark": "signs", "kind": "ocr", "language": "ru", "image": f"{label}.jpg"},
            **{"question_id": label, "label": label, "raw_answer": answer},
        )
        for label, answer in readings.items()
    ]
    numbers = with_intervals(rows)["signs"]["random"]
    assert list(numbers) == ["accuracy", "cer"]
    # One letter of three, none of three, both of two: all edits over all letters.
    assert numbers["cer"].value == score_rows(rows)["signs"]["random"]["cer"] == 3 / 8
    assert 0 <= numbers["cer"].low < 3 / 8 < numbers["cer"].high <= 1


def test_soft_scores_and_a_split_without_answers():
    vqa = replace(ROW, benchmark="vqa", kind="vqav2", raw_answer="Red", correct=None)
    answers = ["red"] * 2 + ["dark red"] * 8
    rows = [
        replace(vqa, split="val", answers=answers, label="dark red"),
        replace(vqa, split="val", question_id="2", answers=["red"] * 10, label="red"),
        replace(vqa, split="test", answers=[], label=None),
    ]
    found = with_intervals(rows)["vqa"]
    assert list(found) == ["val"]
    assert found["val"]["accuracy"].value == (0.6 + 1) / 2


def test_refuses_what_cannot_be_scored_together():
    second = replace(ROW, question_id="2")
    for rows, match in (
        ([], "the ledger has no rows with a right answer; expected"),
        ([ROW, ROW], "1 questions answered more than once, first '1' of 'pope', split 'random'"),
        ([replace(ROW, label=None)], "the ledger has no rows with a right answer"),
        ([ROW, replace(second, label=None)], "1 questions without a right answer in splits that"),
        ([ROW, replace(second, language="ru")], "'pope' holds rows of language en and ru"),
        (
            [ROW, replace(second, kind="gqa")],
            "'pope' holds rows of kind gqa and pope",
        ),
    ):
        with pytest.raises(SettingError, match=match):
            with_intervals(rows)
