import json
from dataclasses import replace

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.ledger import LedgerRow, append_rows, read_ledger, write_ledger

ROW = LedgerRow(
    benchmark="pope_ru",
    split="random",
    question_id="7",
    image="photos/кот.jpg",
    language="ru",
    question="Есть ли кот?",
    prompt="USER: <image>\nЕсть ли кот?\nОтветь одним словом. ASSISTANT:",
    raw_answer="Нет\u2028.",
    label="yes",
    parsed="no",
    correct=False,
    kind="pope",
    answers=["yes"],
    types={},
    source="Is there a cat?",
    english="no",
    route="map",
)
UNSCORED = replace(ROW, question_id="8", image=None, label=None, parsed=None, correct=None)


def test_round_trip_keeps_everything_readable(tmp_path):
    path = tmp_path / "new" / "ledger.jsonl"
    write_ledger(path, [ROW, UNSCORED])
    assert read_ledger(path) == [ROW, UNSCORED]
    text = path.read_text(encoding="utf-8")
    assert "Есть ли кот?" in text
    assert "\\u" not in text


def test_append_and_replace(tmp_path):
    path = tmp_path / "new" / "ledger.jsonl"
    append_rows(path, [ROW])
    append_rows(path, [UNSCORED])
    assert read_ledger(path) == [ROW, UNSCORED]
    write_ledger(path, [UNSCORED])
    assert read_ledger(path) == [UNSCORED]


def test_errors_name_file_and_line(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(SettingError, match=r"the ledger: the file .*ledger\.jsonl' does not exist"):
        read_ledger(path)
    write_ledger(path, [ROW])
    whole = path.read_text(encoding="utf-8")
    record = json.loads(whole)

    path.write_text(whole + whole[:40], encoding="utf-8")
    with pytest.raises(SettingError, match=r"ledger\.jsonl, line 2: not JSON"):
        read_ledger(path)

    extra = {**record, "score": 1}
    del extra["prompt"]
    path.write_text(whole + json.dumps(extra), encoding="utf-8")
    with pytest.raises(
        SettingError, match=r"line 2: not a ledger row, missing \['prompt'\], unknown \['score'\]"
    ):
        read_ledger(path)

    path.write_text(json.dumps({**record, "question_id": 7}), encoding="utf-8")
    with pytest.raises(SettingError, match="line 1: question_id is 7, expected str"):
        read_ledger(path)

    path.write_text(json.dumps({**record, "correct": "no"}), encoding="utf-8")
    with pytest.raises(SettingError, match=r"line 1: correct is 'no', expected bool \| None"):
        read_ledger(path)
