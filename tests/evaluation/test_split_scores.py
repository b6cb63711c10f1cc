import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.kinds import HEADLINE
from lightning_llava.evaluation.ledger import write_ledger
from lightning_llava.evaluation.report import (
    benchmark_scalars,
    rich_table,
    score_rows,
    write_report,
)
from lightning_llava.evaluation.rescoring.run import Named, rescore
from lightning_llava.evaluation.row_scores import row_score

HUMANS = ("yes",) * 10
NUMBERS = ("2",) * 3 + ("3",) * 7


def rows(kind, triples, language="en", name=None, types=None):
    made = []
    for number, (label, answers, answer) in enumerate(triples):
        question = Question(
            name or kind,
            "val",
            str(number),
            "?",
            Path("a.jpg"),
            label,
            language,
            kind,
            answers,
            tuple((way, names[number]) for way, names in (types or {}).items()),
        )
        made += make_rows([question], "?", answer)
    return made


VQA = [("yes", HUMANS, "Yes"), ("yes", HUMANS, ""), ("3", NUMBERS, "2"), ("yes", HUMANS, "нет")]
MIXED = {
    "vqav2": rows("vqav2", VQA, types={"answer_type": ["yes/no", "yes/no", "number", "other"]}),
    "gqa": rows(
        "gqa",
        [("cat", ("cat",), "Cat"), ("dog", ("dog",), "Cat"), ("cat",) * 3],
        types={
            "answer_type": ["open", "open", "binary"],
            "structural": ["query", "query", "choose"],
            "semantic": ["obj", "cat", "obj"],
        },
    ),
    "gqa_ru": rows("gqa_ru", [("двое", ("двое",), "2"), ("2", ("2",), "Два.")], "ru"),
    "ocr": rows("ocr", [("дом", ("дом",), "дым"), ("мир", ("мир",), "мир")], "ru"),
    "regions": rows(
        "regions",
        [("[0.0, 0.0, 1.0, 0.5]", (), "[0, 0, 1, 1]"), ("[0.0, 0.0, 1.0, 0.5]", (), "left")],
    ),
    "pope": rows("pope", [("yes", ("yes",), "Yes"), ("no", ("no",), "Yes")]),
}


def test_numbers_by_hand():
    scores = score_rows([row for part in MIXED.values() for row in part])
    vqa = scores["vqav2"]["val"]
    # 1 + 0 + 0.9 + 0, of four; always `yes` is right three times.
    assert vqa["accuracy"] == pytest.approx(1.9 / 4)
    assert (vqa["chance_accuracy"], vqa["unknown_rate"]) == (0.75, 0.25)
    assert (vqa["accuracy_yes_no"], vqa["accuracy_number"], vqa["accuracy_other"]) == (0.5, 0.9, 0)
    assert vqa["language_fidelity"] == 0.5, "`2` and nothing are of no language"
    gqa = scores["gqa"]["val"]
    assert (gqa["accuracy"], gqa["chance_accuracy"]) == (pytest.approx(2 / 3),) * 2
    russian = scores["gqa_ru"]["val"]
    assert (russian["accuracy"], russian["strict"], russian["normalised"]) == (0, 0, 0.5)
    ocr = scores["ocr"]["val"]
    assert (ocr["accuracy"], ocr["cer"]) == (0.5, pytest.approx(1 / 6))
    regions = scores["regions"]["val"]
    assert (regions["accuracy"], regions["mean_iou"]) == (0.5, 0.25)
    assert regions["unknown_rate"] == 0.5
    assert scores["pope"]["mean"]["f1"] == pytest.approx(2 / 3)
    assert "mean" not in scores["vqav2"], "one split is its own mean"


def test_gqa_by_the_types_of_its_own_script(tmp_path):
    numbers = score_rows(MIXED["gqa"])["gqa"]["val"]
    by_type = {key: numbers[f"accuracy_{key}"] for key in ("open", "binary", "query", "choose")}
    assert by_type == {"open": 0.5, "binary": 1.0, "query": 0.5, "choose": 1.0}
    assert (numbers["accuracy_obj"], numbers["accuracy_cat"]) == (1.0, 0.0)
    markdown = (
        write_report(tmp_path, MIXED["gqa"], score_rows(MIXED["gqa"]), {})
        .with_suffix(".md")
        .read_text("utf-8")
    )
    assert "| accuracy | chance | binary | open | query | choose | obj | cat |" in markdown
    assert "| 66.67 | 66.67 | 100.00 | 50.00 | 50.00 | 100.00 | 100.00 | 0.00 |" in markdown
    plain = rows("gqa", [("cat", ("cat",), "Cat")])
    assert not [key for key in score_rows(plain)["gqa"]["val"] if key.startswith("accuracy_")]


def test_vqav2_by_question_type_and_which_way_it_leans(tmp_path):
    types = {"question_type": ["is", "is", "how many", "is"]}
    part = rows("vqav2", VQA, types=types)
    numbers = score_rows(part)["vqav2"]["val"]
    assert (numbers["accuracy_is"], numbers["accuracy_how many"]) == (1 / 3, 0.9)
    # Of three answers to yes-or-no questions: `Yes`, nothing and «нет».
    assert numbers["yes_ratio"] == 1 / 3
    report = write_report(tmp_path, part, score_rows(part), {}).with_suffix(".md").read_text()
    table = "| vqav2, accuracy | val |\n| --- | ---: |\n| how many | 90.00 |\n| is | 33.33 |"
    assert table in report
    assert "yes_ratio" not in score_rows(part[2:3])["vqav2"]["val"]


@pytest.mark.parametrize("kind", MIXED)
def test_rows_and_splits_agree(kind):
    part = MIXED[kind]
    numbers = score_rows(part)[kind]["val"]
    assert math.isclose(sum(map(row_score, part)) / len(part), numbers["accuracy"])
    assert HEADLINE[kind] in numbers


def test_answers_in_english_are_scored_and_fidelity_is_of_the_raw_ones():
    part = rows("gqa", [("cat", ("cat",), "Кот"), ("dog", ("dog",), "Dog")], "ru")
    part = [replace(part[0], english="cat"), replace(part[1], english="dog")]
    numbers = score_rows(part)["gqa"]["val"]
    assert (numbers["accuracy"], numbers["language_fidelity"]) == (1.0, 0.5)
    assert "not_in_english" not in numbers


def test_russian_answers_against_english_labels_are_counted(tmp_path):
    part = rows("gqa", [("cat", ("cat",), "Кот"), ("dog", ("dog",), "Собака")], "ru")
    part[0] = replace(part[0], english="cat")
    assert score_rows(part)["gqa"]["val"]["not_in_english"] == 0.5
    report = write_report(tmp_path, part, score_rows(part), {}).with_suffix(".md").read_text()
    assert "tools/translate.py answers brings them back" in report


def test_splits_without_labels_are_counted_and_not_scored():
    part = rows("vqav2", [(None, (), "Yes"), (None, (), "2")])
    assert score_rows(part) == {"vqav2": {"val": {"total": 2, "language_fidelity": 1.0}}}
    with pytest.raises(SettingError, match="question '0' of 'vqav2', split 'val', has no label"):
        score_rows([part[0], *MIXED["vqav2"][1:]])
    with pytest.raises(SettingError, match="rows in the kinds"):
        score_rows([part[0], replace(MIXED["gqa"][1], benchmark="vqav2")])


def test_all_kinds_fit_a_terminal_and_a_report(tmp_path):
    everything = [replace(row, split="testdev_balanced") for part in MIXED.values() for row in part]
    output = io.StringIO()
    Console(file=output, width=80).print(rich_table(score_rows(everything)))
    assert "…" not in output.getvalue()
    assert all(f" {name} " in output.getvalue() for name in MIXED)
    write_report(tmp_path, everything, score_rows(everything), {})
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| vqav2 | testdev_balanced | 4 | 47.50 | 75.00 | 50.00 | 90.00 | 0.00 |" in markdown
    scalars = benchmark_scalars(score_rows(everything))
    assert scalars["benchmarks/ocr/testdev_balanced/cer"] == pytest.approx(1 / 6)
    assert not any(math.isnan(value) for value in scalars.values())


def test_real_answers_give_the_known_numbers(shared_data):
    folder = "llava-1.5-13b"
    files = shared_data(f"{folder}/gqa_train_48.jsonl", f"{folder}/pope_random.jsonl")
    gqa, pope = ([json.loads(line) for line in path.read_text().splitlines()] for path in files)
    answered = [(row["answer"], (row["answer"],), row["prediction"]) for row in gqa]
    made = rows("gqa", answered)
    assert score_rows(made)["gqa"]["val"]["correct"] == sum(map(row_score, made)) == 951
    answered = [(row["label"], (row["label"],), row["prediction"]) for row in pope]
    numbers = score_rows(rows("pope", answered))["pope"]["val"]
    assert [numbers[key] for key in ("tp", "fp", "tn", "fn")] == [1182, 31, 1379, 318]
    assert numbers["f1"] == pytest.approx(0.871360, abs=5e-7)


def test_the_report_has_the_numbers_of_the_score_tool(shared_data, tmp_path):
    (truth,) = shared_data("vqav2/annotations_1500.json")
    made = []
    for record in json.loads(truth.read_text())["annotations"]:
        answers = tuple(answer["answer"] for answer in record["answers"])
        types = (("answer_type", record["answer_type"]),)
        place = "vqav2", "val", str(record["question_id"])
        question = Question(*place, "?", None, answers[0], "en", "vqav2", answers, types)
        made += make_rows([question], "?", answers[-1].capitalize() + ".")
    write_ledger(tmp_path / "ledger.jsonl", made)
    file = Named(None, tmp_path / "ledger.jsonl")
    tool = rescore("vqav2", [Named(None, truth)], [file], dialect="llava").dialects["llava"]
    numbers = score_rows(made)["vqav2"]["val"]
    assert 0.5 < numbers["accuracy"] == tool["accuracy"]
    for name in ("yes/no", "number", "other"):
        found = numbers[f"accuracy_{name.replace('/', '_')}"]
        assert found == tool["by_answer_type"][name]["accuracy"]
