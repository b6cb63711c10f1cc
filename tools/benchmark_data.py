"""Images and records a second on one core: `python tools/benchmark.py data`."""

import io
import time
from argparse import Namespace
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from measuring import versions
from PIL import Image
from rich.console import Console
from rich.table import Column, Table
from transformers import CLIPImageProcessorPil
from webdataset.compat import WebDataset

from lightning_llava.data.images import ImageTransform
from lightning_llava.data.index import Index, IndexedSample, assemble, read_sample
from lightning_llava.data.indexer import ShardIndexer, index_shards
from lightning_llava.data.schema import Sample, from_json
from lightning_llava.data.shards import write_shards
from lightning_llava.data.sidecar import Measured
from lightning_llava.data.storage import ShardStorage
from lightning_llava.specs import VisionSpec
from lightning_llava.text.turns import Turn

SIZE, QUALITY, SIDE = (640, 480), 90, 336
RECORD_QUALITY = 95
"""Of the JPEGs in shards: about 100 kB."""
SAMPLES_PER_SHARD = 5000
STAGES = ("bytes", "decoded", "checked")
"""How far a record is read."""
Way = Callable[[], Iterator[Any]]
Name = TypeVar("Name", bound=Hashable)


def add_data_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "data", help="images to pixels, and shards to samples, per second on one core"
    )
    for name, default, meaning in (
        ("--images", 24, "different JPEGs a round"),
        ("--records", 20_000, "records without images a round"),
        ("--with-images", 1000, "records with an image a round"),
        ("--rounds", 5, "the best one counts"),
    ):
        parser.add_argument(
            name, type=int, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
        )
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    console = Console()
    jpegs = photographs(options.images, QUALITY)
    console.print(images_table(jpegs, scratch / "processor", options.rounds))
    for name, number, images in (
        ("without images", options.records, None),
        ("with a JPEG each", options.with_images, photographs(options.images, RECORD_QUALITY)),
    ):
        folder = scratch / name
        shards = write_shards(samples(number, images), folder, "shard", SAMPLES_PER_SHARD)
        console.print(records_table(name, shards, options.rounds))


def images_table(jpegs: list[bytes], folder: Path, rounds: int) -> Table:
    """Compare encoded JPEG to the tower's pixels with transformers' own processor."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    processor.save_pretrained(folder)
    spec = VisionSpec(name=str(folder))
    raw: dict[str, Any] = {"do_rescale": False, "do_normalize": False}

    def by_processor(encoded: bytes, **settings: Any) -> torch.Tensor:
        image = Image.open(io.BytesIO(encoded))
        return processor(image, return_tensors="pt", **settings)["pixel_values"][0]

    ways: dict[str, Callable[[bytes], torch.Tensor]] = {
        "CLIPImageProcessorPil": by_processor,
        "the same, as uint8": lambda encoded: by_processor(encoded, **raw),
        "data.image_backend: pillow": ImageTransform(spec, "square", "pillow"),
        "data.image_backend: fast": ImageTransform(spec, "square", "fast"),
    }
    expected = [by_processor(encoded, **raw).int() for encoded in jpegs]
    table = Table(
        "",
        *(Column(name, justify="right") for name in ("images/s", "ratio", "levels", "values")),
        title=f"{len(jpegs)} JPEGs of {SIZE[0]} x {SIZE[1]}, quality {QUALITY}, {mean_kb(jpegs)}, "
        f"to {SIDE} x {SIDE}\n{versions('pillow', 'transformers', 'torch', 'simplejpeg')}",
        caption="all begin with encoded bytes; ratio: to the first row; levels: largest difference "
        "from transformers, of 255; values: how many of them differ",
    )
    rates = rates_of({name: lambda way=way: map(way, jpegs) for name, way in ways.items()}, rounds)
    for name, way in ways.items():
        cells = ["", ""]
        if isinstance(way, ImageTransform):
            found = [way(encoded).int() for encoded in jpegs]
            apart = torch.stack([(a - b).abs() for a, b in zip(found, expected, strict=True)])
            cells = [str(apart.max().item()), f"{(apart > 0).float().mean():.2%}"]
        table.add_row(name, f"{rates[name]:,.0f}", f"{rates[name] / first(rates):.2f}", *cells)
    return table


def records_table(name: str, shards: list[Path], rounds: int) -> Table:
    """Compare planned random access with plain webdataset, at three stages of a sample.

    Planned samples are compared twice: with webdataset's decoded ones, which hold a dictionary that
    nobody checked, and with those to which the same `from_json` was applied.
    """
    storage, names = ShardStorage(), [str(path) for path in shards]
    index = index_of(storage, names)
    readers = {"webdataset": by_webdataset(names)} | by_plan(storage, index)
    read = [{sample.id for sample in stages["checked"]()} for stages in readers.values()]
    read.append({sample["json"]["id"] for sample in readers["webdataset"]["decoded"]()})
    assert all(ids == read[0] and len(ids) == len(index) for ids in read), "different samples"
    rates = rates_of(
        {(name, stage): way for name, stages in readers.items() for stage, way in stages.items()},
        rounds,
    )
    size = sum(path.stat().st_size for path in shards)
    table = Table(
        "",
        *(Column(head, justify="right") for stage in STAGES for head in (f"{stage}/s", "ratio")),
        title=f"{len(index):,} records {name}, {size / len(index) / 1000:,.1f} kB each in "
        f"{len(shards)} shards\n{versions('webdataset')}",
        caption="samples a second; bytes: of their members; decoded: JSON to a dictionary by "
        "webdataset's .decode(), beside checked samples of ours; checked: by the same function on "
        "both sides; ratio: to webdataset; files in the page cache",
    )
    for reader in readers:
        row = [reader]
        for stage in STAGES:
            rate = rates.get((reader, stage)) or rates[reader, "checked"]
            row += [f"{rate:,.0f}", f"{rate / rates['webdataset', stage]:.2f}"]
        table.add_row(*row)
    return table


def by_webdataset(shards: list[str]) -> dict[str, Way]:
    """Read with plain webdataset, by stage."""

    def checked(sample: dict[str, Any]) -> Sample:
        return from_json(sample["json"], [sample["jpg"]] if "jpg" in sample else [])

    def dataset() -> Any:
        return WebDataset(shards, shardshuffle=False)

    return {
        "bytes": lambda: iter(dataset()),
        "decoded": lambda: iter(dataset().decode()),
        "checked": lambda: map(checked, dataset()),
    }


def by_plan(storage: ShardStorage, index: Index) -> dict[str, dict[str, Way]]:
    """Read as the planned loader does, by order and stage; it has no samples without checks."""
    shuffled = np.random.default_rng(0).permutation(len(index)).tolist()

    def members(one: IndexedSample) -> list[bytes]:
        return storage.read_parts(one.shard, (one.record, *one.images), one.stamp)

    def ways(order: Sequence[int]) -> dict[str, Way]:
        return {
            "bytes": lambda: (members(index[i]) for i in order),
            "checked": lambda: (read_sample(storage, index[i]) for i in order),
        }

    return {
        "planned, random": ways(shuffled),
        "planned, in order": ways(range(len(index))),
    }


def rates_of(ways: dict[Name, Way], rounds: int) -> dict[Name, float]:
    """Return items per second of processor time: the best of `rounds`, which take turns."""
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            number = sum(1 for _ in way())
            best[name] = max(best[name], number / (time.process_time() - start))
    return best


def first(rates: dict[str, float]) -> float:
    """Return the rate that the others are compared with."""
    return next(iter(rates.values()))


def photographs(number: int, quality: int) -> list[bytes]:
    """Make different JPEGs: parts of scikit-image's photographs, or else soft shapes with noise."""
    rng = np.random.default_rng(0)
    try:
        from skimage import data

        sources = [Image.fromarray(load()) for load in (data.astronaut, data.coffee, data.rocket)]
    except ImportError:
        noise = rng.integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
        soft = [np.asarray(Image.fromarray(part).resize(SIZE)).astype(int) for part in noise]
        grain = rng.integers(-8, 9, (*SIZE[::-1], 3))
        sources = [Image.fromarray(np.clip(s + grain, 0, 255).astype(np.uint8)) for s in soft]
    made = []
    for i in range(number):
        source = sources[i % len(sources)]
        # Nine tenths of each side, from anywhere.
        shift = rng.random(2) * 0.1 * np.asarray(source.size)
        box = (*shift, *(shift + 0.9 * np.asarray(source.size)))
        stream = io.BytesIO()
        source.resize(SIZE, Image.Resampling.LANCZOS, box).save(stream, "JPEG", quality=quality)
        made.append(stream.getvalue())
    return made


def samples(number: int, images: list[bytes] | None) -> Iterator[Sample]:
    """Make records of one to three questions, half of them in Russian."""
    asked = {
        "en": ("What is the man in the red coat holding in his hand?", "A cup of coffee"),
        "ru": ("Что держит в руке мужчина в красном пальто?", "Чашку кофе"),
    }
    for i in range(number):
        language = ("en", "ru")[i % 2]
        question, answer = asked[language]
        turns = [Turn("user", question), Turn("assistant", f"{answer}, {i}")] * (1 + i % 3)
        picture = [] if images is None else [images[i % len(images)]]
        if picture:
            turns[0] = Turn("user", f"<image>\n{question}")
        yield Sample(f"{i:08d}", turns, picture, "benchmark", language)


def index_of(storage: ShardStorage, shards: list[str]) -> Index:
    """Index shards without a tokenizer, every sample with the length 1."""
    found = index_shards(shards, ShardIndexer(storage, None), progress=False)
    for shard in found:
        shard.measured = Measured.of([(1, 0, None)] * len(shard.facts.keys))
    return assemble({"benchmark": found})


def mean_kb(jpegs: list[bytes]) -> str:
    """Say how large they are."""
    return f"{sum(map(len, jpegs)) / len(jpegs) / 1000:.0f} kB"
