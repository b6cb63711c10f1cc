from dataclasses import replace

from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.translation.protocol import RussianProtocol
from lightning_llava.evaluation.translation.translator import OracleTranslator

WHO = Question("gqa", "testdev", "1", "Who?", None, "man", "en", "gqa", ("man",))


def test_only_english_questions_with_english_answers_are_asked_in_russian(cached, recorder):
    questions = [
        replace(WHO, kind="regions"),
        WHO,
        replace(WHO, language="ru", text="Кто это?"),
        replace(WHO, text="Why?"),
    ]
    silent = cached(recorder({"Who?": "Кто?", "Why?": "Почему?"}), "en", "ru")
    asked = RussianProtocol(silent, cached(recorder({}), "ru", "en")).before(questions)
    assert asked == [
        questions[0],
        replace(WHO, text="Кто?", language="ru", source="Who?"),
        questions[2],
        replace(WHO, text="Почему?", language="ru", source="Why?"),
    ]


def test_rows_keep_their_order_and_what_is_measured_is_kept(cached, row):
    oracle = OracleTranslator()
    kite, dog = oracle.translate(["kite", "dog"], "en", "ru")
    rows = [
        row(language="en", raw_answer="x"),
        row(raw_answer=kite, label="kite"),
        row(question_id="2", raw_answer=dog, label="cat"),
        row(question_id="3", raw_answer=dog, label=None),
    ]
    protocol = RussianProtocol(cached(oracle, "en", "ru"), cached(oracle, "ru", "en"))
    back = protocol.after(rows)
    assert [each.english for each in back] == [None, "kite", "dog", "dog"]
    assert [each.raw_answer for each in back] == [each.raw_answer for each in rows]
    (numbers,) = protocol.splits.values()
    assert (numbers["total"], numbers["score"], numbers["ceiling"]) == (2, 0.5, 1)
    assert protocol.questions["accuracy"] == 1


def test_rows_without_labels_are_brought_back_and_not_scored(cached, row):
    oracle = OracleTranslator()
    protocol = RussianProtocol(cached(oracle, "en", "ru"), cached(oracle, "ru", "en"))
    (back,) = protocol.after([row(label=None)])
    assert (back.english, back.correct) == ("white", None)
    assert protocol.splits == protocol.questions == {}
