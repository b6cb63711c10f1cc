"""Kept answers: whole after a kill, never two for a key."""

import json

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.store import Store, answer_key


def reopened(folder, *place):
    store = Store(folder, *place)
    store.close()
    return store


def test_what_is_added_is_there_again(tmp_path):
    store = Store(tmp_path)
    store.add({"a": "yes", "b": 'Да\n"так"'})
    assert reopened_by_reading(tmp_path) == {"a": "yes", "b": 'Да\n"так"'}, "before it is closed"
    store.close()
    assert reopened(tmp_path).answers == {"a": "yes", "b": 'Да\n"так"'}


def reopened_by_reading(folder):
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    return {r["key"]: r["answer"] for r in map(json.loads, text.splitlines())}


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_written_again(tmp_path, cut):
    store = Store(tmp_path)
    store.add({"a": "yes"})
    store.add({"b": "Нет"})
    store.close()
    path = tmp_path / "answers.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    store = Store(tmp_path)
    assert store.answers == {"a": "yes"}
    store.add({"b": "Нет"})
    store.close()
    assert path.read_bytes() == whole


def test_a_line_of_something_else_is_refused(tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"key": "a", "answer": "yes"}\n{"text": "no"}\n')
    with pytest.raises(SettingError, match=r"answers\.jsonl, line 2: .* is no answer"):
        Store(tmp_path)


def test_nobody_else_may_write_there(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(SettingError, match="another evaluation is writing"):
        Store(tmp_path)
    store.close()
    reopened(tmp_path)


def test_the_answers_of_other_processes_count(tmp_path):
    first, second = Store(tmp_path, 0, 2), Store(tmp_path, 1, 2)
    first.add({"a": "yes"})
    second.add({"b": "no"})
    with (tmp_path / "answers.rank1.jsonl").open("ab") as handle:
        handle.write(b'{"key": "c", "ans')  # it is being written
    first.read()
    assert first.answers == {"a": "yes", "b": "no"}
    first.close()
    second.close()
    assert reopened(tmp_path).answers == {"a": "yes", "b": "no"}, "one process after two"


def test_a_key_has_one_answer(tmp_path):
    store = Store(tmp_path)
    store.add({"a": "yes"})
    with pytest.raises(AssertionError):
        store.add({"a": "no"})
    store.close()


def test_a_key_stands_for_model_picture_and_prompt():
    parts = [
        ("model", "picture", "prompt"),
        ("model", None, "prompt"),
        ("other", "picture", "prompt"),
    ]
    parts += [("model", "picture", "prompt "), ("model", "pictureprompt", "")]
    assert len({answer_key(*one) for one in parts}) == len(parts)
