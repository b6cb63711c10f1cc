"""`tools/export.py` as a program."""

import pytest

from tool_files import load_tool


def test_a_size_is_checked_before_anything_is_loaded(capsys):
    options = ["--checkpoint", "x.ckpt", "--output", "y", "--max-shard-size", "5 gigabytes"]
    with pytest.raises(SystemExit):
        load_tool("export").main(options)
    assert "expected a size such as 5GB" in capsys.readouterr().err


def test_a_wrong_checkpoint_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "x.ckpt").write_text("no checkpoint")
    options = ["--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path / "y"]
    assert load_tool("export").main(list(map(str, options))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --checkpoint: ")
    assert "expected a .ckpt that fit wrote" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]
