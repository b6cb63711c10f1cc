import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handmade import picture

from lightning_llava.data.converters import deal, run
from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.run import convert
from lightning_llava.data.schema import Box
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn
from tool_files import TOOLS, load_tool

WITH_LIMIT = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def talk(question="Hi"):
    return [Turn("user", question), Turn("assistant", "Hello")]


def text_drafts(count):
    return [Draft(f"t{number}", talk(f"Hi {number}")) for number in range(count)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def command(world, output, *more):
    inputs = ["--json", world / "records.json", "--images", world / "images"]
    settings = ["--output", output, "--max-samples", "3", *more]
    return [sys.executable, TOOLS / "shards.py", "convert", "llava", *inputs, *settings]


def succeed(arguments):
    """Run the tool in this process."""
    assert load_tool("shards").main(list(map(str, arguments[2:]))) == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """90 records: with images, without, with a missing or broken one, shared ids, duplicates.

    A whole shard's worth of records, 30 to 32, has no image at all.
    """
    folder = tmp_path_factory.mktemp("world")
    (folder / "images").mkdir()
    for number in range(8):
        (folder / "images" / f"{number}.png").write_bytes(picture(number, (500, 400)))
    (folder / "images" / "broken.png").write_bytes(picture(0)[:200])
    records = []
    for number in range(90):
        name = "missing.png" if 30 <= number < 33 else f"{number % 8}.png"
        if number % 7 == 3:
            name = "broken.png"
        answer = {"from": "gpt", "value": f"Number {number % 40}"}
        asked = {"from": "human", "value": "<image>\nWhat?" if number % 11 else "What?"}
        record = {"id": f"i{number % 8}", "conversations": [asked, answer]}
        records.append(record | ({"image": name} if number % 11 else {}))
    (folder / "records.json").write_text(json.dumps([*records, 3]))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(world, tmp_path_factory):
    """What one process writes."""
    output = tmp_path_factory.mktemp("one") / "shards"
    succeed(command(world, output, "--processes", "1"))
    return contents(output)


@pytest.mark.slow
def test_one_process_and_three_write_the_same_bytes(world, uninterrupted, tmp_path):
    succeed(command(world, tmp_path / "shards", "--processes", "3"))
    assert contents(tmp_path / "shards") == uninterrupted
    # Thirty shards of three; the one without a sample leaves no hole.
    names = [f"records-{number:06d}.tar" for number in range(29)]
    assert sorted(uninterrupted) == [*names, "records.report.json"]
    report = json.loads(uninterrupted["records.report.json"])
    assert report["shards"] == {name: len(uninterrupted[name]) for name in names}
    # 91 records; 3, 10, 17, … without 66, which names no image, are broken, and 31 is one of them.
    assert report["left_out_by_reason"] == {"corrupt": 12, "missing": 2, "record": 1}
    assert (report["records"], report["written"]) == (91, 76)


def children(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
def test_killed_and_started_again(world, uninterrupted, tmp_path):
    output = tmp_path / "shards"
    arguments = list(map(str, command(world, output, "--processes", "2")))
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    unfinished = output / "records.unfinished"
    while len(list(unfinished.glob("0*.json"))) < 4:
        assert process.poll() is None
        time.sleep(0.005)
    workers = children(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in output.iterdir()] == ["records.unfinished"]
    # Nobody goes on writing; only a zombie's folder in /proc is without a command.
    assert len(workers) >= 2  # and multiprocessing's own
    for worker in workers:
        deadline = time.monotonic() + 10
        while (path := Path(f"/proc/{worker}/cmdline")).exists() and path.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    kept = {
        path.stem: path.with_suffix(".tar").stat().st_ino for path in unfinished.glob("0*.json")
    }
    assert 4 <= len(kept) < 30
    (unfinished / ".000029.tar.1.partial").write_bytes(b"a write that was cut off")
    cut = min(kept)
    with (unfinished / f"{cut}.tar").open("r+b") as shard:  # not as its note says any more
        shard.truncate(1000)
    del kept[cut]
    succeed(command(world, output, "--processes", "1"))
    assert contents(output) == uninterrupted
    now = {path.stat().st_ino for path in output.glob("*.tar")}
    assert set(kept.values()) <= now  # they were moved, not written again


def test_full_disk(world, tmp_path):
    (tmp_path / "images").symlink_to(world / "images")
    records = json.loads((world / "records.json").read_text())
    texts = [record for record in records[:-1] if "image" not in record][:3]
    pictured = [record for record in records[:-1] if "image" in record][:3]
    (tmp_path / "records.json").write_text(json.dumps([*texts, *pictured]))
    output = tmp_path / "shards"
    arguments = [*command(tmp_path, output, "--processes", "1")]
    limited = [sys.executable, "-c", WITH_LIMIT, *arguments[1:]]
    done = subprocess.run(list(map(str, limited)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    needed = sum((world / "images" / record["image"]).stat().st_size for record in pictured)
    assert done.stderr.splitlines()[-1] == (
        f"error: no room to write 000001.tar in {output / 'records.unfinished'} (File too large):"
        f" the images of its 3 records take {needed:,} bytes; make room, then give the same command"
        " again to go on; finished shards are kept"
    )
    left = {path.name for path in (output / "records.unfinished").iterdir()}
    assert left == {"000000.json", "000000.tar", "lock", "settings.json"}
    inode = (output / "records.unfinished" / "000000.tar").stat().st_ino
    succeed(arguments)
    assert (output / "records-000000.tar").stat().st_ino == inode
    succeed(command(tmp_path, tmp_path / "again", "--processes", "1"))
    assert contents(output) == contents(tmp_path / "again")


@pytest.mark.slow
def test_full_disk_in_a_worker_process(tmp_path):
    drafts = [Draft("x", talk("<image>\nHi"), [picture(0, (500, 400))]), *text_drafts(1)]
    conversion = Conversion(tmp_path, "a", "me", max_samples=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            SettingError, match=r"no room to write 000000.tar in .* make room, then"
        ):
            convert(drafts, conversion, processes=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.tar"))
    assert not list(tmp_path.glob("*/.*"))
    assert len(convert(drafts, conversion).shards) == 2


def stopped(conversion, drafts, error=RuntimeError):
    """Convert all the drafts, and stop before the end of the source."""

    def source():
        yield from drafts
        raise error("power cut")

    with pytest.raises(error, match="power cut"):
        convert(source(), conversion)


def test_other_arguments_than_those_it_was_begun_with(tmp_path):
    drafts = text_drafts(5)
    stopped(Conversion(tmp_path, "a", "me", max_samples=2, origin={"json": "x"}), drafts)
    other = Conversion(tmp_path, "a", "me", max_samples=2, max_side=9, origin={"json": "y"})
    with pytest.raises(
        SettingError, match=r"\(json x, now y, max-side None, now 9\); give the same"
    ):
        convert(drafts, other)
    same = Conversion(tmp_path, "a", "me", max_samples=2, origin={"json": "x"})
    assert len(convert(drafts, same).shards) == 3


def test_nothing_is_left_of_a_conversion_that_finished_no_shard(tmp_path):
    stopped(Conversion(tmp_path, "a", "me"), text_drafts(3), SettingError)
    assert list(tmp_path.iterdir()) == []
    assert convert(text_drafts(1), Conversion(tmp_path, "a", "other")).report.written == 1


def test_drafts_that_changed_are_converted_anew(tmp_path):
    conversion = Conversion(tmp_path, "a", "me", max_samples=1)
    box = Box((0, 0, 1, 1), "all")
    before = [Draft("x", talk()), Draft("y", talk("Ho")), Draft("z", talk(), boxes=[])]
    after = [Draft("x", talk()), Draft("y", talk("Yo")), Draft("z", talk(), boxes=[box])]
    stopped(conversion, before)
    inode = (tmp_path / "a.unfinished" / "000000.tar").stat().st_ino
    shards = convert(after[:2], conversion).shards  # and the third is no more
    assert [path.name for path in shards] == ["a-000000.tar", "a-000001.tar"]
    assert shards[0].stat().st_ino == inode
    assert b"Yo" in shards[1].read_bytes()
    assert len(list(tmp_path.iterdir())) == 3

    task, other = deal.Task(0), deal.Task(0)
    task.add(0, before[2], "")
    other.add(0, after[2], "")
    assert task.fingerprint != other.fingerprint


def test_stopped_while_the_shards_get_their_names(tmp_path, monkeypatch):
    conversion = Conversion(tmp_path / "a", "a", "me", max_samples=1)
    replace = Path.replace

    def fail_at_the_second(path, target):
        if Path(target).name == "a-000001.tar":
            raise RuntimeError("power cut")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_at_the_second)
        with pytest.raises(RuntimeError, match="power cut"):
            convert(text_drafts(3), conversion)
    assert (tmp_path / "a" / "a-000000.tar").exists()
    convert([], conversion)  # the source is not read again
    convert(text_drafts(3), Conversion(tmp_path / "b", "a", "me", max_samples=1))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 4


def test_a_shard_that_vanished_while_the_shards_got_their_names(tmp_path, monkeypatch):
    conversion = Conversion(tmp_path, "a", "me", max_samples=1)

    def power_cut(_):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(run.Unfinished, "publish", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            convert(text_drafts(2), conversion)
    (tmp_path / "a.unfinished" / "000001.tar").unlink()
    with pytest.raises(SettingError, match=r"a-000001.tar is not as the conversion left it"):
        convert(text_drafts(2), conversion)


def test_a_finished_conversion_is_not_overwritten(tmp_path):
    conversion = Conversion(tmp_path, "a", "me")
    convert(text_drafts(1), conversion)
    before = contents(tmp_path)
    with pytest.raises(SettingError, match=r"already holds 1 shard named a-\*.tar; remove"):
        convert(text_drafts(1), conversion)
    assert contents(tmp_path) == before


def test_two_conversions_into_one_folder(tmp_path):
    conversion = Conversion(tmp_path, "a", "me")

    def source():
        with pytest.raises(SettingError, match="another process is converting into"):
            convert(text_drafts(1), conversion)
        yield from text_drafts(1)

    assert convert(source(), conversion).report.written == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"cannot write into .*file"):
        convert(text_drafts(1), Conversion(tmp_path / "file", "a", "me"))


@pytest.mark.parametrize("prefix", ["", "a/b"])
def test_prefix_is_a_plain_name(tmp_path, prefix):
    with pytest.raises(SettingError, match="not a plain file name"):
        convert([], Conversion(tmp_path, prefix, "me"))


def test_no_processes(tmp_path):
    with pytest.raises(SettingError, match="--processes is 0; it must be at least 1"):
        convert([], Conversion(tmp_path, "a", "me"), processes=0)


def kill_self(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "write_task", kill_self)
    with pytest.raises(SettingError, match=r"a worker process was killed, .* fewer --processes"):
        convert(text_drafts(2), Conversion(tmp_path, "a", "me", max_samples=1), processes=2)


def test_boxes_ids_language_and_embedded_images(tmp_path):
    encoded = picture(1)
    draft = Draft(
        "x",
        talk("<image>\nWhere?"),
        [encoded],
        boxes=[Box((0.0, 0.0, 0.5, 1.0), "cat")],
        ids=["q7"],
        language="fr",
    )
    report, (shard,), _ = convert([draft], Conversion(tmp_path, "a", "me"))
    assert encoded in shard.read_bytes()
    assert b'"phrase": "cat"' in shard.read_bytes()
    assert b'"ids": ["q7"]' in shard.read_bytes()
    assert report.languages == {"fr": 1}


def test_embedded_images_bound_what_a_shard_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(deal, "EMBEDDED_BYTES", 2 * len(picture(0)))
    drafts = [Draft(str(i), talk(f"<image>\n{i}?"), [picture(0)]) for i in range(5)]
    assert len(convert(drafts, Conversion(tmp_path, "a", "me")).shards) == 3


def test_a_bad_box_and_a_path_without_a_folder_are_left_out(tmp_path):
    drafts = [
        Draft("x", talk("<image>\nWhere?"), [picture(1)], boxes=[Box((0.5, 0, 0.2, 1), "cat")]),
        Draft("y", talk("<image>\nWhere?"), ["a.jpg"]),
        LeftOut("z", "record", "no answer"),
    ]
    report, shards, path = convert(drafts, Conversion(tmp_path, "a", "me"))
    assert {at: entry.reason for at, entry in report.left_out.items()} == {
        0: "conversation",
        1: "missing",
        2: "record",
    }
    assert (shards, json.loads(path.read_text())["shards"]) == ([], {})


def test_reads_no_further_ahead_than_the_processes_need(tmp_path):
    read, seen = [], []

    def source():
        for draft in text_drafts(12):
            read.append(draft.id)
            yield draft

    def progress(done, total):
        seen.append((done, total, len(read)))

    convert(source(), Conversion(tmp_path, "a", "me", max_samples=1), 1, progress)
    # Done, how many there are once that is known, read.
    assert seen[:2] == [(1, None, 2), (2, None, 2)]
    assert seen[-2:] == [(12, None, 12), (12, 12, 12)]
    assert all(ahead <= done + 1 for done, _, ahead in seen)
