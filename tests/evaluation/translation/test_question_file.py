import json
from dataclasses import replace

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.evaluation.ledger import write_ledger
from lightning_llava.evaluation.translation.question_file import question_files
from lightning_llava.evaluation.translation.questions import Rendered
from lightning_llava.specs import BenchmarkSpec

RUSSIAN = {"Why?": Rendered("Почему?", False, None), "Who?": Rendered("Who?", False, "script")}
POPE = '{"question_id": 1, "image": "a.jpg", "text": "Why?", "label": "yes"}\n'


def translated(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (file,) = question_files(path)
    file.translate(RUSSIAN)
    file.write(path.with_name("written"))
    text = path.with_name("written").read_text(encoding="utf-8")
    if isinstance(content, str):
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text)


def test_popes_lines_stay_lines(tmp_path):
    who = json.loads(POPE) | {"question_id": 2, "text": "Who?"}
    lines = translated(tmp_path / "pope.json", POPE + json.dumps(who) + "\n")
    assert lines == [
        json.loads(POPE) | {"text": "Почему?", "source": "Why?"},
        who | {"text": "Who?", "source": "Who?", "problem": "script"},
    ]
    (one,) = translated(tmp_path / "one.json", POPE)
    assert one["text"] == "Почему?"


@pytest.mark.parametrize("name", ["questions", "data"])
def test_vqa_keeps_what_stands_beside_its_list(tmp_path, name):
    question = {"question_id": 7, "image_id": 3, "question": "Why?"}
    content = {"data_subtype": "val2014", name: [question]}
    assert translated(tmp_path / "vqa.json", content) == {
        "data_subtype": "val2014",
        name: [question | {"question": "Почему?", "source": "Why?"}],
    }


def test_gqa_keeps_ids_and_answers(tmp_path):
    content = {"201": {"question": "Why?", "answer": "kite", "isBalanced": True}}
    assert translated(tmp_path / "gqa.json", content) == {
        "201": {"question": "Почему?", "answer": "kite", "isBalanced": True, "source": "Why?"}
    }


def test_what_was_translated_is_asked_in_russian_and_keeps_its_source(tmp_path):
    translated(tmp_path / "pope.json", POPE)
    question = {"question_id": 7, "image_id": 3, "question": "Why?"}
    (tmp_path / "vqa").mkdir()
    translated(tmp_path / "vqa" / "vqa.json", {"questions": [question]})
    answers = [{"answer": "kite"}] * 10
    note = {"question_id": 7, "image_id": 3, "answers": answers}
    (tmp_path / "notes.json").write_text(json.dumps({"annotations": [note]}), encoding="utf-8")
    for name in ("a.jpg", "COCO_val2014_000000000003.jpg"):
        (tmp_path / name).touch()
    pope = BenchmarkSpec(
        "pope", {"random": str(tmp_path / "written")}, images=str(tmp_path), language="ru"
    )
    vqa = BenchmarkSpec(
        "vqav2",
        {"val": str(tmp_path / "vqa" / "written")},
        annotations={"val": str(tmp_path / "notes.json")},
        images=str(tmp_path),
        language="ru",
    )
    for spec, label in ((pope, "yes"), (vqa, "kite")):
        (asked,) = load_benchmark("benchmark", spec)
        assert (asked.text, asked.source, asked.label) == ("Почему?", "Why?", label)
        with pytest.raises(SettingError, match=r"benchmark\.language is en; set it to ru"):
            load_benchmark("benchmark", replace(spec, language="en"))


def test_a_ledger_gives_a_file_per_split(tmp_path, row):
    pope = row(kind="pope", benchmark="pope", question="Why?", language="en", label="no")
    write_ledger(
        tmp_path / "ledger.jsonl", [replace(pope, split=split) for split in ("random", "popular")]
    )
    files = question_files(tmp_path / "ledger.jsonl")
    assert [file.path.name for file in files] == ["pope_random.jsonl", "pope_popular.jsonl"]
    record = {"question_id": "1", "image": "1.jpg", "text": "Why?", "label": "no"}
    assert files[0].records == [record]
    write_ledger(tmp_path / "ledger.jsonl", [row()])
    with pytest.raises(SettingError, match=r"kind 'gqa', .* give the published file"):
        question_files(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no questions"),
        ('{"question_id": 1}', "question 1: none of text, question among"),
        ('{"text": "Why?"}', "entry 0: none of question_id"),
        ('{"question_id": 1, "text": 5}', "question 1: text is 5, expected a text"),
        ('[{"question_id": 1, "text": "Why?"}, 7]', "entry 1"),
        ('{"question_id": 1,', "line 1: not JSON"),
    ],
)
def test_other_forms_are_refused(tmp_path, content, message):
    path = tmp_path / "questions.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingError, match=message):
        question_files(path)[0].texts()


def test_a_translated_file_is_not_translated_again(tmp_path):
    with pytest.raises(SettingError, match="question 1: has a 'source'"):
        translated(tmp_path / "x.json", POPE.replace('"label"', '"source": "Why?", "label"'))
