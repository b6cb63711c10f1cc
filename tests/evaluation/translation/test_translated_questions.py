import json
from dataclasses import replace

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.scorers.language import script_share
from lightning_llava.evaluation.translation.questions import Reviewed, translate_questions

DOG = Question("pope", "random", "1", "Is there a dog in the image?", None, "yes", "en")


@pytest.fixture(scope="module")
def asked(shared_data):
    (path,) = shared_data("pope/coco_pope_random.json")
    return {json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()}


def test_every_question_of_pope_and_no_object_more_is_reviewed(asked):
    reviewed = Reviewed()
    russian = {reviewed.find(question) for question in asked}
    assert None not in russian
    # 79 objects in 80 wordings: one question says "an traffic light".
    assert len(reviewed.pope) == len(russian) == 79
    assert len(asked) == 80


def test_the_reviewed_russian_is_russian():
    nouns = Reviewed().pope.values()
    assert len(set(nouns)) == len(nouns)
    for noun in nouns:
        assert script_share(noun, "CYRILLIC") == 1
        assert noun == noun.strip(" .?")


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("bowl", "миска"),
        ("kite", "воздушный змей"),
        ("mouse", "компьютерная мышь"),
        ("scissors", "ножницы"),
        ("orange", "апельсин"),
        ("tie", "галстук"),
    ],
)
def test_objects_that_machine_translation_gets_wrong(english, russian):
    article = "an" if english == "orange" else "a"
    for image in ("image", "imange"):  # as in POPE's older version
        question = f"Is there {article} {english} in the {image}?"
        assert Reviewed().find(question) == f"Есть ли на изображении {russian}?"


def test_every_noun_is_in_the_nominative(pymorphy3):
    analyser = pymorphy3.MorphAnalyzer()
    for noun in Reviewed().pope.values():
        head = noun.split(" в ")[0].split(" для ")[0].split()
        if head[0] in ("пульт", "летающий", "знак"):  # their last word belongs to the first
            head = head[:1]
        for word in head:
            cases = {reading.tag.case for reading in analyser.parse(word) if reading.score > 0.01}
            assert "nomn" in cases or "Fixd" in str(analyser.parse(word)[0].tag), noun


def test_reviewed_questions_come_before_translation(cached, recorder):
    translator = recorder({"Why?": "Почему?"})
    why = replace(DOG, question_id="2", text="Why?", label="no")
    russian = translate_questions([DOG, why, why], cached(translator, "en", "ru"))
    assert russian == [
        replace(DOG, text="Есть ли на изображении собака?", language="ru", source=DOG.text),
        *[replace(why, text="Почему?", language="ru", source="Why?")] * 2,
    ]
    assert translator.asked == [("Why?", None)]


def test_a_users_table_comes_first(cached, recorder):
    reviewed = Reviewed({DOG.text: "Видна ли собака?"})
    (russian,) = translate_questions([DOG], cached(recorder({}), "en", "ru"), reviewed)
    assert russian.text == "Видна ли собака?"


@pytest.mark.parametrize(
    ("text", "said", "message"),
    [
        (
            "Why?",
            "Why?",
            r"1 different questions have no usable translation, first 'Why\?': .*script",
        ),
        ("Почему?", "", "is Russian already"),
    ],
)
def test_what_must_not_be_asked_is_refused(cached, recorder, text, said, message):
    question = replace(DOG, text=text)
    with pytest.raises(SettingError, match=message):
        translate_questions([question], cached(recorder({text: said}), "en", "ru"))
