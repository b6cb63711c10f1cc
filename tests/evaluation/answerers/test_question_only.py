import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.choose import load_answerer
from lightning_llava.evaluation.answerers.question_only import QuestionOnly, read_short_answers
from lightning_llava.evaluation.benchmarks import Question

SHORT = "\nAnswer the question using a single word or phrase."
PAIRS = [
    ("<image>\nIs there a red star?" + SHORT, "Yes"),
    ("Is there a red star?" + SHORT, "Yes"),
    ("Is there a red star?" + SHORT, "No"),
    ("Is there a red heart?" + SHORT, "No"),
    ("Is there a red cross?" + SHORT, "No"),
    ("How many stars are there?" + SHORT, "2"),
    ("How many stars are there?" + SHORT, "1"),
    ("Какого цвета звезда?\nОтветь одним словом.", "Красный"),
]


def ask(answerer, *texts):
    asked = [Question("b", "s", str(i), text, None, None, "en") for i, text in enumerate(texts)]
    return answerer.answer(None, asked)


def test_answers_by_hand():
    said = ask(
        QuestionOnly(PAIRS),
        "Is there a red star?",  # yes twice, no once
        "Is there a red circle?",  # not asked in training, where the red ones are no thrice
        "Is there a red star?" + SHORT,  # OCR files bring the prompt along
        "How many stars are there?",  # a tie
        "Какого цвета круг?",
        "Why?",  # no word of it is known: the commonest of all
    )
    assert said == ["Yes", "No", "Yes", "1", "Красный", "No"]


def test_the_fingerprint_is_that_of_the_answers():
    first, again, other = (QuestionOnly(p) for p in (PAIRS, PAIRS[::-1], PAIRS[1:]))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_short_answers_of_shards(demo_world):
    pairs = list(read_short_answers(f"{demo_world}/train/{{vqa,ocr,dialogue,text}}-en-*.tar"))
    asked = [question for question, _ in pairs]
    assert all(question.endswith(SHORT) for question in asked)
    only = list(read_short_answers(f"{demo_world}/train/{{vqa,ocr}}-en-*.tar"))
    assert pairs == only, "dialogues answer in sentences, and texts are about no picture"
    assert len({question for question, _ in pairs}) > 50


def test_the_command_line_takes_shards(demo_world):
    answerer = load_answerer(f"{demo_world}/train/vqa-*.tar", "auto", None)
    assert ask(answerer, "How many objects are in the image?")[0] in {"1", "2", "3", "4"}
    with pytest.raises(SettingError, match="holds no question about a picture that asks"):
        load_answerer(f"{demo_world}/train/text-*.tar", "auto", None)
    with pytest.raises(SettingError, match="--prompt: --answerer question_only does not take it"):
        load_answerer(f"{demo_world}/train/vqa-*.tar", "auto", None, template="?")
