"""`tools/export.py` as a program."""

import errno
import os

import pytest
from safetensors import SafetensorError

from lightning_llava.errors import SettingError
from lightning_llava.export.command import whole_or_absent
from tool_files import load_tool

main = load_tool("export").main


def test_a_wrong_checkpoint_ends_in_a_sentence(tmp_path, capsys):
    (tmp_path / "x.ckpt").write_text("no checkpoint")
    options = ["--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path / "y"]
    assert main(list(map(str, options))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --checkpoint: ")
    assert "expected a .ckpt that fit wrote" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def test_a_run_folder_is_no_checkpoint(tmp_path, capsys):
    assert main(["--checkpoint", str(tmp_path), "--output", str(tmp_path / "y")]) == 2
    assert "is a folder; name the .ckpt file" in capsys.readouterr().err


def test_a_size_without_a_unit_is_refused_before_anything_is_read(tmp_path, capsys):
    options = ["--checkpoint", tmp_path / "x.ckpt", "--output", tmp_path, "--max-shard-size", "5"]
    with pytest.raises(SystemExit):
        main(list(map(str, options)))
    assert "found '5', expected a size such as 5GB" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingError, match=r"--output: '.*file' cannot be written to"),
        whole_or_absent(tmp_path / "file" / "new"),
    ):
        pass


def test_who_may_read_the_folder_may_read_its_files(tmp_path):
    with whole_or_absent(tmp_path / "new") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").touch(mode=0o600)
    rights = (tmp_path / "new").stat().st_mode & 0o666
    assert (tmp_path / "new/part/weights").stat().st_mode & 0o777 == rights


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, kind):
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with (
        pytest.raises(SettingError, match="--output: the disk is full"),
        whole_or_absent(tmp_path / "new"),
    ):
        raise error if kind is OSError else kind(f"Error while serializing: I/O error: {error}")
    assert list(tmp_path.iterdir()) == []
