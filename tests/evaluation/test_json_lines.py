import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import read_json_lines, write_atomically


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": "x\u2028y\u0085z"}\r\n\n{"a": 2}'.encode())
    assert list(read_json_lines(path, "rows")) == [(1, {"a": "x\u2028y\u0085z"}), (3, {"a": 2})]


def test_says_where_the_bytes_are_not_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xd0"}\n')
    with pytest.raises(SettingError, match=r"rows\.jsonl, line 2: not JSON .* or change data\.x"):
        list(read_json_lines(path, "data.x"))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomically(path, "старое")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "новое \ud800")
    assert path.read_text(encoding="utf-8") == "старое"
    assert list(path.parent.iterdir()) == [path]
