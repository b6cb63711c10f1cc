import dataclasses
import io
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import picture, record, says, write_tar
from PIL import Image
from transformers import CLIPImageProcessorPil

from lightning_llava.batch import Batch
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import build_index
from lightning_llava.data.loader import PackDataset, PositionSampler, training_loader
from lightning_llava.data.plan import Plan
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.workers import worker_context
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.specs import SourceSpec, VisionSpec

PACK_TOKENS = 120
SAMPLES = 12


@pytest.fixture
def shard(tmp_path):
    """Every third sample is text alone; answers differ in length."""
    return write_tar(tmp_path / "a.tar", *members())


def members(answer="Yes. "):
    found = []
    for number in range(SAMPLES):
        images = int(number % 3 > 0)
        turns = says("<image>\n" * images + f"Question {number}?", answer * (1 + number))
        found.append((f"{number}.json", record(f"id {number}", turns, images)))
        if images:
            found.append((f"{number}.png", picture(number, (20 + number, 40))))
    return found


@pytest.fixture
def make(shard, encoder, clip):
    def make_dataset(seed=0, pack_tokens=PACK_TOKENS):
        spec = VisionSpec(name=str(clip))
        geometry = vision_geometry(load_vision_config(spec), spec)
        assert geometry.image_tokens == encoder.image_tokens
        storage = ShardStorage()
        index = build_index({"test": SourceSpec(shards=str(shard))}, encoder, storage)
        plan = Plan(index.lengths, index.source_numbers, [1.0], pack_tokens, seed)
        transform = ImageTransform(spec, "square")
        return PackDataset(index, storage, plan, encoder, transform, geometry)

    return make_dataset


def test_samples_are_read_at_least_once(make):
    parts = make()
    given = (parts.index, parts.storage, parts.plan, parts.encoder, parts.transform)
    with pytest.raises(SettingError, match=r"data\.read_attempts is 0, expected 1 or more"):
        PackDataset(*given, parts.geometry, read_attempts=0)


def assert_same(first: Batch, second: Batch):
    for field in dataclasses.fields(Batch):
        left, right = getattr(first, field.name), getattr(second, field.name)
        same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
        assert same, field.name


def test_a_batch_holds_its_planned_samples(make, shard, encoder, clip):
    dataset = make()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    raw = dict(members())
    for number in range(dataset.plan.num_packs(0)):
        batch, planned = dataset[number], dataset.plan.micro_batch(number).tolist()
        assert batch.sample_ids == [f"test/id {sample}" for sample in planned]
        assert batch.cu_seqlens.diff().tolist() == [dataset.plan.lengths[s] for s in planned]
        assert batch.input_ids.shape[1] <= PACK_TOKENS
        shown = [s for s in planned if s % 3]
        assert len(batch.pixel_values) == len(shown)
        assert (batch.input_ids == -200).sum() == 16 * len(shown)
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        for pixels, sample in zip(batch.pixel_values, shown, strict=True):
            expected = processor(Image.open(io.BytesIO(raw[f"{sample}.png"])), **options)
            np.testing.assert_array_equal(pixels.numpy(), expected["pixel_values"][0])


def test_supervised_tokens_are_the_answers(make, encoder):
    dataset = make()
    batch = dataset[0]
    bounds = pairwise(batch.cu_seqlens.tolist())
    for sample, (start, end) in zip(dataset.plan.micro_batch(0), bounds, strict=True):
        labels = batch.labels[0, start:end]
        answer = encoder.tokenizer.decode(labels[labels != -100])
        assert answer.split() == ["Yes."] * (1 + sample) + ["</s>"]


@pytest.mark.parametrize(("num_workers", "processes"), [(0, 1), (2, 1), (2, 2)])
def test_same_batches_in_any_order_and_from_any_worker(make, num_workers, processes):
    dataset, total = make(), 10
    assert dataset.plan.num_packs(0) < total  # on into the second epoch
    sampler = PositionSampler(total, 0, 1, lambda: 0)
    context = worker_context(num_workers, processes)
    found = list(training_loader(dataset, sampler, num_workers, False, context))
    fresh = make()
    for number in reversed(range(total)):
        assert_same(found[number], fresh[number])


def test_random_seed_depends_on_seed_and_number_alone(make):
    seeds = [make()[number].rng_seed for number in range(10)]
    assert len(set(seeds)) == 10
    # Other packs, same seeds; another seed, other seeds.
    assert [make(pack_tokens=200)[number].rng_seed for number in range(10)] == seeds
    assert not set(seeds) & {make(seed=1)[number].rng_seed for number in range(10)}
    assert all(0 <= seed < 2**32 for seed in seeds)  # what numpy and torch take


def test_one_rank_takes_all():
    sampler = PositionSampler(6, rank=0, world=1, consumed=lambda: 0)
    assert list(sampler) == [0, 1, 2, 3, 4, 5]
    assert len(sampler) == 6


def test_two_ranks_take_every_second():
    samplers = [PositionSampler(6, rank, 2, lambda: 0) for rank in range(2)]
    assert [list(sampler) for sampler in samplers] == [[0, 2, 4], [1, 3, 5]]
    assert [len(sampler) for sampler in samplers] == [3, 3]


def test_resumes_from_what_is_consumed_when_it_starts():
    consumed = 0
    samplers = [PositionSampler(12, rank, 2, lambda: consumed) for rank in range(2)]
    consumed = 4  # a checkpoint is loaded after the loader was made
    assert [list(sampler) for sampler in samplers] == [[4, 6, 8, 10], [5, 7, 9, 11]]
    assert [len(sampler) for sampler in samplers] == [6, 6]  # the whole run all the same
    alone = PositionSampler(12, 0, 1, lambda: consumed)  # on other hardware, the same rest
    assert list(alone) == sorted(n for sampler in samplers for n in sampler)
    consumed = 12
    assert [list(sampler) for sampler in samplers] == [[], []]


@pytest.fixture
def pauses(monkeypatch):
    """Pauses between attempts, in seconds; nobody waits for them."""
    found = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def assert_blank(dataset, intact, bad: set[int], reason: str):
    """All as planned, but for blanks in place of the bad samples; return what was said of them."""
    said = []
    for number in range(dataset.plan.num_packs(0)):
        batch, before = dataset[number], intact[number]
        planned = dataset.plan.micro_batch(number).tolist()
        assert torch.equal(batch.cu_seqlens, before.cu_seqlens)
        assert torch.equal(batch.position_ids, before.position_ids)
        assert batch.rng_seed == before.rng_seed
        bounds = pairwise(batch.cu_seqlens.tolist())
        for place, (sample, (start, end)) in enumerate(zip(planned, bounds, strict=True)):
            if sample in bad:
                assert batch.sample_ids[place] == f"test/a.tar/{sample}"
                assert (batch.labels[0, start:end] == -100).all()
                assert (batch.input_ids[0, start:end] >= 0).all()
            else:
                assert batch.sample_ids[place] == before.sample_ids[place]
                assert torch.equal(batch.labels[0, start:end], before.labels[0, start:end])
                assert torch.equal(batch.input_ids[0, start:end], before.input_ids[0, start:end])
        assert len(batch.pixel_values) == sum(s % 3 > 0 and s not in bad for s in planned)
        assert len(batch.substituted) == len(bad.intersection(planned))
        said += batch.substituted
    assert len(said) == len(bad)
    assert all(reason in line for line in said)
    return said


EVERY = set(range(SAMPLES))


def read_all(dataset):
    return [dataset[number] for number in range(dataset.plan.num_packs(0))]


def test_a_shard_shifted_since_indexing(make, shard: Path, pauses):
    intact, dataset = read_all(make()), make()
    write_tar(shard, ("new.json", b"{}"), *members())
    said = assert_blank(dataset, intact, EVERY, "changed since")
    assert sorted(said)[0].startswith(f"shard {shard}, sample 0: ")


def test_a_shard_cut_since_indexing(make, shard: Path, pauses):
    intact, dataset = read_all(make()), make()
    shard.write_bytes(shard.read_bytes()[:4096])
    assert_blank(dataset, intact, EVERY, "changed since")


def test_a_shard_deleted_since_indexing(make, shard: Path, pauses):
    intact, dataset = read_all(make()), make()
    shard.unlink()
    assert_blank(dataset, intact, EVERY, "No such file")
    assert pauses == [0.2, 0.4, 0.8] * SAMPLES


def test_a_record_of_another_length(make, shard: Path, pauses):
    """The same file by size and time, other text: only the plan's length tells."""
    intact, dataset = read_all(make()), make()
    before = shard.stat()
    content = shard.read_bytes()
    assert content.count(b"Question 4?") == 1
    shard.write_bytes(content.replace(b"Question 4?", b"Qzx!;:,.~#$"))
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_blank(dataset, intact, {4}, "when it was indexed: the shard changed since")


def test_an_image_that_cannot_be_decoded(make, shard: Path, pauses):
    """Its header is whole, so that the index takes it."""
    intact = read_all(make())
    raw = dict(members())
    shard.unlink()
    half = raw["4.png"][: len(raw["4.png"]) // 2]
    write_tar(shard, *[(n, c if n != "4.png" else half) for n, c in members()])
    assert_blank(make(), intact, {4}, "the image cannot be decoded")


def test_a_read_that_fails_twice_and_then_works(make, monkeypatch, pauses):
    intact, dataset = read_all(make()), make()
    read, failures = dataset.storage.read_parts, []

    def flaky(shard, extents, stamp=None):
        if len(failures) < 2:
            failures.append(extents)
            raise OSError("the network went away")
        return read(shard, extents, stamp)

    monkeypatch.setattr(dataset.storage, "read_parts", flaky)
    for number, batch in enumerate(intact):
        assert_same(dataset[number], batch)
    assert pauses == [0.2, 0.4]
