from collections import Counter
from itertools import islice

import pytest
import torch
from handmade import picture, record, says, write_tar
from range_server import RangeServer
from torch.utils.data import DataLoader

from lightning_llava.data import remote, streaming
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.streaming import StreamDataset
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.specs import SourceSpec, VisionSpec

SHARDS, PER_SHARD, PACK_TOKENS = 4, 8, 200
TOTAL = SHARDS * PER_SHARD


def sample(name, answer="Yes."):
    image = int(name) % 4 == 0
    turns = says("<image>\n" * image + f"Question {name}?", answer)
    members = [(f"{name}.json", record(f"id {name}", turns, int(image)))]
    return [*members, (f"{name}.png", picture(int(name)))] if image else members


@pytest.fixture
def folder(tmp_path):
    for shard in range(SHARDS):
        numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        members = [member for n in numbers for member in sample(str(n), "Yes. " * (1 + n % 5))]
        write_tar(tmp_path / f"s-{shard}.tar", *members)
    return tmp_path


@pytest.fixture
def make(folder, encoder, clip):
    spec = VisionSpec(name=str(clip))
    geometry = vision_geometry(load_vision_config(spec), spec)
    transform = ImageTransform(spec, "square")

    def make_dataset(sources=None, pack_tokens=PACK_TOKENS, seed=0, **layout):
        return StreamDataset(
            sources or {"test": SourceSpec(shards=str(folder / "s-*.tar"))},
            ShardStorage(str(folder / "cache")),
            encoder,
            transform,
            geometry,
            pack_tokens,
            seed,
            **layout,
        )

    return make_dataset


@pytest.fixture
def one_shard(tmp_path, make):
    """A dataset over a single shard of these members."""

    def made(*members):
        path = write_tar(tmp_path / "one.tar", *members)
        return make({"one": SourceSpec(shards=str(path))})

    return made


def take(batches, number):
    """Read this many samples, by whole batches; return their ids and the faults."""
    ids, faults = [], []
    for batch in islice(batches, 10 * number):
        ids += batch.sample_ids
        faults += batch.substituted
        if len(ids) >= number:
            return ids, faults
    raise AssertionError("the stream ended")


def names(*numbers):
    return [f"test/id {number}" for number in numbers]


def test_every_sample_of_a_pass_comes_once(make, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", TOTAL)
    stream = iter(make())
    passes = [take(stream, TOTAL)[0] for _ in range(3)]
    for ids in passes:
        assert sorted(ids) == sorted(names(*range(TOTAL)))
    assert passes[0] != passes[1] != passes[2]
    assert take(make(), TOTAL)[0] == passes[0]
    assert take(make(seed=1), TOTAL)[0] != passes[0]
    resumed = make()
    resumed.position = 7
    assert take(resumed, TOTAL)[0] not in passes


def test_packs_are_full_and_hold_what_lies_in_the_shards(make, encoder):
    batches = list(islice(make(), 20))
    for batch in batches:
        tokens = batch.input_ids.shape[1]
        assert batch.cu_seqlens.tolist()[-1] == tokens <= PACK_TOKENS
        numbers = [int(name.removeprefix("test/id ")) for name in batch.sample_ids]
        shown = sum(number % 4 == 0 for number in numbers)
        assert len(batch.pixel_values) == shown
        assert (batch.input_ids == -200).sum() == 16 * shown
        for i, number in enumerate(numbers):
            start, end = batch.cu_seqlens[i : i + 2].tolist()
            labels = batch.labels[0, start:end]
            answer = encoder.tokenizer.decode(labels[labels != -100])
            assert answer.split() == ["Yes."] * (1 + number % 5) + ["</s>"]
    filled = [batch.input_ids.shape[1] / PACK_TOKENS for batch in batches]
    assert sum(filled) / len(filled) > 0.9
    seeds = [batch.rng_seed for batch in batches]
    assert len(set(seeds)) == 20
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds == [batch.rng_seed for batch in islice(make(), 20)]


def test_pixels_are_the_transform_s(make):
    dataset = make()
    for batch in islice(dataset, 5):
        numbers = [int(name.removeprefix("test/id ")) for name in batch.sample_ids]
        shown = [number for number in numbers if number % 4 == 0]
        for pixels, number in zip(batch.pixel_values, shown, strict=True):
            assert torch.equal(pixels, dataset.transform(picture(number)))


def test_two_workers_share_a_pass(make, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", TOTAL // 2)
    loader = DataLoader(make(num_workers=2), batch_size=None, num_workers=2)
    batches = list(islice(loader, 40))  # in turn from either worker
    for turn in range(2):
        halves = []
        for worker in range(2):
            ids = [name for batch in batches[worker::2] for name in batch.sample_ids]
            halves += ids[turn * TOTAL // 2 :][: TOTAL // 2]
        assert sorted(halves) == sorted(names(*range(TOTAL)))
    assert len({batch.rng_seed for batch in batches}) == 40


def test_two_ranks_are_disjoint(make, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", TOTAL // 2)
    streams = [make(rank=rank, world=2) for rank in range(2)]
    first, second = (set(take(stream, TOTAL // 2)[0]) for stream in streams)
    assert not first & second
    assert first | second == set(names(*range(TOTAL)))
    seeds = [{batch.rng_seed for batch in islice(stream, 10)} for stream in streams]
    assert not seeds[0] & seeds[1]


def test_uneven_shards_never_end_a_rank(make, folder, monkeypatch):
    (folder / "s-3.tar").unlink()
    monkeypatch.setattr(streaming, "WINDOW", 64)
    seen = Counter()
    for rank in range(2):
        ids, _ = take(make(rank=rank, world=2), 64 * 30)
        seen.update(ids)
    assert len(seen) == 24
    assert max(seen.values()) < 1.5 * min(seen.values())


@pytest.mark.parametrize("layout", [{"world": 5}, {"world": 3, "num_workers": 2}])
def test_fewer_shards_than_workers_are_refused(make, layout):
    with pytest.raises(SettingError, match=r"data\.sources\.test: 4 shards .* lower data\.num_wo"):
        make(**layout)


def test_a_weight_is_a_ratio_of_probabilities(make, folder):
    sources = {
        "many": SourceSpec(shards=str(folder / "s-[012].tar")),
        "few": SourceSpec(shards=str(folder / "s-3.tar"), weight=3),
        "none": SourceSpec(shards=str(folder / "nothing.tar"), weight=0),
    }
    ids, _ = take(make(sources), 2000)
    share = Counter(name.partition("/")[0] for name in ids)
    assert share.keys() == {"many", "few"}
    assert 0.70 < share["few"] / len(ids) < 0.80  # 3 of 4; the standard deviation is 0.01


@pytest.mark.parametrize(
    ("weights", "message"),
    [([-1, 1], "expected numbers from 0 up"), ([0, 0], "leave no source"), ([], "leave no source")],
)
def test_weights_that_are_none(make, folder, weights, message):
    shards = str(folder / "s-*.tar")
    sources = {str(i): SourceSpec(shards=shards, weight=w) for i, w in enumerate(weights)}
    with pytest.raises(SettingError, match=message):
        make(sources or {"a": SourceSpec(shards=shards, weight=0)})


def test_a_pattern_without_shards_and_a_shell_command(make):
    with pytest.raises(SettingError, match=r"data\.sources\.x\.shards: nothing matches"):
        make({"x": SourceSpec(shards="none-*.tar")})
    with pytest.raises(SettingError, match="would run a shell command"):
        make({"x": SourceSpec(shards="pipe:cat x.tar")})


def test_bad_samples_are_skipped_and_named(one_shard):
    dataset = one_shard(
        *sample("0"),
        ("1.json", b"{"),
        ("2.png", picture(2)),
        ("3.json", record("id 3", says("<image>\nWhat?", "Yes."), 1)),
        ("4.json", record("id 4", says("What?", "Yes."))),
        ("4.json", record("id 4", says("What?", "No."))),
        ("5.json", record("id 5", says("<image>\nWhat?", "Yes."), 1)),
        ("5.png", picture(5)[:60]),
        ("6.json", record("id 6", says("What?", "Yes. " * 99))),
        ("7.pyd", b"cos\nsystem\n(S'touch /tmp/owned'\ntR."),
    )
    ids, faults = take(dataset, 200)
    assert set(ids) == {"one/id 0"}
    prefix = f"shard {dataset.shards['one'][0]}, sample "
    assert all(fault.startswith(prefix) for fault in faults)
    reasons = {
        key: reason
        for key, _, reason in (fault.removeprefix(prefix).partition(": ") for fault in faults)
    }
    assert reasons.keys() == {"1", "2", "3", "4", "5", "6"}
    assert reasons["1"].startswith("not a record of this schema")
    assert reasons["2"] == "the .json member is missing"
    assert reasons["3"].startswith("0 images in the shard, but the record was written with 1")
    assert reasons["4"].startswith("a member is there twice")
    assert reasons["5"].startswith("the image cannot be decoded")
    assert reasons["6"].startswith("takes more than data.pack_tokens")


def test_faults_travel_once_per_pass(one_shard, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", 2)
    stream = iter(one_shard(*sample("0"), ("1.json", b"{"), *sample("2")))
    counts = [len(next(stream).substituted) for _ in range(8)]
    assert sum(counts) in (8, 9)  # a batch a pass; the next pass may have begun
    assert max(counts) <= 2


@pytest.mark.parametrize(
    ("harm", "kept"),
    [
        (lambda data: data[:1600], [1]),  # in the second record, which begins at byte 1536
        (lambda data: data[:1124], [1]),  # in its header
        (lambda data: data[:1024], [1]),  # between the two samples
        (lambda data: data[:1024] + b"\xff" * 512 + data[1536:], [1]),
        (lambda data: data[:2048], [1, 2]),  # before the blocks that end a tar
    ],
)
def test_damaged_shards_are_named_and_lose_no_more_than_they_must(make, tmp_path, harm, kept):
    path = write_tar(tmp_path / "x.tar", *sample("1"), *sample("2"))
    path.write_bytes(harm(path.read_bytes()))
    ids, faults = take(make({"test": SourceSpec(shards=str(path))}), 1)
    assert set(ids) == set(names(*kept))
    named = [fault for fault in faults if fault.startswith(f"shard {path}: the shard is damaged")]
    assert len(named) * len(kept) == 256  # once in each of the passes that fill the first window


def test_a_cut_record_is_never_joined_with_the_next_shard(make, tmp_path):
    first = write_tar(tmp_path / "a.tar", ("0.png", picture(0)), ("0.json", b"x" * 600))
    first.write_bytes(first.read_bytes()[:-10_000])
    assert len(first.read_bytes()) < 3 * 512 + len(picture(0)) + 1200
    write_tar(tmp_path / "b.tar", ("0.json", record("id 0", says("<image>\nWhat?", "B"), 1)))
    write_tar(tmp_path / "c.tar", *sample("1"))
    ids, faults = take(make({"test": SourceSpec(shards=str(tmp_path / "[abc].tar"))}), 3)
    assert set(ids) == set(names(1))
    assert [fault for fault in faults if "b.tar, sample 0: 0 images in the shard" in fault]


def test_a_shard_that_vanishes_is_named_and_the_run_goes_on(make, folder, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", PER_SHARD)
    stream = iter(make())
    take(stream, TOTAL)
    (folder / "s-2.tar").unlink()
    take(stream, TOTAL)  # it may have been open
    ids, faults = take(stream, 3 * PER_SHARD * 4)
    assert set(ids) == set(names(*(n for n in range(TOTAL) if n // PER_SHARD != 2)))
    assert 3 <= len(faults) <= 5
    assert all("s-2.tar: the shard cannot be read" in fault for fault in faults)


def test_nothing_usable_ends_the_run(one_shard):
    with pytest.raises(SettingError, match=r"nothing usable in 16 shards one .* not a record"):
        next(iter(one_shard(("1.json", b"{"))))
    broken = ("0.png", picture(0)[:60])
    with pytest.raises(SettingError, match=r"nothing usable among 256 samples in .* be decoded"):
        next(iter(one_shard(sample("0")[0], broken)))


def test_one_bad_shard_of_few_never_ends_the_run(make, folder, monkeypatch):
    monkeypatch.setattr(streaming, "WINDOW", 64)
    (folder / "s-0.tar").write_bytes(b"")
    for rank in range(4):  # each is dealt it alone in every fourth pass
        ids, faults = take(make(rank=rank, world=4), 400)
        assert {int(name.split()[1]) // PER_SHARD for name in ids} == {1, 2, 3}
        assert f"shard {folder / 's-0.tar'}: the file is empty" in faults


@pytest.mark.parametrize("ranges", [True, False])
def test_streams_from_a_server(make, folder, monkeypatch, ranges):
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(streaming, "WINDOW", TOTAL)
    with RangeServer() as server:
        server.ranges = ranges
        for path in folder.glob("*.tar"):
            server.files[path.name] = path.read_bytes()
        shards = server.url.replace("//", "//me:secret@") + "/s-{0..3}.tar"
        stream = iter(make({"test": SourceSpec(shards=shards)}))
        ids, faults = take(stream, TOTAL)
        assert (sorted(ids), faults) == (sorted(names(*range(TOTAL))), [])
        del server.files["s-1.tar"]
        _, faults = take(stream, 3 * TOTAL)
        assert faults
        assert all("s-1.tar: the shard cannot be read" in fault for fault in faults)
        assert not [fault for fault in faults if "secret" in fault]
