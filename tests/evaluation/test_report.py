import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.report import rich_table, score_rows, write_report

# Per split: (label, answer). random: tp 2, fn 1, tn 1; popular: tp 1, fp 1, tn 0, fn 0.
SPLITS = {
    "random": [("yes", "Yes"), ("yes", "Yes"), ("yes", "No"), ("no", "No")],
    "popular": [("yes", "Yes"), ("no", "perhaps")],
}


@pytest.fixture
def questions():
    return [
        Question("pope", split, str(number), "dog?", Path("a.jpg"), label, "en")
        for split, pairs in SPLITS.items()
        for number, (label, _) in enumerate(pairs, start=1)
    ]


@pytest.fixture
def rows(questions):
    answers = [answer for pairs in SPLITS.values() for _, answer in pairs]
    pairs = zip(questions, answers, strict=True)
    return [row for question, answer in pairs for row in make_rows([question], "?", answer)]


def test_scores_by_hand(rows, questions):
    scores = score_rows(rows, questions)
    assert scores == {
        "pope": {
            "random": {
                "tp": 2,
                "fp": 0,
                "tn": 1,
                "fn": 1,
                "total": 4,
                "accuracy": 0.75,
                "precision": 1.0,
                "recall": pytest.approx(2 / 3),
                "f1": pytest.approx(0.8),
                "yes_ratio": 0.5,
                "unknown_rate": 0.0,
                "language_fidelity": 1.0,
                "chance_accuracy": 0.75,
                "chance_f1": pytest.approx(6 / 7),
            },
            "popular": {
                "tp": 1,
                "fp": 1,
                "tn": 0,
                "fn": 0,
                "total": 2,
                "accuracy": 0.5,
                "precision": 0.5,
                "recall": 1.0,
                "f1": pytest.approx(2 / 3),
                "yes_ratio": 1.0,
                "unknown_rate": 0.5,
                "language_fidelity": 1.0,
                "chance_accuracy": 0.5,
                "chance_f1": pytest.approx(2 / 3),
            },
            "mean": {
                "accuracy": 0.625,
                "f1": pytest.approx(11 / 15),
                "chance_accuracy": 0.625,
                "chance_f1": pytest.approx(16 / 21),
            },
        }
    }


def test_scoring_starts_from_the_raw_answer(rows):
    tampered = [replace(row, parsed="yes", correct=True) for row in rows]
    assert score_rows(tampered) == score_rows(rows)


def test_chance_levels_are_those_of_constant_answers(rows):
    always_yes = score_rows([replace(row, raw_answer="Yes") for row in rows])["pope"]["random"]
    assert always_yes["accuracy"] == always_yes["chance_accuracy"]
    assert always_yes["f1"] == always_yes["chance_f1"]


def refused(rows, match, expected=None):
    with pytest.raises(SettingError, match=match):
        score_rows(rows, expected)


def test_refuses_rows_that_are_not_the_benchmark(rows, questions):
    refused([], "no answers to score")
    refused([*rows, rows[4]], "1 questions answered more than once, first '1' of 'pope', split 'po")
    refused(rows[:2], "4 questions without an answer, first '3' of 'pope'", questions)
    refused(rows, "1 questions not of this benchmark, first '2' of 'pope'", questions[:-1])
    refused([replace(rows[0], label=None)], "question '1' of 'pope', split 'random', has no label")
    refused([rows[0], replace(rows[1], language="ru")], r"languages \['en', 'ru'\], expected one")


def test_report_files(rows, questions, tmp_path):
    meta = {"checkpoint": Path("runs/последний.ckpt"), "step": 7}
    path = write_report(tmp_path / "run", rows, score_rows(rows, questions), meta)
    assert path == tmp_path / "run" / "report.json"
    text = path.read_text(encoding="utf-8")
    assert "последний" in text
    report = json.loads(text)
    assert report["meta"] == {"checkpoint": "runs/последний.ckpt", "step": 7}
    assert report["counts"] == {"pope": {"random": 4, "popular": 2}}
    assert report["scores"] == score_rows(rows)
    markdown = (tmp_path / "run" / "report.md").read_text(encoding="utf-8").splitlines()
    assert markdown[2:7] == [
        "| benchmark | split | asked | accuracy | chance | F1 | always yes | precision "
        "| recall | yes ratio | unknown | language |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| pope | random | 4 | 75.00 | 75.00 | 80.00 | 85.71 | 100.00 | 66.67 | 50.00 | 0.00 "
        "| 100.00 |",
        "| pope | popular | 2 | 50.00 | 50.00 | 66.67 | 66.67 | 50.00 | 100.00 | 100.00 | 50.00 "
        "| 100.00 |",
        "| pope | mean |  | 62.50 | 62.50 | 73.33 | 76.19 |  |  |  |  |  |",
    ]
    assert markdown[-1] == "* step: 7"


def test_table_shows_score_and_chance(rows):
    scores = {
        name.replace("popular", "adversarial"): n for name, n in score_rows(rows)["pope"].items()
    }
    output = io.StringIO()
    Console(file=output, width=80).print(rich_table({"pope_random_ru": scores}))
    printed = output.getvalue()
    assert "…" not in printed, "cut off in a terminal of 80 columns"
    mean = next(line for line in printed.splitlines() if "mean" in line)
    assert mean.split() == ["mean", "62.50", "62.50", "73.33", "76.19"]
