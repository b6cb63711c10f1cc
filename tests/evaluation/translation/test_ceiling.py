import json
from dataclasses import replace

import pytest

from lightning_llava.evaluation.scorers.gqa import gqa_compute, gqa_update
from lightning_llava.evaluation.translation.answers import AnswerChain, Brought, bring_back
from lightning_llava.evaluation.translation.ceiling import ceiling, question_ceiling
from lightning_llava.evaluation.translation.report import Answered, headline, report
from lightning_llava.evaluation.translation.snap import Vocabulary
from lightning_llava.evaluation.translation.translator import OracleTranslator

LABELS = ["white", "kite", "yes", "2", "wii controller", "left", "table", "no", "pizza", "man"]


@pytest.fixture
def rows(row):
    return [
        row(question_id=str(place), label=label, answers=[label], source=f"Question {place}?")
        for place, label in enumerate(LABELS)
    ]


def directions(cached, forth, back=None):
    return cached(forth, "en", "ru"), AnswerChain(cached(back or OracleTranslator(), "ru", "en"))


def test_an_oracle_gives_the_english_score(cached, rows):
    said = ["White", "a kite", "Yes.", "3", "wii controller", "left", "Tables", "no.", "", "man"]
    english = gqa_compute(gqa_update(said, LABELS, "llava"))["accuracy"]
    oracle = OracleTranslator()
    russian = [
        replace(row, raw_answer=answer)
        for row, answer in zip(rows, oracle.translate(said, "en", "ru"), strict=True)
    ]
    assert russian[0].raw_answer != "White"
    _, chain = directions(cached, oracle)
    back = bring_back(russian, chain)
    assert [row.english for row in back] == said
    assert headline(back) == english == 0.6


def test_an_oracle_gives_llavas_own_score_on_gqa(cached, row, shared_data):
    (path,) = shared_data("llava-1.5-13b/gqa_train_48.jsonl")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    oracle = OracleTranslator()
    russian = oracle.translate([record["prediction"] for record in records], "en", "ru")
    rows = [
        row(question_id=record["question_id"], label=record["answer"], raw_answer=answer)
        for record, answer in zip(records, russian, strict=True)
    ]
    _, chain = directions(cached, oracle)
    assert sum(each.correct is True for each in bring_back(rows, chain)) == 951


def test_an_oracles_ceiling_is_the_score_of_the_right_answers(cached, rows):
    top = ceiling(rows, *directions(cached, OracleTranslator()))
    assert [row.english for row in top.rows] == LABELS
    assert headline(top.rows) == headline(top.gold) == 1


class Wrong(OracleTranslator):
    """An oracle that translates some texts wrongly, some into nothing, some in circles."""

    def __init__(self, errors):
        self.errors = errors

    def translate(self, texts, source, target, context=()):
        return super().translate([self.errors.get(text, text) for text in texts], source, target)


def test_each_injected_error_lowers_the_ceiling_by_what_it_is_worth(cached, rows):
    errors = {"kite": "snake", "table": "", "pizza": "no, no, no, no", "left": "on the left"}
    top = ceiling(rows, *directions(cached, Wrong(errors)))
    assert headline(top.rows) == pytest.approx(1 - len(errors) / len(LABELS))
    lost = [row.label for row in top.rows if row.route == "none"]
    assert lost == ["table", "pizza"]
    kite, man = OracleTranslator().translate(["kite", "man"], "en", "ru")
    back = Wrong({kite: "cat", man: "dog"})
    top = ceiling(rows, *directions(cached, OracleTranslator(), back))
    assert headline(top.rows) == pytest.approx(1 - 2 / len(LABELS))


def test_what_the_model_answered_makes_no_difference(cached, rows):
    there_and_back = directions(cached, Wrong({"kite": "snake"}))
    other = [replace(row, raw_answer="кот", english="cat", route="mt") for row in rows]
    first, second = ceiling(rows, *there_and_back), ceiling(other, *there_and_back)
    assert [row.english for row in first.rows] == [row.english for row in second.rows]


def test_questions_there_and_back(cached):
    oracle = OracleTranslator()
    forth, back = cached(Wrong({"big dog?": "small dog?"}), "en", "ru"), cached(oracle, "ru", "en")
    numbers = question_ceiling(["big dog?", "Cat?", "big dog?", "who"], forth, back)
    assert (numbers["total"], numbers["accuracy"], numbers["wer"]) == (3, 2 / 3, 1 / 4)


def test_pope_is_measured_by_f1_and_needs_no_model(cached, row, recorder):
    labels = ["yes", "yes", "no", "no"]
    answers = ["Да", "не знаю", "да.", "Нет"]
    rows = [
        row(question_id=str(i), kind="pope", label=label, raw_answer=answer)
        for i, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]
    silent = recorder({})
    _, chain = to_russian, chain = directions(cached, silent, silent)
    back = bring_back(rows, chain)
    assert [each.parsed for each in back] == ["yes", "unknown", "yes", "no"]
    assert headline(back) == 0.5  # tp 1, fp 1, fn 1
    assert headline(ceiling(rows, to_russian, chain).rows) == 1
    assert {text for text, _ in silent.asked} == {"не знаю"}


def test_the_report_counts_by_route_language_and_problem(cached, rows):
    said = ["White", "Змей", "Да", "2", "", "налево", "стол", "No", "пицца", "кот"]
    brought = [
        Brought("White", "kept"),
        Brought("snake", "mt", ("behind its question: empty",)),
        *[Brought(english, "map") for english in ("Yes", "2")],
        Brought("", "none", ("empty answer",)),
        Brought("left", "map"),
        *[Brought(english, "lexicon") for english in ("table", "No")],
        *[Brought(english, "mt") for english in ("pizzas", "cat")],
    ]
    answered = Answered(
        [
            replace(row, raw_answer=answer, english=back.english, route=back.route)
            for row, answer, back in zip(rows, said, brought, strict=True)
        ],
        brought,
    )
    (numbers,) = report(answered, vocabulary=Vocabulary(LABELS)).values()
    assert (numbers["metric"], numbers["total"], numbers["score"]) == ("accuracy", 10, 0.6)
    assert numbers["routes"] == {
        "map": {"rows": 3, "share": 0.3, "score": 1.0},
        "lexicon": {"rows": 2, "share": 0.2, "score": 1.0},
        "mt": {"rows": 3, "share": 0.3, "score": 0.0},
        "kept": {"rows": 1, "share": 0.1, "score": 1.0},
        "none": {"rows": 1, "share": 0.1, "score": 0.0},
    }
    # White and No are in English; 2 and nothing are in no language.
    assert numbers["language"] == {"fidelity": 6 / 8, "asked": 6, "other": 2, "neutral": 2}
    assert numbers["problems"] == {"behind its question: empty": 1, "empty answer": 1}
    assert numbers["snapped"] == 0.7  # pizzas is pizza
