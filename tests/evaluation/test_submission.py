import json

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.benchmarks.submission import write_submissions
from lightning_llava.specs import BenchmarkSpec


def rows(kind, answers, split="all"):
    return [
        row
        for name, answer in answers.items()
        for row in make_rows(
            [Question(kind, split, name, "?", None, None, "en", kind)], "?", answer
        )
    ]


def test_the_server_gets_every_id_of_its_file(tmp_path):
    whole = tmp_path / "test2015.json"
    listed = [{"question_id": n, "image_id": 1, "question": "?"} for n in (7, 8, 9)]
    whole.write_text(json.dumps({"questions": listed}))
    spec = BenchmarkSpec("vqav2", {"all": "testdev.json"}, submission={"all": str(whole)})
    (path,) = write_submissions(tmp_path, rows("vqav2", {"9": "Two.", "7": "Yes"}), {"vqav2": spec})
    assert path.name == "vqav2_all_results.json"
    assert json.loads(path.read_text()) == [
        {"question_id": 7, "answer": "yes"},
        {"question_id": 8, "answer": ""},
        {"question_id": 9, "answer": "2"},
    ]
    with pytest.raises(
        SettingError, match=r"submission\.all: .* lacks 1 of the questions .* as 6;"
    ):
        write_submissions(tmp_path, rows("vqav2", {"6": "no"}), {"vqav2": spec})
    spec.submission = {}
    (path,) = write_submissions(tmp_path, rows("vqav2", {"6": "No"}), {"vqav2": spec})
    assert json.loads(path.read_text()) == [{"question_id": 6, "answer": "no"}]


def test_fastchats_judge_gets_both_turns(tmp_path):
    answers = rows("mt_bench", {"81": "A post", "82": "4"})
    answers += rows("mt_bench", {"81": "Пост"}, split="all_turn_2")
    spec = BenchmarkSpec("mt_bench", {"all": "question.jsonl"})
    (path,) = write_submissions(tmp_path, answers, {"mt_bench": spec})
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [record["question_id"] for record in written] == [81, 82]
    assert [record["choices"] for record in written] == [
        [{"index": 0, "turns": ["A post", "Пост"]}],
        [{"index": 0, "turns": ["4"]}],
    ]
    assert {"answer_id", "model_id", "tstamp"} < written[0].keys()


def test_scored_benchmarks_have_nothing_to_submit(tmp_path):
    question = Question("vqav2", "val", "1", "?", None, "yes", "en", "vqav2", ("yes",) * 10)
    spec = BenchmarkSpec("vqav2", {"val": "questions.json"})
    assert write_submissions(tmp_path, make_rows([question], "?", "yes"), {"vqav2": spec}) == []
