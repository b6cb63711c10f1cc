import re
from collections import Counter, defaultdict
from io import BytesIO
from random import Random

import numpy as np
import pytest
import understanding
from PIL import Image
from understanding import exchanges

from lightning_llava.demo import english, records, russian
from lightning_llava.demo.drawing import RGB, encode
from lightning_llava.demo.questions import Balance, Question
from lightning_llava.demo.scenes import HELD_OUT_KINDS
from lightning_llava.demo.words import HELD_OUT_WORDS

LANGUAGES = ("en", "ru")
DESCRIBE = {"en": "Describe the image briefly.", "ru": "Кратко опиши изображение."}
IN_WORDS = {"en": "The image in words: ", "ru": "Изображение словами: "}
FACTS = {
    "sum": re.compile(r"(?:What is|Сколько будет) (\d) (?:plus|плюс) (\d)\?"),
    "opposite": re.compile(r"(?:What is the opposite of|Какое слово \w+ слову) [\"«](\w+)[\"»]\?"),
    "letter": re.compile(r"\w+ (?:is the )?(\w+) (?:letter|буква) .*[\"«](\w+)[\"»]\?"),
}
OPPOSITES = """
large small, top bottom, left right, yes no, day night, open closed, hot cold, old new,
большой маленький, верх низ, левый правый, да нет, день ночь, открытый закрытый,
горячий холодный, старый новый
"""


def shown_by(sample, scenes):
    _, _, split, index = sample.id.split("-")
    return scenes[split][int(index)]


@pytest.fixture(scope="module")
def with_scenes(spoken, scenes):
    return [(sample, shown_by(sample, scenes)) for made in spoken.values() for sample in made]


@pytest.mark.parametrize("kind", records.BUILDERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_exists_in_either_language(spoken, scenes, kind, language):
    for split in ("train", "validation"):
        made = spoken[split, kind, language]
        # A scene without a word gives an OCR record every other time only.
        assert len(made) > (0.6 * len(scenes[split]))
        assert len({sample.id for sample in made}) == len(made)
        for sample in made:
            assert sample.problem() is None
            assert (sample.source, sample.language) == (f"demo_{kind}", language)
            assert len(sample.images) == (kind != "text")
            assert bool(sample.boxes) == (kind == "regions")
            assert all(text and answer for text, answer in exchanges(sample))
            if kind == "dialogue":
                assert len(list(exchanges(sample))) >= 2


def test_languages_do_not_mix(spoken):
    shouting = re.compile("[A-ZА-ЯЁ]{2,}|<image>")
    for (_, _, language), made in spoken.items():
        foreign = re.compile("[а-яё]" if language == "en" else "[a-z]", re.IGNORECASE)
        for sample in made:
            for question, answer in exchanges(sample):
                # A lone capital answers a question about a letter.
                assert not foreign.search(shouting.sub("", question))
                assert len(answer) == 1 or not foreign.search(shouting.sub("", answer))


def test_answers_are_right(with_scenes):
    topics = defaultdict(set)
    for sample, scene in with_scenes:
        previous = None
        for question, answer in exchanges(sample):
            question = question.rpartition("\n")[2]
            asked = understanding.understand(question, sample.language)
            if asked is None:
                continue
            topics[sample.language].add(asked.topic)
            if asked.topic == "where_it":
                # "It" is what the question before was about.
                assert previous.topic == "colour_of"
                asked = asked._replace(shape=previous.shape)
            expected = understanding.truth(scene, asked)
            assert understanding.said(asked.topic, answer, sample.language) == expected, sample
            if isinstance(expected, bool) and len(answer.split()) > 1:
                # A sentence must be about the same thing as its question.
                for read in (understanding.colours, understanding.shapes):
                    assert read(answer, sample.language) == read(question, sample.language)
            previous = asked
    for language in LANGUAGES:
        assert topics[language] == set(understanding.QUESTIONS[language])


def test_every_question_is_of_a_known_sort(with_scenes):
    sorts = Counter()
    for sample, _ in with_scenes:
        for question, _ in exchanges(sample):
            last = question.rpartition("\n")[2]
            facts = [name for name, pattern in FACTS.items() if pattern.fullmatch(last)]
            region = re.match(r"Describe the region|Give the box|Опиши область|Укажи рамку", last)
            known = understanding.understand(last, sample.language)
            described = last == DESCRIBE[sample.language]
            assert bool(facts) + bool(region) + bool(known) + described == 1, last
            sorts[known.topic if known else facts[0] if facts else "other"] += 1
    assert min(sorts.values()) > 200


def test_captions_say_what_is_there(with_scenes):
    read = Counter()
    for sample, scene in with_scenes:
        expected = (
            [(thing.size, *thing.kind, thing.cell) for thing in scene.objects],
            scene.word and (scene.word.text, scene.word.row),
        )
        for question, answer in exchanges(sample):
            first = question.partition("\n")[0]
            intro = IN_WORDS[sample.language]
            if question == DESCRIBE[sample.language]:
                text = answer
            elif first.startswith(intro):
                text = first.removeprefix(intro)
            else:
                continue
            assert understanding.caption(text, sample.language) == expected
            read[sample.source, sample.language] += 1
    assert set(read) == {
        (f"demo_{kind}", language)
        for kind in ("captions", "dialogue", "text")
        for language in LANGUAGES
    }


def test_boxes_and_phrases_name_the_same_part(with_scenes):
    directions = Counter()
    for sample, scene in with_scenes:
        for (question, answer), box in zip(exchanges(sample), sample.boxes, strict=False):
            forwards = "[" in question
            numbers = re.findall(r"\d\.\d\d", question if forwards else answer)
            phrase = answer if forwards else question.partition(": ")[2].removesuffix(".")
            assert phrase.lower() == box.phrase.lower()
            edges = [float(number) for number in numbers]
            np.testing.assert_allclose(edges, box.xyxy, rtol=0, atol=0.005 + 1e-9)
            middle_x, middle_y = (edges[0] + edges[2]) / 2, (edges[1] + edges[3]) / 2
            if scene.word is not None and int(3 * middle_y) == scene.word.row:
                assert understanding.said("read", phrase, sample.language) == scene.word.text
            else:
                (thing,) = [
                    o for o in scene.objects if o.cell == 3 * int(3 * middle_y) + int(3 * middle_x)
                ]
                size, *kind = phrase.lower().split(" ", 1)
                assert understanding.mentioned_kinds(kind[0], sample.language) == {thing.kind}
                assert (size[:5] in ("large", "больш")) == (thing.size == "large")
                same = [o for o in scene.objects if (o.size, o.kind) == (thing.size, thing.kind)]
                # What occurs twice has no one box.
                assert forwards or len(same) == 1
            directions[sample.language, forwards] += 1
        assert len({box.xyxy for box in sample.boxes}) == len(sample.boxes)
    assert min(directions.values()) > 500
    assert len(directions) == 4


def test_pictures_show_what_is_said_of_them(scenes):
    palette = np.array(list(RGB.values()))
    some = scenes["train"][:60]
    pictures = [encode(scene) for scene in some]
    seen = set()
    for sample in records.samples("regions", english, some, pictures, seed=0):
        pixels = np.asarray(Image.open(BytesIO(sample.images[0])), dtype=int)
        for box in sample.boxes:
            left, top, right, bottom = (round(128 * edge) for edge in box.xyxy)
            if colours := understanding.colours(box.phrase, "en"):
                middle = pixels[(top + bottom) // 2, (left + right) // 2]
                nearest = np.abs(palette - middle).max(axis=1).argmin()
                assert [list(RGB)[nearest]] == colours
                seen.update(colours)
            else:
                # Black on light paper, however many letters.
                assert pixels[top:bottom, left:right].min() < 60
    assert len(seen) >= 5


def test_facts_are_right(with_scenes):
    opposites = {frozenset(pair.split()) for pair in OPPOSITES.split(",")}
    checked = Counter()
    for sample, _ in with_scenes:
        for question, answer in exchanges(sample):
            for name, pattern in FACTS.items():
                if match := pattern.fullmatch(question):
                    first, second = match[1], match[match.lastindex]
                    if name == "sum":
                        assert int(answer) == int(first) + int(second)
                    elif name == "opposite":
                        assert frozenset((first, answer.lower())) in opposites
                    else:
                        assert first in ("first", "last", "первая", "последняя")
                        assert answer == second[0 if first in ("first", "первая") else -1]
                    checked[name, sample.language] += 1
    assert min(checked.values()) > 200
    assert len(checked) == 6


def mentions(samples, language):
    """Collect the combinations and the words, in any case, of everything in some records."""
    texts = {turn.text for sample in samples for turn in sample.turns}
    texts |= {box.phrase for sample in samples for box in sample.boxes}
    words = set(re.findall(r"\w+", " ".join(texts).casefold()))
    return set().union(*(understanding.mentioned_kinds(text, language) for text in texts)), words


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_never_mentions_what_is_held_out(spoken, language):
    secret = {word.casefold() for word in HELD_OUT_WORDS}
    made = {split: [] for split in ("train", "validation")}
    for (split, _, code), samples in spoken.items():
        made[split] += samples if code == language else []
    kinds, words = mentions(made["train"], language)
    assert kinds.isdisjoint(HELD_OUT_KINDS)
    assert words.isdisjoint(secret)
    assert len(kinds) == 36
    # The same search finds them where they may be.
    kinds, words = mentions(made["validation"], language)
    assert kinds >= HELD_OUT_KINDS
    assert len(words & secret) > len(secret) / 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Is there a red star in the image?", "en"),
        ("Is the star red?", "en"),
        ("No, the star is not red.", "en"),
        ("A small red star on the left", "en"),
        ("Нет, на изображении нет красной звезды.", "ru"),
        ("Звезда красная?", "ru"),
        ("Нет, звезда не красная.", "ru"),
    ],
)
def test_the_search_for_mentions_finds_all_forms(text, language):
    assert understanding.mentioned_kinds(text, language) == {("red", "star")}


def test_records_do_not_depend_on_what_else_was_made(scenes, spoken):
    some = scenes["train"]
    again = records.samples("vqa", russian, some[:50], [b""] * 50, seed=0)
    assert list(again) == spoken["train", "vqa", "ru"][:50]
    other = records.samples("vqa", russian, some[:50], [b""] * 50, seed=1)
    assert list(other) != spoken["train", "vqa", "ru"][:50]


def test_questions_of_one_picture_differ(spoken):
    for language in LANGUAGES:
        for sample in spoken["train", "vqa", language]:
            texts = [question for question, _ in exchanges(sample)]
            assert len(set(texts)) == len(texts)
            assert len(texts) >= 3


def test_no_question_of_a_dialogue_asks_again_where_something_is(spoken):
    places = Counter()
    for language in LANGUAGES:
        for sample in spoken["train", "dialogue", language]:
            told = [
                understanding.said("where", answer, language)
                for question, answer in exchanges(sample)
                if (asked := understanding.understand(question, language))
                and asked.topic in ("where", "where_it")
            ]
            assert len(set(told)) == len(told)
            places[len(told)] += 1
    assert set(places) == {0, 1, 2}


def test_a_short_question_asks_for_a_short_answer():
    question = Question("count_all", 2)
    assert records.short_question(russian, question) == (
        "Сколько фигур на изображении?\nОтветь одним словом."
    )


def test_a_lone_object_is_named_or_found(scenes):
    scene = next(s for s in scenes["train"] if len(s.objects) == 1 and s.word is None)
    talks = [records.BUILDERS["regions"](scene, english, Balance(), Random(i)) for i in range(20)]
    assert {talk.pairs[0][0].split(" ")[0] for talk in talks} == {"Describe", "Give"}
    assert all(len(talk.pairs) == len(talk.boxes) == 1 for talk in talks)
