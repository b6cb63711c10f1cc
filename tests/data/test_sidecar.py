import copy
import hashlib
import json
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from handmade import picture, record, says, write_tar

from lightning_llava.data import sidecar as module
from lightning_llava.data.indexer import ShardIndexer, index_shards
from lightning_llava.data.location import Stamp
from lightning_llava.data.scan import Scan, scan_shard
from lightning_llava.data.sidecar import (
    KEPT_ENCODERS,
    Measured,
    ShardFacts,
    Sidecar,
    dump_sidecar,
    load_sidecar,
    write_sidecar,
)
from lightning_llava.data.storage import ShardStorage

ONE = record("a", says("<image>\nWhat is it?", "A cat."), 1, language="ru")
EMPTY = record("a", says("Hi", " "))


class Counted(ShardStorage):
    """Counts the shards that are opened."""

    opened = 0

    def open(self, shard):
        self.opened += 1
        return super().open(shard)


@pytest.fixture
def storage(tmp_path):
    return Counted(str(tmp_path / "cache"))


@pytest.fixture
def shard(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    members = [("a.json", ONE), ("a.png", picture(0)), ("b.png", b""), ("c.json", EMPTY)]
    return write_tar(
        folder / "x.tar", *members, ("c.txt", b""), ("d.json", ONE), ("d.jpg", picture(1))
    )


def facts_of(path):
    scan = Scan()
    with path.open("rb") as stream:
        return ShardFacts.of(scan_shard(stream, path.stat().st_size, scan), scan)


def same(one, two):
    return vars(one).keys() == vars(two).keys() and all(
        np.array_equal(value, getattr(two, name))
        if isinstance(value, np.ndarray)
        else value == getattr(two, name)
        for name, value in vars(one).items()
    )


def index(storage, shard, encoder=None, **options):
    (found,) = index_shards([str(shard)], ShardIndexer(storage, encoder, **options), progress=False)
    return found


def beside(shard):
    return shard.with_name(f"{shard.name}.index.json")


def test_columns(shard):
    facts = facts_of(shard)
    assert facts.keys == ["a", "c", "d"]
    assert facts.num_images.tolist() == [1, 0, 1]
    assert facts.image_sizes.tolist() == [[20, 12], [20, 12]]
    assert facts.images[:, 1].tolist() == [len(picture(0)), len(picture(1))]
    assert facts.records.tolist()[0] == [512, len(ONE)]
    assert facts.languages == ["ru", "en", "ru"]
    assert facts.pairs.tolist() == [1, 1, 1]
    assert facts.characters.tolist() == [len("<image>\nWhat is it?A cat.")] * 1 + [3, 25]
    assert facts.quarantine == [("b", "image 0 is empty")]
    assert facts.notes == {"members ignored that end in .txt": 1}


def test_what_is_written_is_read_back(shard):
    measured = Measured.of([(7, 0, None), (0, 0, "too long"), (9, 2, None)])
    stamp = Stamp(shard.stat().st_size, "5")
    content = dump_sidecar(Sidecar(stamp, facts_of(shard), {"f": measured}))
    whole = json.loads(content)
    assert (whole["version"], whole["index"]["keys"]) == (1, ["a", "c", "d"])
    back = load_sidecar(content, stamp)
    assert same(back.facts, facts_of(shard))
    assert list(back.encoders) == ["f"]
    assert same(back.encoders["f"], measured)
    assert load_sidecar(content, Stamp(stamp.size, "6")) is None
    assert load_sidecar(content, Stamp(stamp.size + 1, "5")) is None


def test_nothing_found_is_read_back_too():
    facts = ShardFacts.of([], Scan([("", "the file is empty")], Counter(), is_tar=False))
    content = dump_sidecar(Sidecar(Stamp(0, "1"), facts, {"f": Measured.of([])}))
    back = load_sidecar(content, Stamp(0, "1"))
    assert same(back.facts, facts)
    assert (back.facts.images.shape, back.facts.records.shape) == ((0, 2), (0, 2))


def test_the_second_start_reads_no_shard(storage, shard, encoder):
    first = index(storage, shard, encoder)
    assert storage.opened == 1
    content = beside(shard).read_bytes()
    second = index(storage, shard, encoder)
    assert storage.opened == 1
    assert beside(shard).read_bytes() == content
    assert same(first.facts, second.facts)
    assert same(first.measured, second.measured)
    assert second.measured.refusals.keys() == {1}
    assert (second.measured.lengths > 0).tolist() == [True, False, True]
    assert index(storage, shard).measured is None  # without an encoder less is asked for
    assert storage.opened == 1
    assert {path.name for path in shard.parent.iterdir()} == {"x.tar", "x.tar.index.json"}


def test_another_encoder_reads_the_records_alone(storage, shard, encoder, monkeypatch):
    index(storage, shard)
    monkeypatch.setattr("lightning_llava.data.indexer.scan_shard", None)
    measured = index(storage, shard, encoder).measured
    shutil.copy2(shard, shard.with_name("y.tar"))
    monkeypatch.undo()
    assert same(measured, index(storage, shard.with_name("y.tar"), encoder).measured)


def test_the_encoders_used_last_are_kept(storage, shard, encoder):
    lengths = {}
    for number in range(KEPT_ENCODERS + 2):
        other = copy.copy(encoder)
        other.image_tokens = 10 + number
        lengths[number] = index(storage, shard, other).measured.lengths[0]
    assert [length - lengths[0] for length in lengths.values()] == list(range(KEPT_ENCODERS + 2))
    kept = json.loads(beside(shard).read_bytes())["index"]["encoders"]
    newest_first = [lengths[number] for number in reversed(range(2, KEPT_ENCODERS + 2))]
    assert [entry["lengths"][0] for entry in kept.values()] == newest_first


def resigned(index):
    """A sidecar whose digest is right, whoever changed what it says."""
    body = json.dumps(index, separators=(",", ":"))
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{{"version":1,"sha256":"{digest}","index":{body}}}\n'.encode()


def changed(*path_and_value):
    *path, last, value = path_and_value

    def change(index):
        inner = index
        for step in path:
            inner = inner[step]
        inner[last] = value

    return change


def encoders_of(index):
    return next(iter(index["encoders"].values()))


NONSENSE = {
    "extent behind the end": changed("records", 0, [10**9, 5]),
    "extent over the end": changed("images", 0, 1, 10**9),
    "extent that overflows": changed("images", 0, [5, 2**63 - 1]),
    "number beyond 64 bits": changed("images", 0, [5, 2**70]),
    "negative": changed("records", 0, 0, -512),
    "fraction": changed("records", 0, 0, 512.5),
    "text for a number": changed("records", 0, 0, "512"),
    "a number for a text": changed("keys", 0, 5),
    "a key twice": changed("keys", 0, "c"),
    "a row too few": changed("languages", ["ru", "ru"]),
    "an image too many": changed("num_images", 0, 2),
    "no list": changed("pairs", 3),
    "nothing": changed("characters", None),
    "ragged": changed("image_sizes", 0, [1]),
    "quarantine of three": changed("quarantine", [["b", "x", "y"]]),
    "notes without numbers": changed("notes", {"n": "many"}),
    "another stamp": changed("stamp", {"size": 1, "version": "1", "more": 1}),
    "a length too few": lambda index: encoders_of(index)["lengths"].pop(),
    "a refusal without its sample": lambda index: encoders_of(index).update(refusals={}),
    "no encoders": lambda index: index.pop("encoders"),
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_built_anew(storage, shard, encoder, change):
    first = index(storage, shard, encoder)
    good = beside(shard).read_bytes()
    value = json.loads(good)["index"]
    assert resigned(value) == good
    change(value)
    beside(shard).write_bytes(resigned(value))
    again = index(storage, shard, encoder)
    assert storage.opened == 2
    assert same(again.facts, first.facts)
    assert same(again.measured, first.measured)
    assert beside(shard).read_bytes() == good


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"{}",
        lambda content: b"null",
        lambda content: content[:-40],
        lambda content: content + b" ",
        lambda content: content.replace(b'"version":1', b'"version":2', 1),
        lambda content: content.replace(b"[512,", b"[513,", 1),  # by hand: the digest is wrong
        lambda content: json.dumps(json.loads(content), indent=1).encode(),
        lambda content: resigned([]),
        lambda content: b"\xff" * 300,
    ],
)
def test_what_is_not_as_it_was_written_is_built_anew(storage, shard, spoil):
    index(storage, shard)
    good = beside(shard).read_bytes()
    spoilt = spoil(good)
    assert spoilt != good
    beside(shard).write_bytes(spoilt)
    assert index(storage, shard).facts.keys == ["a", "c", "d"]
    assert storage.opened == 2
    assert beside(shard).read_bytes() == good


def test_a_changed_shard_is_read_again(storage, shard):
    assert index(storage, shard).facts.keys == ["a", "c", "d"]
    write_tar(shard, ("new.json", ONE), ("new.png", picture(0)))
    assert index(storage, shard).facts.keys == ["new"]
    # Same size, another time.
    write_tar(shard, ("old.json", ONE), ("old.png", picture(0)))
    os.utime(shard, ns=(1, 1))
    assert index(storage, shard).facts.keys == ["old"]
    assert storage.opened == 3


def test_a_shard_that_changes_meanwhile_is_not_kept(storage, shard, monkeypatch):
    def opened_too_early(path):
        stream = ShardStorage.open(storage, path)
        os.utime(path, ns=(1, 1))
        return stream

    monkeypatch.setattr(storage, "open", opened_too_early)
    found = index(storage, shard)
    assert found.facts.keys == []
    assert found.left_out() == [("", "the shard changed while it was indexed")]
    assert not beside(shard).exists()


def test_full_decoding_is_remembered(storage, tmp_path):
    cut = picture(2, (64, 64), "JPEG")[:-300]
    shard = write_tar(tmp_path / "x.tar", ("a.json", ONE), ("a.jpg", cut), ("b.json", EMPTY))
    assert index(storage, shard).facts.keys == ["a", "b"]
    assert index(storage, shard, decode=True).facts.keys == ["b"]
    assert storage.opened == 2
    # Known now, also to those who did not ask.
    assert index(storage, shard, decode=True).facts.keys == ["b"]
    assert index(storage, shard).facts.keys == ["b"]
    assert storage.opened == 2


def test_beside_a_shard_or_else_in_the_cache(storage, shard, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    index(storage, shard)
    assert not beside(shard).exists()
    assert storage.sidecar(str(shard)).parent == storage.cache_dir / "indexes"
    index(storage, shard)
    assert storage.opened == 1
    # One that came with the shard is good, too.
    storage.sidecar(str(shard)).rename(beside(shard))
    index(storage, shard)
    assert storage.opened == 1


def test_without_a_place_the_index_is_in_memory(storage, shard, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    assert index(storage, shard).facts.keys == ["a", "c", "d"]
    assert {path.name for path in shard.parent.iterdir()} == {"x.tar"}
    (line,) = caplog.messages
    assert line == (
        "data: the indexes of 1 shards could not be kept, so the next start reads them again; "
        "first: [Errno 28] No space left on device"
    )


def test_a_write_that_is_cut_off_leaves_the_old_file(shard, monkeypatch):
    path = beside(shard)
    old = Sidecar(Stamp(1, "1"), ShardFacts.of([], Scan()))
    write_sidecar(path, old)
    before = path.read_bytes()

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_sidecar(path, Sidecar(Stamp(2, "2"), ShardFacts.of([], Scan())))
    assert path.read_bytes() == before
    assert {entry.name for entry in shard.parent.iterdir()} == {"x.tar", path.name}


def test_what_is_no_tar_gets_no_file_beside_it(storage, tmp_path):
    (tmp_path / "notes.txt").write_text("no tar")
    found = index(storage, tmp_path / "notes.txt")
    assert found.left_out() == [("", "not a tar (begins with b'no tar')")]
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


def test_many_writers_of_one_file(shard):
    """As the ranks of a run do: every reader sees one of the files, whole."""
    path, facts = beside(shard), facts_of(shard)
    stamps = [Stamp(shard.stat().st_size, str(number)) for number in range(20)]
    write_sidecar(path, Sidecar(stamps[0], facts))
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write_sidecar, path, Sidecar(stamp, facts)) for stamp in stamps]
        while not all(write.done() for write in writes):
            content = path.read_bytes()
            assert any(load_sidecar(content, stamp) for stamp in stamps)
        assert [write.result() for write in writes] == [None] * 20
    assert {entry.name for entry in shard.parent.iterdir()} == {"x.tar", path.name}
