import copy
import tarfile

import numpy as np
import pytest
from handmade import picture, record, says, write_tar

from lightning_llava.data.index import build_index, expand_shards
from lightning_llava.data.schema import Sample
from lightning_llava.data.shards import write_shards
from lightning_llava.errors import SettingError
from lightning_llava.specs import SourceSpec
from lightning_llava.text.turns import Turn

GOOD = record("good", says("Hi", "Hello"))
QUESTION = says("<image>\nWhat is it?", "A cat.")


def index_of(encoder, *paths):
    return build_index({"test": SourceSpec(shards=[str(path) for path in paths])}, encoder)


def bytes_in_tar(path, name):
    with tarfile.open(path) as tar:
        return tar.extractfile(name).read()


def refusals(folder, encoder, *members):
    """Index one bad sample behind a good one; return what is said of it."""
    path = write_tar(folder / "a.tar", ("good.json", GOOD), *members)
    index = index_of(encoder, path)
    assert [sample.key for sample in index.samples] == ["good"]
    (line,) = index.refused
    prefix, reason = f"shard {path}, sample bad: ", line.partition("sample bad: ")[2]
    assert line == prefix + reason
    assert index.reasons == {f"test: {reason}": 1}
    return reason


def test_extents_are_what_tarfile_reads(tmp_path, encoder):
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
    assert [sample.key for sample in index.samples] == ["one", "two"]
    whole = path.read_bytes()
    for sample, names in zip(index.samples, (["one.png"], ["two.0.png", "two.1.png"]), strict=True):
        extents = [sample.record, *sample.images]
        found = [whole[offset : offset + size] for offset, size in extents]
        assert found == [bytes_in_tar(path, name) for name in (f"{sample.key}.json", *names)]
    assert index.samples[1].read().images == images[1:]
    assert index.samples[1].read().id == "two"
    assert (index.refused, index.dropped_turns) == ([], 0)


def test_reads_back_what_the_writer_wrote(tmp_path, encoder):
    samples = [
        Sample(
            str(number), [Turn("user", "<image>\n?"), Turn("assistant", "Да.")], [picture(number)]
        )
        for number in range(5)
    ]
    shards = write_shards(samples, tmp_path, "train", max_samples=2)
    index = index_of(encoder, *shards)
    assert [sample.read() for sample in index.samples] == samples
    assert [sample.shard for sample in index.samples] == [str(shards[i // 2]) for i in range(5)]


def test_length_counts_expanded_images(tmp_path, encoder):
    path = write_tar(
        tmp_path / "a.tar", ("a.json", record("a", QUESTION, 1)), ("a.png", picture(0))
    )
    (sample,) = index_of(encoder, path).samples
    chunks = ["[INST] ", "\nWhat is it? [/INST] A cat. "]
    ids = [encoder.tokenizer(chunk, add_special_tokens=False)["input_ids"] for chunk in chunks]
    bos_and_eos, image = 2, 16
    assert sample.length == bos_and_eos + image + sum(map(len, ids))


def test_images_are_ordered_by_number(tmp_path, encoder):
    images = [picture(number) for number in range(11)]
    turns = says("<image>" * 11 + "How many?", "11")
    by_name = sorted(range(11), key=str)  # 0, 1, 10, 2, …
    members = [(f"a.{number}.png", images[number]) for number in by_name]
    path = write_tar(tmp_path / "a.tar", ("a.json", record("a", turns, 11)), *members)
    (sample,) = index_of(encoder, path).samples
    assert sample.read().images == images


def test_image_kinds_and_folders(tmp_path, encoder):
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
    members = []
    for extension, kind in kinds.items():
        stem = f"./part.1/{extension}"  # as `tar -cf a.tar .` writes it; a folder may have a dot
        members += [(f"{stem}.{extension}", picture(0, kind=kind))]
        members += [(f"{stem}.json", record(extension, QUESTION, 1))]
    index = index_of(encoder, write_tar(tmp_path / "a.tar", *members))
    assert [sample.key for sample in index.samples] == [f"./part.1/{name}" for name in kinds]
    assert [sample.read().images for sample in index.samples] == [
        [picture(0, kind=kind)] for kind in kinds.values()
    ]


def test_order_of_sources_shards_and_members(tmp_path, encoder):
    for name, keys in (("b-1", "ba"), ("b-0", "dc"), ("a-0", "e")):
        write_tar(tmp_path / f"{name}.tar", *[(f"{key}.json", GOOD) for key in keys])
    sources = {
        "second": SourceSpec(shards=str(tmp_path / "b-*.tar")),
        "first": SourceSpec(shards=[str(tmp_path / "a-0.tar")]),
    }
    index = build_index(sources, encoder)
    assert "".join(sample.key for sample in index.samples) == "dcbae"
    assert [sample.source for sample in index.samples] == ["second"] * 4 + ["first"]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "not a record of this schema (JSONDecodeError: "),
        (record("a", says("Hi", "Hi"), version=3), "schema version 3, expected 1"),
        (
            record("a", says("Hi", " \n")),
            "turn 1: the answer is empty; drop the pair or fill it in",
        ),
        (record("a", says("Hi", "Hi", "Bye")), "turns are ['user', 'assistant', 'user']…, "),
        (record("a", [says("Hi")[0]] * 2), "turns are ['user', 'user']…, "),
        (record("a", []), "no turns"),
        (record("a", says("<image>", "Hi")), "1 <image> placeholders but 0 images"),
        (record("a", QUESTION, 1), "0 images in the shard, but the record was written with 1"),
        (record("a", says("\ud83d", "Hi")), "not a record of this schema (UnicodeEncodeError: "),
    ],
)
def test_bad_records_are_left_out(tmp_path, encoder, payload, reason):
    assert refusals(tmp_path, encoder, ("bad.json", payload)).startswith(reason)


def test_samples_with_bad_members_are_left_out(tmp_path, encoder):
    image, json = ("bad.png", picture(0)), ("bad.json", record("a", QUESTION, 1))
    missing = refusals(tmp_path, encoder, image)
    assert missing == "the .json member is missing"
    too_many = refusals(tmp_path, encoder, json, ("bad.0.png", b""), ("bad.1.png", b""))
    assert too_many == "2 images in the shard, but the record was written with 1"
    assert refusals(tmp_path, encoder, image, json, image) == "a member is there twice"


def test_reasons_are_counted_per_source(tmp_path, encoder):
    empty = record("a", says("Hi", ""))
    for name in "ab":
        members = [("0.json", GOOD), ("1.json", empty), ("2.json", empty), ("3.png", b"")]
        write_tar(tmp_path / f"{name}.tar", *members)
    sources = {name: SourceSpec(shards=str(tmp_path / f"{name}.tar")) for name in "ab"}
    index = build_index(sources, encoder)
    reason = "turn 1: the answer is empty; drop the pair or fill it in"
    missing = "the .json member is missing"
    assert index.reasons == {
        f"a: {reason}": 2,
        f"a: {missing}": 1,
        f"b: {reason}": 2,
        f"b: {missing}": 1,
    }
    assert index.refused[0] == f"shard {tmp_path / 'a.tar'}, sample 1: {reason}"
    assert len(index.refused) == 6


def test_long_conversations_lose_whole_turns(tmp_path, encoder):
    pairs = [text for number in range(4) for text in (f"Question {number}?", f"Answer {number}.")]
    members = [("long.json", record("long", says(*pairs))), ("short.json", GOOD)]
    path = write_tar(tmp_path / "a.tar", *members)
    whole, good = (sample.length for sample in index_of(encoder, path).samples)
    shorter = copy.copy(encoder)
    shorter.max_length = whole // 2
    index = index_of(shorter, path)
    # Every pair takes the same number of tokens, and <s> is one: half is one pair and a piece.
    assert (whole - 1) % 4 == 0
    assert [sample.length for sample in index.samples] == [1 + (whole - 1) // 4, good]
    assert index.dropped_turns == 6
    shorter.max_length = good
    with pytest.raises(SettingError, match=r"no usable sample .*raise model\.language\.max_len"):
        index_of(shorter, write_tar(tmp_path / "b.tar", members[0]))


def test_a_source_without_a_usable_sample_shows_its_own_first_problem(tmp_path, encoder):
    bad = [("0.png", b""), ("1.json", b"{")]
    write_tar(tmp_path / "a.tar", ("0.json", b"other"), ("1.json", GOOD))
    write_tar(tmp_path / "b.tar", *bad)
    sources = {name: SourceSpec(shards=str(tmp_path / f"{name}.tar")) for name in "ab"}
    with pytest.raises(SettingError) as error:
        build_index(sources, encoder)
    assert str(error.value) == (
        "data.sources.b: no usable sample in its shards; the first problem: "
        f"shard {tmp_path / 'b.tar'}, sample 0: the .json member is missing"
    )


def test_a_source_without_samples(tmp_path, encoder):
    path = write_tar(tmp_path / "a.tar", ("readme.txt", b"nothing here"))
    message = r"^data.sources.test: no usable sample .*: the shards hold no sample at all$"
    with pytest.raises(SettingError, match=message):
        index_of(encoder, path)
    with pytest.raises(SettingError, match=r"^data.sources is empty; stack a file of configs/data"):
        build_index({}, encoder)


@pytest.mark.parametrize("pattern", ["nowhere-*.tar", ""])
def test_a_pattern_that_matches_nothing(tmp_path, pattern, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar")
    spec = SourceSpec(shards=["a.tar", pattern])
    message = rf"^data.sources.vqa.shards: nothing matches '{pattern}' in {tmp_path}; expected Web"
    with pytest.raises(SettingError, match=message.replace("*", r"\*")):
        expand_shards("vqa", spec)


def test_shards_are_sorted_within_a_pattern_and_follow_the_list(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a-1.tar", "a-0.tar", "b.tar", "a-2.txt"):
        (tmp_path / name).touch()
    spec = SourceSpec(shards=["~/b.tar", "~/a-*.tar"])
    expected = [str(tmp_path / name) for name in ("b.tar", "a-0.tar", "a-1.tar")]
    assert expand_shards("vqa", spec) == expected
    assert expand_shards("vqa", SourceSpec(shards="~/b.tar")) == expected[:1]


def cut_at_member(whole):
    return whole[:1024]  # header and content of the first member


def cut_in_header(whole):
    return whole[:1300]


def garbage_header(whole):
    return whole[:1024] + np.random.default_rng(0).bytes(512) + whole[1536:]


def two_in_one(whole):
    return whole + whole


@pytest.mark.parametrize("damage", [cut_at_member, cut_in_header, garbage_header, two_in_one])
def test_tars_that_tarfile_takes_without_a_word(tmp_path, encoder, damage):
    path = write_tar(tmp_path / "a.tar", ("a.json", GOOD), ("b.json", GOOD))
    assert len(index_of(encoder, path).samples) == 2
    path.write_bytes(damage(path.read_bytes()))
    with tarfile.open(path) as tar:
        silent = tar.getnames()
    assert silent in (["a.json"], ["a.json", "b.json"])
    with pytest.raises(SettingError, match=rf"^shard {path}: damaged or cut short at byte \d+, "):
        index_of(encoder, path)


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_no_tar(tmp_path, encoder, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(SettingError, match=rf"^shard {tmp_path}/a.tar: not a readable tar \(.+\)$"):
        index_of(encoder, tmp_path / "a.tar")
