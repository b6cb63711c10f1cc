import copy
import os
import sys
import tarfile

import numpy as np
import pytest
from handmade import picture, record, says, write_tar
from range_server import RangeServer

from lightning_llava.data import indexer
from lightning_llava.data.index import (
    Quarantined,
    assemble,
    build_index,
    expand_shards,
    read_sample,
)
from lightning_llava.data.indexer import ShardIndex
from lightning_llava.data.location import Stamp
from lightning_llava.data.measure import encoder_fingerprint
from lightning_llava.data.schema import Sample
from lightning_llava.data.shards import write_shards
from lightning_llava.data.sidecar import Measured, ShardFacts
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.specs import SourceSpec
from lightning_llava.text.template import load_template
from lightning_llava.text.turns import Turn

GOOD = record("good", says("Hi", "Hello"))
QUESTION = says("<image>\nWhat is it?", "A cat.")
PNG = picture(0)


@pytest.fixture
def storage(tmp_path):
    return ShardStorage(str(tmp_path / "cache"))


def index_of(encoder, *paths, **options):
    sources = {"test": SourceSpec(shards=[str(path) for path in paths])}
    return build_index(sources, encoder, ShardStorage(), progress=False, **options)


def keys(index):
    return [sample.key for sample in index]


def bytes_in_tar(path, name):
    with tarfile.open(path) as tar:
        return tar.extractfile(name).read()


def test_extents_are_what_tarfile_reads(tmp_path, encoder, storage):
    images = [picture(seed) for seed in range(3)]
    two = record("two", says("<image><image>Same?", "No."), 2)
    path = write_tar(
        tmp_path / "a.tar",
        ("one.png", images[0]),
        ("one.json", record("one", QUESTION, 1)),
        ("notes.txt", b"ignored"),
        ("two.json", two),
        ("two.0.png", images[1]),
        ("one.txt", b"ignored"),
        ("two.1.png", images[2]),
    )
    index = index_of(encoder, path)
    assert keys(index) == ["one", "two"]
    whole = path.read_bytes()
    for sample, names in zip(index, (["one.png"], ["two.0.png", "two.1.png"]), strict=True):
        extents = [sample.record, *sample.images]
        found = [whole[offset : offset + size] for offset, size in extents]
        assert found == [bytes_in_tar(path, name) for name in (f"{sample.key}.json", *names)]
    assert read_sample(storage, index[1]).images == images[1:]
    assert read_sample(storage, index[1]).id == "two"
    assert index.image_sizes.tolist() == [[20, 12]] * 3
    assert (index.quarantine, index.dropped_turns) == ([], {})
    assert index.notes == {"test: members ignored that end in .txt": 2}


def test_reads_back_what_the_writer_wrote(tmp_path, encoder, storage):
    samples = [
        Sample(
            str(number), [Turn("user", "<image>\n?"), Turn("assistant", "Да.")], [picture(number)]
        )
        for number in range(5)
    ]
    shards = write_shards(samples, tmp_path, "train", max_samples=2)
    index = index_of(encoder, *shards)
    assert [read_sample(storage, sample) for sample in index] == samples
    assert [sample.shard for sample in index] == [str(shards[i // 2]) for i in range(5)]
    assert index.languages == {"test": {"en": 5}}


def test_columns_and_samples_say_the_same(tmp_path, encoder):
    two = record("two", says("<image><image>Same?", "No."), 2)
    members = [("a.json", GOOD), ("b.json", two), ("b.0.png", PNG), ("b.1.png", PNG)]
    paths = [write_tar(tmp_path / f"{n}.tar", *members, ("ж.json", GOOD)) for n in "xy"]
    sources = {n: SourceSpec(shards=str(path)) for n, path in zip("xy", paths, strict=True)}
    index = build_index(sources, encoder, ShardStorage(), progress=False)
    assert len(index) == 6
    assert index.sources == ["x", "y"]
    assert keys(index) == ["a", "b", "ж"] * 2
    assert index.source_numbers.tolist() == [0, 0, 0, 1, 1, 1]
    assert index.num_images.tolist() == [0, 2, 0] * 2
    assert index.lengths.tolist() == [sample.length for sample in index]
    assert [len(sample.images) for sample in index] == [0, 2, 0] * 2
    assert [sample.source for sample in index] == list("xxxyyy")
    assert [sample.stamp.size for sample in index] == [
        path.stat().st_size for path in paths for _ in range(3)
    ]
    assert {column.dtype for column in (index.lengths, index.source_numbers, index.num_images)} == {
        np.dtype("int64")
    }
    for number in range(-6, 0):
        assert index[number] == index[number + 6]
    for number in (6, -7):
        with pytest.raises(IndexError, match=f"sample {number} of 6"):
            index[number]


def test_length_counts_expanded_images(tmp_path, encoder):
    path = write_tar(tmp_path / "a.tar", ("a.json", record("a", QUESTION, 1)), ("a.png", PNG))
    (sample,) = index_of(encoder, path)
    chunks = ["[INST] ", "\nWhat is it? [/INST] A cat. "]
    ids = [encoder.tokenizer(chunk, add_special_tokens=False)["input_ids"] for chunk in chunks]
    bos_and_eos, image = 2, 16
    assert sample.length == bos_and_eos + image + sum(map(len, ids))


def test_images_are_ordered_by_number(tmp_path, encoder, storage):
    images = [picture(number) for number in range(11)]
    turns = says("<image>" * 11 + "How many?", "11")
    by_name = sorted(range(11), key=str)  # 0, 1, 10, 2, …
    members = [(f"a.{number}.png", images[number]) for number in by_name]
    path = write_tar(tmp_path / "a.tar", ("a.json", record("a", turns, 11)), *members)
    (sample,) = index_of(encoder, path)
    assert read_sample(storage, sample).images == images


def test_image_kinds_and_folders(tmp_path, encoder, storage):
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
    members = []
    for extension, kind in kinds.items():
        stem = f"./part.1/{extension}"  # as `tar -cf a.tar .` writes it; a folder may have a dot
        members += [(f"{stem}.{extension}", picture(0, kind=kind))]
        members += [(f"{stem}.json", record(extension, QUESTION, 1))]
    index = index_of(encoder, write_tar(tmp_path / "a.tar", *members))
    assert keys(index) == [f"./part.1/{name}" for name in kinds]
    assert [read_sample(storage, sample).images for sample in index] == [
        [picture(0, kind=kind)] for kind in kinds.values()
    ]


def test_order_of_sources_shards_and_members(tmp_path, encoder):
    for name, own in (("b-1", "ba"), ("b-0", "dc"), ("a-0", "e")):
        write_tar(tmp_path / f"{name}.tar", *[(f"{key}.json", GOOD) for key in own])
    sources = {
        "second": SourceSpec(shards=str(tmp_path / "b-*.tar")),
        "first": SourceSpec(shards=[str(tmp_path / "a-0.tar")]),
    }
    index = build_index(sources, encoder, ShardStorage(), progress=False)
    assert "".join(keys(index)) == "dcbae"
    assert [sample.source for sample in index] == ["second"] * 4 + ["first"]


def test_a_shard_of_two_sources(tmp_path, encoder):
    write_tar(tmp_path / "a.tar", ("0.json", GOOD), ("1.png", PNG))
    sources = {name: SourceSpec(shards=str(tmp_path / "a.tar")) for name in "xy"}
    index = build_index(sources, encoder, ShardStorage(), progress=False)
    assert [sample.source for sample in index] == ["x", "y"]
    assert [entry.source for entry in index.quarantine] == ["x", "y"]


def test_reasons_are_counted_per_source(tmp_path, encoder):
    empty = record("a", says("Hi", ""))
    for name in "ab":
        members = [("0.json", GOOD), ("1.json", empty), ("2.json", empty), ("3.png", PNG)]
        broken = [(f"{i}.json", b"{" * i) for i in (4, 5)]
        write_tar(tmp_path / f"{name}.tar", *members, *broken)
    sources = {name: SourceSpec(shards=str(tmp_path / f"{name}.tar")) for name in "ab"}
    index = build_index(sources, encoder, ShardStorage(), progress=False)
    reason = "turn 1: the answer is empty; drop the pair or fill it in"
    missing, broken = "the .json member is missing", "not a record of this schema"
    assert index.reasons == {
        f"{source}: {text}": count
        for source in "ab"
        for text, count in ((reason, 2), (missing, 1), (broken, 2))
    }
    by_key = {entry.key: entry for entry in index.quarantine if entry.source == "b"}
    assert by_key["1"] == Quarantined("b", str(tmp_path / "b.tar"), "1", reason)
    assert str(by_key["1"]) == f"shard {tmp_path / 'b.tar'}, sample 1: {reason}"
    assert sorted(by_key) == ["1", "2", "3", "4", "5"]


def test_long_conversations_lose_whole_turns(tmp_path, encoder):
    pairs = [text for number in range(4) for text in (f"Question {number}?", f"Answer {number}.")]
    members = [("long.json", record("long", says(*pairs))), ("short.json", GOOD)]
    path = write_tar(tmp_path / "a.tar", *members)
    whole, good = index_of(encoder, path).lengths.tolist()
    shorter = copy.copy(encoder)
    shorter.max_length = whole // 2
    index = index_of(shorter, path)
    # Every pair takes the same number of tokens, and <s> is one: half is one pair and a piece.
    assert (whole - 1) % 4 == 0
    assert index.lengths.tolist() == [1 + (whole - 1) // 4, good]
    assert (index.dropped_turns, index.truncated_samples) == ({"test": 6}, {"test": 1})
    shorter.max_length = good
    with pytest.raises(SettingError, match=r"no usable sample .*raise model\.language\.max_len"):
        index_of(shorter, write_tar(tmp_path / "b.tar", members[0]))


def test_a_source_without_a_usable_sample_shows_its_own_first_problem(tmp_path, encoder):
    bad = [("0.png", PNG), ("1.json", b"{")]
    write_tar(tmp_path / "a.tar", ("0.json", b"other"), ("1.json", GOOD))
    write_tar(tmp_path / "b.tar", *bad)
    sources = {name: SourceSpec(shards=str(tmp_path / f"{name}.tar")) for name in "ab"}
    with pytest.raises(SettingError) as error:
        build_index(sources, encoder, ShardStorage(), progress=False)
    assert str(error.value) == (
        "data.sources.b: no usable sample in its shards; the first problem: "
        f"shard {tmp_path / 'b.tar'}, sample 0: the .json member is missing"
    )


def test_a_source_without_samples(tmp_path, encoder, storage):
    path = write_tar(tmp_path / "a.tar", ("readme.txt", b"nothing here"))
    message = r"^data.sources.test: no usable sample .*a\.tar: the shard holds no sample$"
    with pytest.raises(SettingError, match=message):
        index_of(encoder, path)
    with pytest.raises(SettingError, match=r"^data.sources is empty; stack a file of configs/data"):
        build_index({}, encoder, storage)


@pytest.mark.parametrize("pattern", ["nowhere-*.tar", ""])
def test_a_pattern_that_matches_nothing(tmp_path, pattern, monkeypatch, storage):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar")
    message = rf"^data.sources.vqa.shards: nothing matches '{pattern}' in {tmp_path}; expected Web"
    with pytest.raises(SettingError, match=message.replace("*", r"\*")):
        expand_shards("data.sources.vqa.shards", ["a.tar", pattern], storage)
    with pytest.raises(SettingError, match=r"in .*\(it is a folder; ./\*\.tar\?\); expected"):
        expand_shards("x", "./", storage)


def test_a_range_with_a_hole(tmp_path, encoder):
    for number in (0, 2):
        write_tar(tmp_path / f"a-{number}.tar", ("0.json", GOOD))
    message = (
        r"^data.sources.test.shards: 1 of the 3 names in '.*' match nothing, first '.*a-1.tar'"
    )
    with pytest.raises(SettingError, match=message):
        index_of(encoder, tmp_path / "a-{0..2}.tar")


def test_a_shard_named_twice(tmp_path, encoder):
    path = write_tar(tmp_path / "a.tar", ("0.json", GOOD))
    message = rf"^data.sources.test.shards: {path} is named twice; name it once \(a weight of 2 "
    with pytest.raises(SettingError, match=message):
        index_of(encoder, path, tmp_path / "*.tar")


def test_shards_are_sorted_within_a_pattern_and_follow_the_list(tmp_path, monkeypatch, storage):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a-1.tar", "a-0.tar", "b.tar", "a-2.txt", "b.tar.index.json"):
        (tmp_path / name).touch()
    expected = [str(tmp_path / name) for name in ("b.tar", "a-0.tar", "a-1.tar")]
    assert expand_shards("x", ["~/b.tar", "~/a-*.tar"], storage) == expected
    assert expand_shards("x", "~/b.tar*", storage) == expected[:1]


def vanish(path):
    path.unlink()
    path.symlink_to("nowhere")


def tie(path):
    path.unlink()
    path.symlink_to(path.name)


def make_folder(path):
    path.unlink()
    path.mkdir()


def compress(path):
    with tarfile.open(path, "w:gz"):
        pass


DAMAGES = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty", 1),
    "text": (lambda path: path.write_bytes(b"no tar"), "not a tar (begins with b'no tar')", 1),
    "gzip": (compress, "compressed with gzip, expected a plain tar: unpack it", 1),
    "two in one": (
        lambda path: path.write_bytes(path.read_bytes() * 2),
        "the shard is damaged and what follows is lost "
        "(at byte 10240: the file goes on after the end of the tar (is it two in one?))",
        3,
    ),
    "cut": (
        lambda path: os.truncate(path, 1300),
        "the shard is damaged and what follows is lost "
        "(at byte 1024: only 276 of a header's 512 bytes are there)",
        2,
    ),
}


@pytest.mark.parametrize(("damage", "reason", "left"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_shard_stops_nothing(tmp_path, encoder, damage, reason, left):
    good = write_tar(tmp_path / "a.tar", ("0.json", GOOD))
    bad = write_tar(tmp_path / "b.tar", ("0.json", GOOD), ("1.json", GOOD))
    damage(bad)
    index = index_of(encoder, tmp_path / "*.tar")
    assert len(index) == left
    assert index[0].shard == str(good)
    (entry,) = index.quarantine
    assert entry == Quarantined("test", str(bad), "", reason)
    assert index.reasons == {f"test: {reason.partition(' (')[0]}": 1}
    assert str(entry) == f"shard {bad}: {reason}"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (vanish, "No such file or directory"),
        (tie, "Too many levels of symbolic links"),
        (make_folder, "is not a file"),
    ],
)
def test_a_shard_that_is_away_is_not_passed_over(tmp_path, encoder, fault, reason):
    """Nothing is wrong with its samples, and half a data set would be trained on."""
    for name in "ab":
        write_tar(tmp_path / f"{name}.tar", ("0.json", GOOD))
    fault(tmp_path / "b.tar")
    message = rf"1 of 2 shards cannot be reached, first .*b\.tar: .*{reason}.*take them out$"
    with pytest.raises(SettingError, match=message):
        index_of(encoder, tmp_path / "*.tar")


def test_a_shard_that_may_not_be_read(tmp_path, encoder, monkeypatch):
    paths = [write_tar(tmp_path / f"{name}.tar", ("0.json", GOOD)) for name in "ab"]
    original = ShardStorage.open

    def refuse(self, shard):  # root may read anything
        if shard == str(paths[1]):
            raise PermissionError(13, "Permission denied", shard)
        return original(self, shard)

    monkeypatch.setattr(ShardStorage, "open", refuse)
    with pytest.raises(SettingError, match=r"b\.tar: .*\(Permission denied\)"):
        index_of(encoder, *paths)
    monkeypatch.undo()
    assert keys(index_of(encoder, *paths)) == ["0", "0"]  # nothing was kept of the failure


def test_a_cut_shard_and_the_next_one_never_mix(tmp_path, encoder, storage):
    """Webdataset pairs the image of the first with the record of the second."""
    first = write_tar(tmp_path / "a.tar", ("k.png", PNG), ("k.json", record("x", QUESTION, 1)))
    os.truncate(first, 512 + 1024 + 512 + 10)
    write_tar(tmp_path / "b.tar", ("k.json", record("y", QUESTION, 1)), ("k.png", picture(1)))
    index = index_of(encoder, tmp_path / "?.tar")
    assert keys(index) == ["k"]
    sample = read_sample(storage, index[0])
    assert (sample.id, sample.images) == ("y", [picture(1)])
    assert [(entry.shard, entry.key) for entry in index.quarantine] == [
        (str(first), ""),
        (str(first), "k"),
    ]
    assert index.quarantine[1].reason.startswith(
        "stands where the shard is damaged (the content of"
    )


@pytest.mark.slow
def test_the_result_is_the_same_on_any_number_of_processes(tmp_path, encoder, monkeypatch):
    for number in range(5):
        members = [
            (f"{i}.json", record(str(i), says("Is </s> text?", "Hello " * (i + number)), 0))
            for i in range(4)
        ]
        path = write_tar(tmp_path / f"{number}.tar", *members, ("x.png", PNG), ("y.json", b"{"))
        if number == 3:
            os.truncate(path, 3000)
    here = index_of(encoder, tmp_path / "*.tar")
    for sidecar in tmp_path.glob("*.json"):
        sidecar.unlink()
    monkeypatch.setattr(indexer, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(indexer.ShardIndexer, "index", None)  # of this process; others have theirs
    there = index_of(encoder, tmp_path / "*.tar", processes=2)
    assert len(list(tmp_path.glob("*.index.json"))) == 5
    assert list(here) == list(there)
    assert here.quarantine == there.quarantine
    assert here.fingerprint == there.fingerprint
    # Four each, but for one empty answer, and for the shard that ends behind its third.
    assert len(here) == 3 + 4 + 4 + 3 + 4
    assert len(here.quarantine) == 1 + 2 * 4 + 1


def fingerprint_of(encoder, folder, *members, name="a.tar"):
    folder.mkdir(exist_ok=True)
    return index_of(encoder, write_tar(folder / name, *members)).fingerprint


def test_the_fingerprint_is_that_of_the_content_and_not_of_the_folder(tmp_path, encoder):
    members = [("0.json", GOOD), ("1.json", record("1", QUESTION, 1)), ("1.png", PNG)]
    first = fingerprint_of(encoder, tmp_path / "x", *members)
    assert fingerprint_of(encoder, tmp_path / "y", *members) == first
    os.utime(tmp_path / "y" / "a.tar", ns=(5, 5))
    assert index_of(encoder, tmp_path / "y" / "a.tar").fingerprint == first
    changes = [
        [("00.json", GOOD), *members[1:]],  # a key
        [("0.json", record("good", says("Hi", "Hello you"))), *members[1:]],  # a length
        [*members[:2], ("1.png", picture(0, (21, 12)))],  # an image
        [*members[1:], members[0]],  # the order
        members[:1],
    ]
    others = [fingerprint_of(encoder, tmp_path / f"{i}", *c) for i, c in enumerate(changes)]
    others.append(fingerprint_of(encoder, tmp_path / "z", *members, name="b.tar"))
    assert len({first, *others}) == len(changes) + 2


def test_encoders_are_told_apart(encoder):
    first = encoder_fingerprint(encoder)
    assert encoder_fingerprint(copy.copy(encoder)) == first
    others = []
    for name, value in (
        ("max_length", 5),
        ("image_tokens", 5),
        ("system", "Be brief."),
        ("template", load_template("plain")),
        ("tokenizer", copy.deepcopy(encoder.tokenizer)),
    ):
        other = copy.copy(encoder)
        setattr(other, name, value)
        if name == "tokenizer":
            assert encoder_fingerprint(other) == first
            other.tokenizer.add_tokens(["кот"])
        others.append(encoder_fingerprint(other))
    assert len({first, *others}) == 6


def test_a_sample_whose_shard_changed_is_refused(tmp_path, encoder, storage):
    path = write_tar(tmp_path / "a.tar", ("0.json", GOOD))
    (sample,) = index_of(encoder, path)
    assert read_sample(storage, sample).id == "good"
    os.utime(path, ns=(1, 1))
    with pytest.raises(OSError, match="changed since it was indexed"):
        read_sample(ShardStorage(), sample)
    elsewhere = sample._replace(stamp=storage.stamp(str(path)), record=(0, 100))
    with pytest.raises(SettingError, match="not a record of this schema"):
        read_sample(storage, elsewhere)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_sample(ShardStorage(), sample)


def test_memory_of_mix665k():
    """Its numbers of samples and images, in shards of 5000."""
    total = 665_298
    parts = []
    for start in range(0, total, 5000):
        rows = min(5000, total - start)
        counts = (np.arange(rows) % 16 > 0).astype(np.int64)  # 6 % text-only
        facts = ShardFacts(
            keys=[f"{i:09d}" for i in range(start, start + rows)],
            records=np.ones((rows, 2), dtype=np.int64),
            num_images=counts,
            images=np.ones((counts.sum(), 2), dtype=np.int64),
            image_sizes=np.ones((counts.sum(), 2), dtype=np.int64),
            languages=["en"] * rows,
            pairs=counts,
            characters=counts,
        )
        measured = Measured(np.full(rows, 700), np.zeros(rows, dtype=np.int64))
        parts.append(ShardIndex(f"s-{start}.tar", Stamp(1, "1"), facts, measured))
    index = assemble({"mix": parts})
    assert len(index) == total
    assert index[total - 1].key == f"{total - 1:09d}"
    held = sum(value.nbytes for value in vars(index).values() if isinstance(value, np.ndarray))
    assert held + sys.getsizeof(index.keys) < 100e6


def test_remote_shards_without_a_word_of_their_secrets(tmp_path, encoder, storage):
    members = [("0.json", record("0", QUESTION, 1)), ("0.png", PNG), ("1.png", b"")]
    content = write_tar(tmp_path / "a.tar", *members).read_bytes()
    with RangeServer() as server:
        server.files = {"data/a.tar": content, "data/b.tar": content[:1500]}
        urls = [f"{server.url}/data/{name}.tar?token=secret" for name in "ab"]
        sources = {"web": SourceSpec(shards=urls)}
        index = build_index(sources, encoder, storage, progress=False)
        assert keys(index) == ["0"]
        server.requests.clear()
        assert read_sample(storage, index[0]).images == [PNG]
        assert len(server.requests) == 1  # for the record and the image
        told = [str(entry).replace(server.url, "URL") for entry in index.quarantine]
        server.requests.clear()
        again = build_index(sources, encoder, storage, progress=False)
        # A byte each for the version; what is known is not read again.
        assert {asked for _, asked in server.requests} == {"bytes=0-0"}
        del server.files["data/b.tar"]
        with pytest.raises(SettingError, match=r"1 of 2 shards cannot be reached.*\(404\)") as lost:
            build_index(sources, encoder, storage, progress=False)
    assert "secret" not in str(lost.value)
    assert again.fingerprint == index.fingerprint
    assert not any("secret" in line for line in told)
    assert told[0] == "shard URL/data/a.tar?…, sample 1: image 0 is empty"
    assert len(told) == 3
