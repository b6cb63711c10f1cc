import random
from collections import Counter
from math import sqrt

from lightning_llava.demo.scenes import (
    COLOURS,
    HELD_OUT_KINDS,
    KINDS,
    NUM_CELLS,
    SHAPES,
    Kind,
    PrintedWord,
    Scene,
    SceneObject,
    generate,
    owner,
)
from lightning_llava.demo.words import HELD_OUT_WORDS, WORDS


def test_a_scene_depends_on_its_own_numbers_alone():
    alone = generate(3, 17, "train")
    before = random.getstate()
    later = [generate(3, i, "train") for i in reversed(range(30))]
    assert random.getstate() == before
    assert later[-1 - 17] == alone
    random.seed(99)
    assert generate(3, 17, "train") == alone
    assert generate(4, 17, "train") != alone
    assert generate(3, 17, "validation").content != alone.content
    assert len({scene.content for scene in later}) > 20


def test_no_validation_picture_shows_what_a_training_picture_shows(scenes):
    training = {scene.content for scene in scenes["train"]}
    assert training.isdisjoint(scene.content for scene in scenes["validation"])
    # Also where another seed was taken for validation, and without the help of held-out parts.
    other = [generate(1, i, "validation") for i in range(2000)]
    assert training.isdisjoint(scene.content for scene in other)
    assert sum(not scene.held_out for scene in other) > 200


def test_what_cannot_be_asked_about_does_not_decide_the_split():
    kind = Kind("red", "circle")
    plain = Scene("train", 0, (SceneObject(kind, "large", 4),))
    moved = Scene("validation", 9, (SceneObject(kind, "large", 4, (0.5, -1), 3, 7),), None, 2)
    assert plain.content == moved.content
    assert owner(plain) == owner(moved)
    written = Scene("train", 0, plain.objects, PrintedWord("SUN", 0, 0.1))
    assert written.content == Scene("train", 0, plain.objects, PrintedWord("SUN", 0, 0.9)).content
    assert written.content not in (
        plain.content,
        Scene("train", 0, plain.objects, PrintedWord("SUN", 2)).content,
    )


def test_training_draws_nothing_that_is_held_out(scenes):
    drawn = Counter(kind for scene in scenes["train"] for kind in scene.kinds)
    assert set(drawn) == set(KINDS) - HELD_OUT_KINDS
    words = {scene.word.text for scene in scenes["train"] if scene.word}
    allowed = {w for script in WORDS.values() for w in script} - HELD_OUT_WORDS
    assert words <= allowed
    assert len(words) > 0.8 * len(allowed)
    assert not any(scene.held_out for scene in scenes["train"])


def test_validation_draws_everything(scenes):
    assert {kind for scene in scenes["validation"] for kind in scene.kinds} == set(KINDS)
    words = {scene.word.text for scene in scenes["validation"] if scene.word}
    assert len(words & HELD_OUT_WORDS) > len(HELD_OUT_WORDS) / 2
    assert words - HELD_OUT_WORDS
    for scene in scenes["validation"]:
        parts = {*scene.kinds, *([scene.word.text] if scene.word else [])}
        assert scene.held_out == bool(parts & (HELD_OUT_KINDS | HELD_OUT_WORDS))


def test_training_knows_every_part_of_what_is_held_out():
    seen = set(KINDS) - HELD_OUT_KINDS
    for kind in HELD_OUT_KINDS:
        # Not a colour or shape seen once by chance, but in nearly all its other combinations.
        assert sum(other.colour == kind.colour for other in seen) >= len(SHAPES) - 2
        assert sum(other.shape == kind.shape for other in seen) >= len(COLOURS) - 2


def test_everything_has_a_place_of_its_own(scenes):
    for scene in scenes["train"] + scenes["validation"]:
        cells = [thing.cell for thing in scene.objects]
        assert cells == sorted(set(cells))
        assert 1 <= len(cells) <= 4
        assert set(cells) <= set(range(NUM_CELLS))
        assert scene.word is None or scene.word.row not in {cell // 3 for cell in cells}


def test_numbers_and_words_are_spread_evenly(scenes):
    # Independent draws: four standard deviations of a binomial leave one chance in 15,000.
    some, total = scenes["train"], len(scenes["train"])
    numbers = Counter(len(scene.objects) for scene in some)
    for number in range(1, 5):
        assert abs(numbers[number] - total / 4) < 4 * sqrt(total * 0.25 * 0.75)
    printed = [scene.word.text for scene in some if scene.word]
    assert abs(len(printed) - total / 2) < 4 * sqrt(total * 0.25)
    latin = sum(word.isascii() for word in printed)
    assert abs(latin - len(printed) / 2) < 4 * sqrt(len(printed) * 0.25)
