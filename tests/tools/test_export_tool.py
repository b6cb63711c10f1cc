"""`tools/export.py` as a program."""

from tool_files import load_tool


def test_a_wrong_checkpoint_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "x.ckpt").write_text("no checkpoint")
    options = ["--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path / "y"]
    assert load_tool("export").main(list(map(str, options))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --checkpoint: ")
    assert "expected a .ckpt that fit wrote" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]
