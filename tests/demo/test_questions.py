from random import Random

from lightning_llava.demo import questions
from lightning_llava.demo.questions import Balance, Question
from lightning_llava.demo.scenes import COLOURS, SHAPES, Kind, Scene, SceneObject

OBJECTS = (
    SceneObject(Kind("red", "circle"), "large", 0),
    SceneObject(Kind("red", "circle"), "small", 4),
    SceneObject(Kind("blue", "star"), "small", 8),
)
SCENE = Scene("train", 0, OBJECTS)
VALIDATION = Scene("validation", 0, OBJECTS)


def combinations(asked):
    return {(question.colour, question.shape) for question in asked}


def test_existence():
    present = questions.exists(SCENE, answer=True)
    assert present == [
        Question("exists", True, "red", "circle"),
        Question("exists", True, "blue", "star"),
    ]
    absent = questions.exists(SCENE, answer=False)
    # 7 colours times 6 shapes, without 6 that are held out and 2 that are there.
    assert len(combinations(absent)) == len(absent) == 34
    assert not any(question.answer for question in absent)
    assert len(questions.exists(VALIDATION, answer=False)) == 40


def test_near_misses_share_a_colour_or_a_shape():
    circles = {(colour, "circle") for colour in ("blue", "green", "yellow", "orange", "black")}
    reds = {("red", shape) for shape in ("square", "triangle", "heart", "cross")}
    stars = {(colour, "star") for colour in ("green", "yellow", "purple", "orange", "black")}
    blues = {("blue", shape) for shape in ("square", "heart", "cross")}
    near = questions.near_misses(SCENE)
    assert combinations(near) == circles | reds | stars | blues
    assert not any(question.answer for question in near)


def test_a_colour_is_denied_only_of_the_one_thing_of_its_shape():
    assert questions.is_colour(SCENE, answer=True) == [Question("is_colour", True, "blue", "star")]
    denied = questions.is_colour(SCENE, answer=False)
    assert combinations(denied) == {
        (colour, "star") for colour in ("green", "yellow", "purple", "orange", "black")
    }
    # Red stars are held out: in validation they may be mentioned.
    assert combinations(questions.is_colour(VALIDATION, answer=False)) - combinations(denied) == {
        ("red", "star")
    }


def test_colours_shapes_and_places():
    assert questions.colours_by_shape(SCENE) == [Question("colour_of", "blue", shape="star")]
    assert [(q.cell, q.answer) for q in questions.colours_by_place(SCENE)] == [
        (0, "red"),
        (4, "red"),
        (8, "blue"),
    ]
    assert [(q.cell, q.answer) for q in questions.shapes(SCENE)] == [
        (0, "circle"),
        (4, "circle"),
        (8, "star"),
    ]
    assert questions.places(SCENE) == [Question("where", 8, "blue", "star")]


def test_counts():
    assert questions.count_all(SCENE) == [Question("count_all", 3)]
    by_shape = {q.shape: q.answer for q in questions.counts_by_shape(SCENE)}
    assert by_shape == {**dict.fromkeys(SHAPES, 0), "circle": 2, "star": 1}
    by_colour = {q.colour: q.answer for q in questions.counts_by_colour(SCENE)}
    assert by_colour == {**dict.fromkeys(COLOURS, 0), "red": 2, "blue": 1}


def test_the_rarer_answer_is_preferred():
    balance, rng = Balance(), Random(0)
    hearts = [Question("count_shape", number, shape="heart") for number in (0, 1)]
    assert [balance.pick(hearts[:1], rng).answer for _ in range(3)] == [0, 0, 0]
    # 0 was given three times, so 1 is due until it has caught up.
    assert [balance.pick(hearts, rng).answer for _ in range(3)] == [1, 1, 1]


def test_answers_are_weighed_against_their_own_question():
    balance, rng = Balance(), Random(0)
    hearts = Question("count_shape", 0, shape="heart")
    stars = {number: Question("count_shape", number, shape="star") for number in (0, 1)}
    balance.pick([hearts], rng)
    balance.pick([stars[0]], rng)
    balance.pick([stars[1]], rng)
    # Of what was asked about stars half was 0; of what was asked about hearts all was.
    assert all(balance.pick([hearts, stars[0]], rng) == stars[0] for _ in range(5))


def test_without_a_history_any_candidate_may_be_picked():
    kinds = questions.exists(SCENE, answer=False)
    picked = {Balance().pick(kinds, Random(seed)) for seed in range(200)}
    assert len(picked) > 25
