import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.vqa import Vqa, vqa_compute, vqa_tenths, vqa_update
from lightning_llava.evaluation.scorers.vqa_text import (
    CONTRACTIONS,
    process,
    process_m4c,
    process_vlmevalkit,
)


@pytest.mark.parametrize(
    ("text", "official", "m4c", "vlmevalkit"),
    [
        ("red,white", "red white", "redwhite", "red white"),
        ("1,000-2", "10002", "1000 2", "10002"),
        ("3.", "3", "3", "3."),
        ("man's hat", "man's hat", "man 's hat", "man's hat"),
        ("black / white", *["black white"] * 3),
        ("n/a", *["n"] * 3),
        ("no one", *["no 1"] * 3),
        ("u.s.", *["us"] * 3),
        (".5", *[".5"] * 3),
        ("t-shirt", *["t shirt"] * 3),
        ("a", *[""] * 3),
        ("«да»", *["«да»"] * 3),
        ("none", *["0"] * 3),
        ("a.b", *["ab"] * 3),
        ("2.5", *["2.5"] * 3),
        ("Coca-Cola", *["coca cola"] * 3),
        ("it's", "it's", "it 's", "it's"),
        ("dont", *["don't"] * 3),
        ("Ten of the zero", *["10 of 0"] * 3),
        ("a: b $5 50% #1 *x* &c", *["a: b $5 50% #1 *x* &c"] * 3),
        # The slash touches a space once, so it goes everywhere.
        ("a/b /c", *["ab c"] * 3),
        # The question mark is looked for beside the spaces of the text as it came.
        ("x?/ y", "x y", "x y", "x y"),
    ],
)
def test_processed_texts(text, official, m4c, vlmevalkit):
    assert (process(text), process_m4c(text), process_vlmevalkit(text)) == (
        official,
        m4c,
        vlmevalkit,
    )


def test_at_most_32_periods_are_removed():
    assert process("x" + "." * 40) == "x" + "." * 8


def test_contractions():
    assert len(CONTRACTIONS) == 114  # 120 published ones less six that change nothing
    assert CONTRACTIONS["couldnt've"] == CONTRACTIONS["couldn'tve"] == "couldn't've"
    assert CONTRACTIONS["'ows'at"] == CONTRACTIONS["ow's'at"] == "'ow's'at"
    assert CONTRACTIONS["twas"] == "'twas"
    assert CONTRACTIONS["somebody'd"] == "somebodyd"
    assert {"well", "shell", "ill", "wed", "id"}.isdisjoint(CONTRACTIONS)
    assert {key.replace("'", "") for key in CONTRACTIONS} == {
        value.replace("'", "") for value in CONTRACTIONS.values()
    }


TEN_YES = ["yes"] * 10
RED = ["red white"] * 5 + ["red and white"] * 5


@pytest.mark.parametrize(
    ("prediction", "answers", "official", "m4c"),
    [
        ("Yes", TEN_YES, 0, 10),
        ("2", ["two"] * 10, 0, 10),
        ("a", ["a"] * 10, 10, 10),
        ("red,white", RED, 10, 0),
        (" yes\n", TEN_YES, 10, 10),
        ("Yes.", ["yes"] * 9 + ["no"], 10, 10),
    ],
)
def test_official_against_m4c_on_both_sides(prediction, answers, official, m4c):
    assert vqa_tenths(prediction, answers, "official") == official
    assert vqa_tenths(prediction, answers, "llava", "textvqa") == m4c
    assert vqa_tenths(prediction, answers, "lmms-eval", "textvqa") == m4c


def test_vqav2_in_the_dialects_of_llava_and_lmms_eval():
    # LLaVA processes the answer and leaves the ground truth to the official script.
    assert vqa_tenths("Yes.", TEN_YES, "llava") == 10
    assert vqa_tenths("2", ["two"] * 10, "llava") == 0
    assert vqa_tenths("man's hat", ["man's hat"] * 10, "llava") == 0
    # lmms-eval processes both, whether the humans agree or not.
    assert vqa_tenths("2", ["two"] * 10, "lmms-eval") == 10
    assert vqa_tenths("man's hat", ["man's hat"] * 10, "lmms-eval") == 10


def test_textvqa_in_the_dialect_of_vlmevalkit_keeps_the_period_after_a_digit():
    assert vqa_tenths("3.", ["3"] * 10, "vlmevalkit", "textvqa") == 0
    assert vqa_tenths("3.", ["3"] * 10, "llava", "textvqa") == 10


@pytest.mark.parametrize(
    ("matches", "tenths"), [(0, 0), (1, 3), (2, 6), (3, 9), (4, 10), (5, 10), (10, 10)]
)
def test_score_by_number_of_matches(matches, tenths):
    answers = ["cat"] * matches + ["dog"] * (10 - matches)
    assert vqa_tenths("cat", answers, "official") == tenths


@given(st.lists(st.sampled_from(["cat", "two", "2", "The cat", "a"]), min_size=10, max_size=10))
def test_score_is_the_mean_over_the_ten_ways_to_leave_one_out(answers):
    processed = [process(answer) for answer in answers] if len(set(answers)) > 1 else answers
    for prediction in set(answers):
        ours = process(prediction) if len(set(answers)) > 1 else prediction
        rest = [processed[:place] + processed[place + 1 :] for place in range(10)]
        expected = sum(min(1, others.count(ours) / 3) for others in rest) / 10
        assert vqa_tenths(prediction, answers, "official") / 10 == pytest.approx(expected)


@given(st.text(alphabet="aAb ,.;/-'?13\n\tёнет", max_size=20))
def test_processing_leaves_words_between_single_spaces(text):
    for processor in (process, process_m4c, process_vlmevalkit):
        result = processor(text)
        assert result == " ".join(result.lower().split())
        assert not re.search(r"[;/\-,?]", result)


def test_refuses_other_than_ten_answers_and_undefined_dialects():
    with pytest.raises(SettingError, match="9 human answers, expected 10"):
        vqa_tenths("yes", ["yes"] * 9, "official")
    with pytest.raises(SettingError, match="VLMEvalKit defines no scoring of vqav2; expected one"):
        vqa_update([], [], "vlmevalkit")
    with pytest.raises(SettingError, match="own script defines no scoring of textvqa"):
        Vqa("official", "textvqa")
    with pytest.raises(SettingError, match="1 predictions, 2 answers; expected as many of each"):
        vqa_update(["yes"], [TEN_YES, TEN_YES], "official")


def test_metric_by_answer_type_equals_the_functions():
    predictions = ["yes", "cat", "2", "no"]
    answers = [TEN_YES, ["cat"] * 2 + ["dog"] * 8, ["2"] * 10, TEN_YES]
    metric = Vqa("official")
    metric.update(predictions[:1], answers[:1], ["yes/no"])
    metric.update(predictions[1:], answers[1:], ["other", "number", "yes/no"])
    assert metric.compute() == {
        **vqa_compute(vqa_update(predictions, answers, "official")),
        "accuracy/yes/no": 0.5,
        "accuracy/number": 1.0,
        "accuracy/other": 0.6,
    }
    with pytest.raises(SettingError, match="answer types \\['colour'\\]"):
        metric.update(["red"], [RED], ["colour"])


def test_real_annotations(shared_data):
    (file,) = shared_data("vqav2/annotations_1500.json")
    rows = json.loads(file.read_bytes())["annotations"]
    answers = [[human["answer"] for human in row["answers"]] for row in rows]
    best = [row["multiple_choice_answer"] for row in rows]

    def accuracy(predictions, dialect):
        return vqa_compute(vqa_update(predictions, answers, dialect))["accuracy"]

    # Case and period cost the official score dearly where the humans agree, and LLaVA nothing.
    shouted = [answer.capitalize() for answer in best]
    dotted = [f"{answer}." for answer in best]
    assert accuracy(best, "official") > 0.95
    assert accuracy(shouted, "official") < 0.8 * accuracy(best, "official")
    assert accuracy(dotted, "official") < 0.8 * accuracy(best, "official")
    for dialect in ("llava", "lmms-eval"):
        assert accuracy(best, dialect) == accuracy(shouted, dialect) == accuracy(dotted, dialect)
    unanimous = [len(set(humans)) == 1 for humans in answers]
    gained = sum(unanimous) / len(rows)
    assert accuracy(best, "official") - accuracy(shouted, "official") <= gained
