"""Any resolution from shard to batch: what was planned is what comes, whatever the sizes."""

import copy
import io
from itertools import islice

import numpy as np
import pytest
import torch
from handmade import picture, record, says, write_tar
from PIL import Image

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import build_index
from lightning_llava.data.loader import PackDataset
from lightning_llava.data.measure import encoder_fingerprint
from lightning_llava.data.storage import ShardStorage
from lightning_llava.data.streaming import StreamDataset
from lightning_llava.data.training import check_samples, make_plan
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.specs import LanguageSpec, SourceSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn
from lightning_llava.tiling import Tiling
from tiny import build

IMAGES = [[(70, 70)], [(200, 40)], [], [(31, 90), (5, 9)], [(1, 1)], [(64, 33)], [(500, 5)]]
"""Sizes by sample."""
PACK_TOKENS = 260
ORIENTATION, TURNED = 0x0112, 6


def texts(number):
    return ["<image>\n" * len(IMAGES[number]) + f"Question {number}?", "Yes. " * (1 + number)]


def members():
    found = []
    for number, sizes in enumerate(IMAGES):
        found.append((f"{number}.json", record(f"id {number}", says(*texts(number)), len(sizes))))
        found += [(f"{number}.{i}.png", picture(i, size)) for i, size in enumerate(sizes)]
    return found


def encoded(made, number):
    turns = [Turn(**turn) for turn in says(*texts(number))]
    return made.encoder.encode(turns, IMAGES[number])


class Made:
    """What a data set is made of."""

    def __init__(self, path, clip, encoder, max_length=2048, **settings):
        spec = VisionSpec(name=str(clip), any_resolution=True, **settings)
        self.geometry = vision_geometry(load_vision_config(spec), spec)
        self.tiling = self.geometry.tiling
        self.encoder = copy.copy(encoder)  # loading it takes a second
        self.encoder.tiling, self.encoder.max_length = self.tiling, max_length
        self.transform = ImageTransform(spec, "pad")
        self.storage, self.sources = ShardStorage(), {"test": SourceSpec(shards=str(path))}

    def index(self):
        return build_index(self.sources, self.encoder, self.storage)

    def planned(self):
        index = self.index()
        plan = make_plan(index, self.sources, PACK_TOKENS, 0, self.tiling)
        parts = (self.encoder, self.transform, self.geometry)
        return PackDataset(index, self.storage, plan, *parts)

    def streamed(self):
        parts = (self.encoder, self.transform, self.geometry)
        return StreamDataset(self.sources, self.storage, *parts, PACK_TOKENS, 0)


@pytest.fixture
def make(tmp_path, clip, encoder):
    path = write_tar(tmp_path / "a.tar", *members())

    def made(**settings):
        return Made(path, clip, encoder, **settings)

    return made


def assert_whole(batch, tiling):
    """As many placeholders and tiles as the sizes ask for."""
    sizes = batch.image_sizes
    placeholders = int((batch.input_ids == IMAGE_TOKEN_INDEX).sum())
    assert placeholders == sum(16 + tiling.tokens_of(size) for size in sizes)
    assert len(batch.pixel_values) == sum(map(tiling.count_tiles, sizes))


def test_lengths_of_the_index_are_those_of_the_batches(make):
    made = make()
    dataset = made.planned()
    lengths = dataset.index.lengths
    assert len(lengths) == len(IMAGES)
    assert len(set(lengths.tolist())) == 6
    seen = []
    for number in range(dataset.plan.num_packs(0)):
        batch, planned = dataset[number], dataset.plan.micro_batch(number).tolist()
        assert batch.substituted == []
        assert batch.cu_seqlens.diff().tolist() == lengths[planned].tolist()
        assert batch.image_sizes == [size for sample in planned for size in IMAGES[sample]]
        assert_whole(batch, made.tiling)
        seen += planned
    assert sorted(seen) == list(range(len(IMAGES)))


def test_the_plan_weighs_tiles(make):
    made = make()
    tiles = [sum(map(made.tiling.count_tiles, sizes)) for sizes in IMAGES]
    assert made.index().count_tiles(made.tiling).tolist() == tiles
    assert tiles[:3] == [5, 4, 0]


def test_lengths_from_a_sidecar_are_those_of_the_tower_s_grids(make):
    first, other = make(), make(grids=[[1, 1]])
    lengths = first.index().lengths.tolist()
    assert lengths == first.index().lengths.tolist()
    assert encoder_fingerprint(first.encoder) != encoder_fingerprint(other.encoder)
    # Facts are known, and the records are read once more.
    again = other.index().lengths.tolist()
    assert again == [encoded(other, number).length for number in range(len(IMAGES))]
    assert again != lengths


def test_packs_from_a_stream(make):
    made = make()
    for batch in islice(made.streamed(), 12):
        assert batch.input_ids.shape[1] <= PACK_TOKENS
        sizes = [IMAGES[int(name.rpartition(" ")[2])] for name in batch.sample_ids]
        assert batch.image_sizes == [size for own in sizes for size in own]
        assert_whole(batch, made.tiling)


def test_a_damaged_image_leaves_a_blank_of_the_planned_length(make, monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda _: None)
    made = make()
    intact = made.planned()
    before = [intact[number] for number in range(intact.plan.num_packs(0))]
    (tmp_path / "a.tar").unlink()
    half = [(n, c[: len(c) // 2] if n == "3.0.png" else c) for n, c in members()]
    write_tar(tmp_path / "a.tar", *half)
    damaged, blanks = made.planned(), 0
    for number, expected in enumerate(before):
        batch = damaged[number]
        assert torch.equal(batch.cu_seqlens, expected.cu_seqlens)
        assert_whole(batch, made.tiling)
        blanks += len(batch.substituted)
    assert blanks == 1


def test_a_stream_passes_over_an_image_of_another_size_than_its_header_s(make, monkeypatch):
    made = make()
    stream, first = made.streamed(), (70, 70)
    prepare = made.transform.prepare

    def prepared(images):
        pictures = prepare(images)
        if pictures.sizes == [first]:
            pictures.sizes = [(71, 70)]
        return pictures

    monkeypatch.setattr(made.transform, "prepare", prepared)
    batches = list(islice(stream, 12))
    assert all(first not in batch.image_sizes for batch in batches)
    told = [line for batch in batches for line in batch.substituted]
    assert any("images of [(71, 70)] pixels, but [(70, 70)] by their headers" in t for t in told)


def test_a_turned_photograph_counts_as_it_is_stored_and_shown(tmp_path, clip, encoder):
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", exif=exif)
    turns = says("<image>\nWhat?", "This.")
    path = write_tar(
        tmp_path / "t.tar", ("0.json", record("0", turns, 1)), ("0.jpg", stream.getvalue())
    )
    dataset = Made(path, clip, encoder).planned()
    batch = dataset[0]
    assert batch.substituted == []
    assert batch.image_sizes == [(120, 30)]
    assert batch.cu_seqlens.diff().tolist() == dataset.index.lengths.tolist()


def test_turns_are_cut_by_what_the_images_take(make):
    turns = [Turn(**turn) for turn in says("<image>\nA?", "Yes.", "B?", "No. " * 20)]
    longest = make().encoder.encode(turns, [(70, 70)]).length
    for max_length, dropped in [(longest, 0), (longest - 1, 2)]:
        encoder = make(max_length=max_length).encoder
        assert encoder.encode(turns, [(70, 70)]).dropped_turns == dropped
        assert encoder.encode(turns, [(1, 1)]).dropped_turns == 0  # takes less


def test_conversations_that_would_end_before_an_image_does_are_refused(tokenizer_folder):
    tiling = Tiling(((1, 1), (2, 2)), side=32, patches=4)

    def of(max_length):
        name, template = str(tokenizer_folder), "mistral_instruct"
        return ConversationEncoder(
            LanguageSpec(name, None, template, None, max_length), 16, tiling=tiling
        )

    assert of(16 + 8 * 9 + 1).count_features([(64, 64)]) == (16 + 8 * 9,)
    with pytest.raises(SettingError, match=r"max_length is 88, but .* takes up to 88 tokens"):
        of(16 + 8 * 9)


def test_preflight_counts_the_sizes(make):
    made = make()
    index = made.index()
    table = check_samples(index, made.storage, made.encoder, len(IMAGES))
    cells = [next(iter(column.cells)) for column in table.columns]
    supervised = sum(int((encoded(made, n).labels != -100).sum()) for n in range(len(IMAGES)))
    assert cells[2] == str(len(IMAGES))
    assert cells[4] == f"{supervised / index.lengths.sum():.1%}"


def test_a_pack_goes_through_the_model(make, clip, mistral):
    made = make()
    torch.manual_seed(0)
    model = build(clip, mistral, any_resolution=True)
    dataset = made.planned()
    for number in range(dataset.plan.num_packs(0)):
        batch = dataset[number]
        batch.input_ids = torch.where(batch.input_ids > 0, batch.input_ids % 100, batch.input_ids)
        batch.labels = torch.where(batch.labels > 0, batch.labels % 100, batch.labels)
        with torch.no_grad():
            assert torch.isfinite(model(batch).loss)
