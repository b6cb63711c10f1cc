import pytest

from lightning_llava.demo import english
from lightning_llava.demo.questions import Question
from lightning_llava.demo.scenes import Kind, PrintedWord, Scene, SceneObject

STAR = SceneObject(Kind("orange", "star"), "large", 0)
CROSS = SceneObject(Kind("blue", "cross"), "small", 4)


@pytest.mark.parametrize(
    ("question", "ask", "answer", "reply"),
    [
        (
            Question("exists", False, "orange", "star"),
            "Is there an orange star in the image?",
            "No",
            "No, there is no orange star in the image.",
        ),
        (
            Question("exists", True, "red", "star"),
            "Is there a red star in the image?",
            "Yes",
            "Yes, there is a red star in the image.",
        ),
        (
            Question("is_colour", False, "red", "heart"),
            "Is the heart red?",
            "No",
            "No, the heart is not red.",
        ),
        (
            Question("colour_of", "black", shape="heart"),
            "What color is the heart?",
            "Black",
            "The heart is black.",
        ),
        (
            Question("colour_at", "orange", cell=4),
            "What color is the object in the middle?",
            "Orange",
            "The object in the middle is orange.",
        ),
        (
            Question("shape_at", "cross", cell=2),
            "What shape is the object at the top right?",
            "Cross",
            "The object at the top right is a cross.",
        ),
        (
            Question("count_all", 1),
            "How many objects are in the image?",
            "1",
            "There is one object in the image.",
        ),
        (
            Question("count_shape", 0, shape="cross"),
            "How many crosses are in the image?",
            "0",
            "There are no crosses in the image.",
        ),
        (
            Question("count_shape", 1, shape="cross"),
            "How many crosses are in the image?",
            "1",
            "There is one cross in the image.",
        ),
        (
            Question("count_colour", 4, "green"),
            "How many green objects are in the image?",
            "4",
            "There are four green objects in the image.",
        ),
        (
            Question("where", 3, "orange", "star"),
            "Where is the orange star?",
            "Left",
            "The orange star is on the left.",
        ),
        (
            Question("where_it", 7, shape="star"),
            "Where is it?",
            "Bottom",
            "It is at the bottom.",
        ),
        (
            Question("has_word", False),
            "Is there a word in the image?",
            "No",
            "No, there is no word in the image.",
        ),
        (
            Question("read", "ЁЖИК"),
            "What word is written in the image?",
            "ЁЖИК",
            'The word "ЁЖИК" is written in the image.',
        ),
    ],
    ids=lambda value: value.topic if isinstance(value, Question) else "",
)
def test_questions_and_answers(question, ask, answer, reply):
    assert english.ask(question) == ask
    assert english.answer(question) == answer
    assert english.reply(question) == reply


def test_captions():
    assert (
        english.caption(Scene("train", 0, (STAR, CROSS), PrintedWord("SUN", 2)))
        == "A large orange star at the top left and a small blue cross in the middle. The word"
        ' "SUN" is written at the bottom.'
    )
    last = SceneObject(Kind("red", "circle"), "small", 8)
    assert (
        english.caption(Scene("train", 0, (STAR, CROSS, last)))
        == "A large orange star at the top left, a small blue cross in the middle and a small red"
        " circle at the bottom right."
    )
    assert english.caption(Scene("train", 0, (CROSS,))) == "A small blue cross in the middle."


def test_other_phrases():
    assert english.ask_box(english.describe(STAR)) == (
        "Give the box of the region: large orange star."
    )
    assert english.ask_sum(2, 3) == "What is 2 plus 3?"
    assert english.ask_letter("SUN", last=True) == 'What is the last letter of the word "SUN"?'
    assert english.ask_opposite("hot") == 'What is the opposite of "hot"?'
