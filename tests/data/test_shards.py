import errno
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from lightning_llava.data.schema import Sample, from_json
from lightning_llava.data.shards import existing_shards, image_extension, write_shards
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn

JPEG = b"\xff\xd8\xff\xe0 a jpeg"
PNG = b"\x89PNG\r\n\x1a\n a png"
WEBP = b"RIFF\x04\x00\x00\x00WEBP a webp"


def sample(name: str, *images: bytes) -> Sample:
    question = "<image>\n" * len(images) + "Что это?"
    return Sample(name, [Turn("user", question), Turn("assistant", "Кот.")], list(images), "test")


def digests(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_names_and_contents(tmp_path):
    samples = [sample("a", JPEG), sample("b", JPEG, PNG, WEBP), sample("c")]
    shards = write_shards(samples, tmp_path / "new", "train", max_samples=2)
    assert [path.name for path in shards] == ["train-000000.tar", "train-000001.tar"]
    with tarfile.open(shards[0]) as tar:
        members = {member.name: member for member in tar}
        assert set(members) == {
            "000000000.json",
            "000000000.jpg",
            "000000001.json",
            "000000001.0.jpg",
            "000000001.1.png",
            "000000001.2.webp",
        }
        file = tar.extractfile("000000001.1.png")
        assert file is not None
        assert file.read() == PNG
        assert {(member.mtime, member.uname, member.uid) for member in members.values()} == {
            (0, "root", 0)
        }
    with tarfile.open(shards[1]) as tar:
        assert tar.getnames() == ["000000002.json"]


def test_webdataset_reads_what_was_written(tmp_path):
    samples = [sample("a", JPEG), sample("b", PNG, WEBP)]
    (shard,) = write_shards(samples, tmp_path, "train")
    with shard.open("rb") as file:
        rows = list(group_by_keys(tar_file_expander([{"url": shard.name, "stream": file}])))
    assert [row["__key__"] for row in rows] == ["000000000", "000000001"]
    assert json.loads(rows[0]["json"])["turns"][1]["text"] == "Кот."
    assert from_json(rows[0]["json"], [rows[0]["jpg"]]) == samples[0]
    assert from_json(rows[1]["json"], [rows[1]["0.png"], rows[1]["1.webp"]]) == samples[1]


def test_same_samples_give_identical_files(tmp_path, monkeypatch):
    samples = [sample(str(number), JPEG) for number in range(5)]
    first = write_shards(samples, tmp_path / "first", "train", max_samples=2)
    monkeypatch.setattr("time.time", lambda: 2e9)
    second = write_shards(iter(samples), tmp_path / "second", "train", max_samples=2)
    assert digests(first) == digests(second)
    assert len(set(digests(first))) == 3


def test_shorter_run_leaves_no_shards_of_a_longer_one(tmp_path):
    write_shards([sample(str(number)) for number in range(3)], tmp_path, "train", max_samples=1)
    other = tmp_path / "train-extra-000002.tar"
    other.write_bytes(b"somebody else's")
    shards = write_shards([sample("new")], tmp_path, "train", max_samples=1)
    assert existing_shards(tmp_path, "train") == shards == [tmp_path / "train-000000.tar"]
    assert other.exists()


def test_no_samples_no_shards(tmp_path):
    assert write_shards([], tmp_path, "train") == []
    assert list(tmp_path.iterdir()) == []
    assert existing_shards(tmp_path / "missing", "train") == []


def test_a_failure_leaves_only_finished_shards(tmp_path):
    def interrupted():
        yield sample("a")
        yield sample("b")
        yield sample("c")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_shards(interrupted(), tmp_path, "train", max_samples=2)
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.tar"]
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert tar.getnames() == ["000000000.json", "000000001.json"]


def test_file_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor):
        events.append("sync")
        fsync(descriptor)

    def record_replace(path, target):
        events.append(f"rename to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_shards([sample("a", JPEG)], tmp_path, "train")
    assert events == ["sync", "rename to train-000000.tar", "sync"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, number):
    def full(_):
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SettingError, match=rf"no room to write train-000000.tar in {tmp_path} "):
        write_shards([sample("a", JPEG)], tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_another_failure_to_write_is_no_full_disk(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="broken"):
        write_shards([sample("a", JPEG)], tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_refuses_record_with_a_problem(tmp_path):
    bad = Sample("x7", [Turn("user", "<image>\nHi"), Turn("assistant", "Hi")], [], "vqav2")
    with pytest.raises(
        SettingError, match=r"record 'x7' of source 'vqav2': 1 <image> placeholders but 0"
    ):
        write_shards([bad], tmp_path, "train")
    assert list(tmp_path.iterdir()) == []


def test_refuses_unknown_image_format(tmp_path):
    with pytest.raises(
        SettingError, match=r"record 'g' .*image 1 begins with b'GIF89a!!', expected JPEG"
    ):
        write_shards([sample("g", JPEG, b"GIF89a!!!")], tmp_path, "train")


@pytest.mark.parametrize("prefix", ["", "a/b"])
def test_refuses_prefix_that_is_a_path(tmp_path, prefix):
    with pytest.raises(SettingError, match="not a plain file name"):
        write_shards([], tmp_path, prefix)


def test_refuses_empty_shards(tmp_path):
    with pytest.raises(SettingError, match="at least 1"):
        write_shards([], tmp_path, "train", max_samples=0)


@pytest.mark.parametrize(
    ("encoded", "extension"),
    [
        (JPEG, "jpg"),
        (PNG, "png"),
        (WEBP, "webp"),
        (b"GIF89a", None),
        (b"RIFF\0\0\0\0AVI ", None),
        (b"", None),
    ],
)
def test_extension_from_first_bytes(encoded, extension):
    assert image_extension(encoded) == extension
