import json
import pickle
import sys

import pyarrow as arrow
import pytest
from pyarrow import parquet
from reader_results import save

from lightning_llava.data.converters import published
from lightning_llava.data.converters.published import (
    check_form,
    entries,
    json_records,
    parquet_rows,
    read_json,
)
from lightning_llava.errors import SettingError

VALUES = [1, -2.5e3, 'a, ] " \\ й 😀', None, True, [], {}, [[1, {"a": [2]}], "]"], {"k": {"n": 0}}]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_array_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(published, "CHUNK", chunk)
    path = tmp_path / "a.json"
    for ascii_only in (True, False):
        text = json.dumps(VALUES, indent=indent, ensure_ascii=ascii_only)
        path.write_text(text + "\n", encoding="utf-8")
        assert list(json_records(path, "it")) == json.loads(text)


def test_array_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "CHUNK", 100)
    path = save(tmp_path / "a.json", [{"n": n} for n in range(1000)])
    path.write_text(path.read_text()[:-1] + ", oops", encoding="utf-8")
    records = json_records(path, "it")
    assert [next(records) for _ in range(900)] == [{"n": n} for n in range(900)]
    with pytest.raises(SettingError, match=r"a\.json is not a whole JSON array, from .*oops"):
        list(records)


def test_empty_array_byte_order_mark_and_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(" [ ] ", encoding="utf-8")
    assert list(json_records(path, "it")) == []
    path.write_text("[1,\n2]", encoding="utf-8-sig")
    assert list(json_records(path, "it")) == [1, 2]
    path.write_text('{"a": 1}\n\n{"a": "\u2028"}\n', encoding="utf-8")
    assert list(json_records(path, "it")) == [{"a": 1}, {"a": "\u2028"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2", r"not a whole JSON array, from .* on; expected IT"),
        (b"[1 2]", r"not a whole JSON array, from ' 2\]' on"),
        (b'[1, "\xff"]', r"not UTF-8"),
        (b'{"a": 1}\n{"a"\n', r"line 2: .*; expected IT"),
        (b"\x80\x04N.", r"a pickle, which can run code and is never read; expected IT"),
    ],
)
def test_broken_records_are_told_apart(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=message):
        list(json_records(path, "IT"))


def test_whole_files(tmp_path):
    path = save(tmp_path / "a.json", {"data": [{"a": 1, "b": {"a": 2, "c": 3}}], "a": 4})
    assert read_json(path, "IT", drop=("a",)) == {"data": [{"b": {"c": 3}}]}
    assert entries(read_json(path, "IT"), "data", path, "IT")[0]["a"] == 1
    with pytest.raises(SettingError, match="an object with data, a; expected IT, which has a list"):
        entries(read_json(path, "IT"), "images", path, "IT")
    path.write_bytes(pickle.dumps({"data": []}))
    with pytest.raises(SettingError, match="is a pickle"):
        read_json(path, "IT")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(SettingError, match="is not JSON"):
        read_json(path, "IT")
    with pytest.raises(SettingError, match=r"cannot read .*none\.json"):
        read_json(tmp_path / "none.json", "IT")


def test_another_file_is_refused_and_single_bad_records_are_not(tmp_path):
    path = tmp_path / "a.json"
    records = [3, {"b": 1}, {"a": 1}]
    assert list(check_form(records, "a", path, "IT")) == records
    assert list(check_form([], "a", path, "IT")) == []
    with pytest.raises(SettingError, match="records such as an object with b; expected IT, whose"):
        check_form([{"b": 1}] * 100 + [{"a": 1}], "a", path, "IT")


def test_parquet_files_of_a_folder_in_the_order_of_their_names(tmp_path):
    for name, numbers in [("train-00001", [100, 101]), ("train-00000", list(range(100)))]:
        table = arrow.table({"n": numbers, "unread": numbers})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=30)
    assert list(parquet_rows(tmp_path, ("n",), "IT")) == [{"n": n} for n in range(102)]
    assert next(parquet_rows(tmp_path / "train-00001.parquet", ("n",), "IT")) == {"n": 100}
    with pytest.raises(SettingError, match=r"00000\.parquet has no column m, but n, unread"):
        list(parquet_rows(tmp_path, ("n", "m"), "IT"))


def test_what_is_no_parquet_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SettingError, match=r"cannot read .*a\.parquet: .*; expected IT"):
        list(parquet_rows(tmp_path, ("n",), "IT"))
    with pytest.raises(SettingError, match=r"cannot read .*b\.parquet"):
        list(parquet_rows(tmp_path / "b.parquet", ("n",), "IT"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"holds no \*\.parquet"):
        list(parquet_rows(tmp_path / "empty", ("n",), "IT"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingError, match=r"pip install 'lightning-llava\[data\]'"):
        list(parquet_rows(tmp_path, ("n",), "IT"))
