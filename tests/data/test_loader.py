import dataclasses
import io
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
        index = build_index({"test": SourceSpec(shards=str(shard))}, encoder)
        lengths = np.array([sample.length for sample in index.samples])
        plan = Plan(lengths, lengths * 0, [1.0], pack_tokens, seed)
        return PackDataset(index, plan, encoder, ImageTransform(spec, "square"), geometry)

    return make_dataset


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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_same_batches_in_any_order_and_from_any_worker(make, num_workers):
    dataset, total = make(), 10
    assert dataset.plan.num_packs(0) < total  # on into the second epoch
    loader = training_loader(dataset, PositionSampler(total, 0, 1, lambda: 0), num_workers, False)
    found = list(loader)
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


def error_of(dataset, shard):
    """Read until the changed shard is noticed; return what follows its name."""
    with pytest.raises(SettingError) as error:
        [dataset[number] for number in range(dataset.plan.num_packs(0))]
    prefix, _, rest = str(error.value).partition(", sample ")
    assert prefix == f"shard {shard}"
    key, _, reason = rest.partition(": ")
    assert key in map(str, range(SAMPLES))
    return reason


def test_a_shard_shifted_since_indexing(make, shard: Path):
    dataset = make()
    write_tar(shard, ("new.json", b"{}"), *members())
    assert error_of(dataset, shard).startswith("not a record of this schema")


def test_a_shard_cut_since_indexing(make, shard: Path):
    dataset = make()
    shard.write_bytes(shard.read_bytes()[:4096])
    assert error_of(dataset, shard).startswith("not a record of this schema")


def test_a_shard_deleted_since_indexing(make, shard: Path):
    dataset = make()
    shard.unlink()
    assert "No such file" in error_of(dataset, shard)


def test_a_shard_with_other_text_at_the_same_places(make, shard: Path):
    dataset = make()
    write_tar(shard, *members("Qzx. "))  # as many bytes, more tokens than were planned for
    assert "when it was indexed: the shard changed since" in error_of(dataset, shard)


def test_an_image_that_cannot_be_decoded(make, shard: Path):
    broken = [(n, c if n != "4.png" else b"x" * len(c)) for n, c in members()]
    write_tar(shard, *broken)
    dataset = make()
    assert error_of(dataset, shard).startswith("the image cannot be decoded")
