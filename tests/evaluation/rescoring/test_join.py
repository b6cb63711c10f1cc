import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.rescoring.join import by_id, by_image_and_prompt, plain_question
from lightning_llava.evaluation.rescoring.predictions import Prediction


def truth(name, **more):
    return Truth(name, ("yes",), **more)


def answer(name, **more):
    return Prediction(name, "Yes", f"answers.jsonl, line {name}", **more)


def test_joins_in_the_order_of_the_ground_truth():
    pairs = by_id("random", [truth("1"), truth("2")], [answer("2"), answer("1")])
    assert [(ours.id, theirs.id) for ours, theirs in pairs] == [("1", "1"), ("2", "2")]


def test_names_missing_double_and_extra_rows_with_counts_and_the_first_ids():
    truths = [truth(str(name)) for name in range(1, 9)]
    answers = [answer(name) for name in ("1", "2", "2", "9")]
    with pytest.raises(SettingError) as error:
        by_id("random", truths, answers)
    assert str(error.value) == (
        "random: answers missing: 6 (3, 4, 5, …); questions answered more than once: 1 (2); "
        "answers to questions that the ground truth does not have: 1 (9); the ground truth asks "
        "8 questions, the predictions answer 4; give predictions and ground truth of the same "
        "version, whole"
    )


def test_answers_to_unbalanced_questions_are_allowed_and_left_out():
    truths = [truth("1"), truth("2", counts=False), truth("3", counts=False)]
    pairs = by_id("gqa", truths, [answer("1"), answer("2")])
    assert [ours.id for ours, _ in pairs] == ["1"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"image": "COCO_val2014_000000310196.jpg"}, {"image": "x/COCO_val2014_000000310196.jpg"}),
        ({"image": "310196"}, {"image": "000000310196.jpg"}),
        (
            {"question": "Is there an oven in the imange?"},
            {"question": "Is there an oven in the image?"},
        ),
        (
            {"question": "Is there a car?"},
            {"prompt": "Is there a car?\nAnswer the question using a single word or phrase."},
        ),
        ({"question": "is there a car?"}, {"prompt": "USER: <image>\nIs there a car?\nASSISTANT:"}),
        ({"question": "Is there a car?"}, {"question": "Есть ли здесь машина?"}),
    ],
)
def test_the_same_question(asked, said):
    assert by_id("random", [truth("1", **asked)], [answer("1", **said)])


@pytest.mark.parametrize(
    ("asked", "said", "found"),
    [
        ({"image": "a/1.jpg"}, {"image": "a/2.jpg"}, "is about 'a/2.jpg', but the ground truth"),
        (
            {"question": "Is there a car?"},
            {"question": "Is there a cat?"},
            "was asked 'Is there a c",
        ),
        ({"question": "Is there a car?"}, {"prompt": "Is there a bus?\nAnswer."}, "was asked"),
        ({"question": "Здесь кот?"}, {"question": "Здесь пёс?"}, "was asked 'Здесь пёс"),
    ],
)
def test_another_question(asked, said, found):
    with pytest.raises(SettingError, match=rf"answers\.jsonl, line 1: {found}"):
        by_id("random", [truth("1", **asked)], [answer("1", **said)])


def test_plain_question():
    prompt = "<image>\nIs there an oven in the imange?\nAnswer the question using a single word."
    assert plain_question(prompt) == "Is there an oven in the image?"


def test_textvqa_joins_on_image_and_a_line_of_the_prompt():
    truths = [
        truth("1", image="ab", question="what brand is it?"),
        truth("2", image="ab", question="what time is it?"),
        truth("3", image="cd", question="what time is it?"),
    ]
    prompts = [
        ("cd", "What time is it?\nAnswer the question using a single word or phrase."),
        ("ab", "What time is it?\nReference OCR token: a, b\nAnswer briefly."),
        ("ab", "Reference OCR token: what time is it?\nWhat brand is it?\nAnswer briefly."),
    ]
    answers = [answer(image, prompt=prompt) for image, prompt in prompts]
    pairs = by_image_and_prompt(truths, answers)
    assert [theirs for _, theirs in pairs] == answers[::-1]
    with pytest.raises(SettingError, match=r"answers missing: 1 \(\('cd', 'what time is it"):
        by_image_and_prompt(truths, answers[1:])
    with pytest.raises(SettingError, match="no line of the prompt 'Who is it"):
        by_image_and_prompt(truths, [answer("ab", prompt="Who is it?")])
    with pytest.raises(SettingError, match="there is no 'prompt'"):
        by_image_and_prompt(truths, [answer("ab")])
