from collections import Counter
from dataclasses import replace

import pytest

from lightning_llava.evaluation.translation.answers import (
    AnswerChain,
    Asked,
    Brought,
    bring_back,
)
from lightning_llava.evaluation.translation.lexicon import Lexicon

WHAT = "Что в небе?"


@pytest.fixture
def chain(cached, recorder):
    """Translates as told, and knows one answer by a lexicon."""

    def build(said):
        lexicon = Lexicon({"миска": Counter(bowl=3)}, lemmas=False)
        return AnswerChain(cached(recorder(said), "ru", "en"), lexicon)

    return build


@pytest.mark.parametrize(
    ("answer", "english", "route"),
    [
        ("Белый", "White", "map"),
        ("две.", "2.", "map"),
        ("Миска", "Bowl", "lexicon"),
        ("змей", "a kite", "mt"),
        ("Kite", "Kite", "kept"),
        ("вода", "", "none"),
        ("", "", "none"),
        ("- …", "", "none"),
    ],
)
def test_the_first_route_that_knows_the_answer_takes_it(chain, answer, english, route):
    (brought,) = chain({"змей": "A kite."}).bring([Asked(WHAT, answer, "gqa")])
    assert (brought.english, brought.route) == (english, route)


@pytest.mark.parametrize(
    ("answer", "english", "route"),
    [
        ("Да, на столе.", "Yes.", "map"),
        ("На изображении нет собаки", "No", "map"),
        ("вода", "", "none"),  # «да» is in it
        ("планета", "", "none"),  # and «нет» in this one
        ("отсутствует", "no, it is not there", "mt"),
        ("имеется", "", "none"),  # to POPE's official rule "it is there" is yes, and so is all else
        ("No", "No", "map"),
    ],
)
def test_pope_takes_yes_and_no_only(chain, answer, english, route):
    said = {"отсутствует": "No, it is not there", "имеется": "it is there", "вода": "water"}
    (brought,) = chain(said | {"планета": "planet"}).bring([Asked(WHAT, answer, "pope")])
    assert (brought.english, brought.route) == (english, route)


def test_an_answer_is_translated_alone_where_its_question_does_not_help(chain, cached, recorder):
    translator = recorder(lambda text, context: "" if context else "a kite")
    (brought,) = AnswerChain(cached(translator, "ru", "en")).bring([Asked(WHAT, "змей", "gqa")])
    assert translator.asked == [("змей", WHAT), ("змей", None)]
    assert brought == Brought("a kite", "mt", ("behind its question: empty",))


def test_what_fails_all_checks_is_counted_and_never_used(chain):
    (brought,) = chain({"змей": "No, no, no, no"}).bring([Asked(WHAT, "змей", "gqa")])
    problems = ("behind its question: repetition", "alone: repetition")
    assert brought == Brought("", "none", problems)


def test_without_a_question_there_is_one_try(cached, recorder):
    translator = recorder({})
    (brought,) = AnswerChain(cached(translator, "ru", "en")).bring([Asked("", "змей", "gqa")])
    assert translator.asked == [("змей", None)]
    assert brought == Brought("", "none", ("alone: empty",))


def test_no_answer_to_the_same_question_is_translated_twice(cached, recorder):
    translator = recorder({"змей": "kite"})
    chain = AnswerChain(cached(translator, "ru", "en"))
    chain.bring([Asked(WHAT, "змей", "gqa")] * 3 + [Asked("Кто это?", "змей", "gqa")])
    assert sorted(translator.asked) == [("змей", "Кто это?"), ("змей", WHAT)]


def test_rows_keep_what_the_model_said(chain, row):
    rows = [
        row(raw_answer="Змей", label="kite"),
        row(raw_answer="Змей", label="snake"),
        row(raw_answer="white", language="en"),
        row(raw_answer="Белый", kind="gqa_ru", label="белый"),
    ]
    back = bring_back(rows, chain({"Змей": "Kite"}))
    assert back == [
        replace(rows[0], english="Kite", route="mt", parsed="kite", correct=True),
        replace(rows[1], english="Kite", route="mt", parsed="kite", correct=False),
        *rows[2:],
    ]


def test_a_row_without_a_label_is_not_judged(chain, row):
    (back,) = bring_back([row(label=None)], chain({}))
    assert (back.english, back.parsed, back.correct) == ("white", None, None)
