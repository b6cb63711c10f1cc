import json
import math

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.pope import (
    Pope,
    PopeCounts,
    parse_answer,
    parse_official,
    parse_strict,
    parse_vlmevalkit,
    parse_whole,
    pope_compute,
    pope_headline,
    pope_update,
)


@pytest.mark.parametrize(
    "answer",
    [
        "NO",
        "Nope",
        "none",
        '"No"',
        "No! there is none",
        "There isn't",
        "Not really",
        "no\n",
        "Yes. No dog.",
        "Нет",
        "",
        "There is no,such thing",  # the comma goes, the words join
    ],
)
def test_official_rule_reads_yes(answer):
    assert parse_official(answer) == "yes"


@pytest.mark.parametrize(
    "answer",
    ["No.", "no, there is not", "Yes, but not a dog", "Well, no", " no", "No 3.5"],
)
def test_official_rule_reads_no(answer):
    assert parse_official(answer) == "no"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        ("yes.", "yes"),
        ('"YES!"', "yes"),
        ("Да", "yes"),
        ("«Да», на столе.", "yes"),
        ("Нет", "no"),
        ("НЕТ!\n", "no"),
        ("нет, на картинке нет собаки", "no"),
        ("NO", "no"),
        ("No! there is none", "no"),
        ("Yes, but not a dog", "yes"),
        ("", "unknown"),
        ("Nope", "unknown"),
        ("вода", "unknown"),
        ("планета", "unknown"),
        ("snow, yesterday", "unknown"),
        ("Yes. No dog.", "unknown"),
        ("да или нет", "unknown"),
        ("собака", "unknown"),
    ],
)
def test_strict_rule(answer, expected):
    assert parse_strict(answer) == expected


def test_language_chooses_the_rule():
    assert parse_answer("Нет", "en") == "yes"
    assert parse_answer("Нет", "ru") == "no"
    assert parse_answer("Не знаю", "ru") == "unknown"
    assert parse_answer("Nope", "en") == "yes"


def test_english_counts_by_hand():
    answers = ["Yes", "Yes", "No", "no, none", "maybe", "Yes"]
    labels = ["yes", "no", "no", "yes", "no", "yes"]
    assert pope_update(answers, labels, "official") == PopeCounts(
        tp=2, fp=2, tn=1, fn=1, total=6, unparsed=1
    )


def test_russian_unknowns_are_negative_in_f1_and_wrong_for_accuracy():
    answers = ["Да", "Нет", "Нет", "Да", "кот", "кот", "да, кот", "нет кота"]
    labels = ["yes", "no", "yes", "no", "yes", "no", "yes", "no"]
    counts = pope_update(answers, labels, "strict")
    assert counts == PopeCounts(tp=2, fp=1, tn=2, fn=2, total=8, unparsed=2)
    assert pope_compute(counts) == {
        "tp": 2,
        "fp": 1,
        "tn": 2,
        "fn": 2,
        "total": 8,
        "accuracy": 0.5,
        "precision": pytest.approx(2 / 3),
        "recall": 0.5,
        "f1": pytest.approx(4 / 7),
        "yes_ratio": 0.375,
        "unknown_rate": 0.25,
    }


def test_always_no_has_zero_f1_and_nothing_has_no_score():
    scores = pope_compute(pope_update(["No", "No"], ["yes", "no"], "official"))
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.0, 0.0, 0.0)
    assert scores["accuracy"] == 0.5
    assert math.isnan(pope_compute(pope_update([], [], "official"))["accuracy"])


def test_refuses_other_labels():
    with pytest.raises(
        SettingError, match=r"label 'нет\.' to the answer 'Нет', expected yes or no"
    ):
        pope_update(["Нет"], ["нет."], "strict")


def test_metric_over_batches_and_processes_equals_the_union():
    answers = ["Да", "Нет", "Нет", "Да", "кот", "да", "нет"]
    labels = ["yes", "no", "yes", "no", "no", "yes", "no"]
    other = Pope("strict")
    other.update(answers[:5], labels[:5])
    metric = Pope(
        "strict",
        dist_sync_fn=lambda tensor, group: [tensor, other.counts],
        distributed_available_fn=lambda: True,
    )
    metric.update(answers[5:6], labels[5:6])
    metric.update(answers[6:], labels[6:])
    assert metric.compute() == pope_compute(pope_update(answers, labels, "strict"))
    assert metric.counts.tolist() == [1, 0, 1, 0, 2, 0], "own counts come back after the exchange"
    metric.reset()
    assert metric.counts.sum() == 0


@pytest.mark.parametrize(
    ("answer", "whole", "words"),
    [
        (" YES\n", "yes", "yes"),
        ("No", "no", "no"),
        ("No.", "unknown", "no"),
        ("yes, a dog", "unknown", "yes"),
        ('"No"', "unknown", "no"),
        ("No! there is none", "unknown", "no"),
        ("Yes. No dog.", "unknown", "unknown"),
        ("There isn't", "unknown", "unknown"),
        ("да", "unknown", "unknown"),
    ],
)
def test_rules_of_lmms_eval_and_vlmevalkit(answer, whole, words):
    assert parse_whole(answer) == whole
    assert parse_vlmevalkit(answer) == words


# Yes is right twice, no once; "maybe" stands once under either label.
ANSWERS = ["yes", "yes", "no", "maybe", "maybe"]
LABELS = ["yes", "yes", "no", "yes", "no"]


@pytest.mark.parametrize(
    ("dialect", "cells", "accuracy", "recall", "yes_ratio"),
    [
        ("official", (3, 1, 1, 0), 4 / 5, 1.0, 4 / 5),
        ("llava", (3, 1, 1, 0), 4 / 5, 1.0, 4 / 5),
        ("lmms-eval", (2, 0, 1, 0), 3 / 5, 1.0, 2 / 5),
        ("vlmevalkit", (2, 0, 1, 1), 3 / 5, 2 / 3, 2 / 5),
        ("strict", (2, 0, 1, 1), 3 / 5, 2 / 3, 2 / 5),
        ("strict-unknown-yes", (3, 1, 1, 0), 4 / 5, 1.0, 4 / 5),
        ("strict-unknown-no", (2, 0, 2, 1), 4 / 5, 2 / 3, 2 / 5),
    ],
)
def test_what_becomes_of_unknown_answers(dialect, cells, accuracy, recall, yes_ratio):
    counts = pope_update(ANSWERS, LABELS, dialect)
    assert counts == PopeCounts(*cells, total=5, unparsed=2)
    scores = pope_compute(counts)
    assert scores["accuracy"] == accuracy
    assert scores["recall"] == pytest.approx(recall)
    assert scores["yes_ratio"] == yes_ratio
    assert scores["unknown_rate"] == 2 / 5


def test_russian_answers_are_unknown_to_the_official_rule_though_it_reads_them_as_yes():
    counts = pope_update(["Нет", "Да"], ["no", "yes"], "official")
    assert counts == PopeCounts(tp=1, fp=1, tn=0, fn=0, total=2, unparsed=2)


def test_headline_is_the_mean_of_the_splits_and_not_of_their_union():
    large = pope_compute(PopeCounts(tp=3, fp=0, tn=5, fn=0, total=8, unparsed=0))
    small = pope_compute(PopeCounts(tp=1, fp=1, tn=0, fn=0, total=2, unparsed=1))
    headline = pope_headline({"random": large, "popular": small})
    assert headline["f1"] == pytest.approx((1 + 2 / 3) / 2)  # of the union: 8 / 9
    assert headline["accuracy"] == (1 + 1 / 2) / 2
    assert [headline[key] for key in ("tp", "fp", "tn", "fn", "total")] == [4, 1, 5, 0, 10]


def test_golden_numbers_of_llava_1_5_13b(shared_data):
    (predictions,) = shared_data("llava-1.5-13b/pope_random.jsonl")
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    answers, labels = [row["prediction"] for row in rows], [row["label"] for row in rows]
    counts = pope_update(answers, labels, "official")
    assert counts == PopeCounts(tp=1182, fp=31, tn=1379, fn=318, total=2910, unparsed=0)
    scores = pope_compute(counts)
    assert scores["f1"] == pytest.approx(0.871360, abs=5e-7)
    assert scores["yes_ratio"] == pytest.approx(0.416838, abs=5e-7)
