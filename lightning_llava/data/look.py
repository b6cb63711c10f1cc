"""`tools/shards.py look SHARDS …`: a contact sheet, and what the samples are like."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from lightning_llava.data.contact_sheet import Tile, draw_sheet
from lightning_llava.data.index import IndexedSample, expand_shards, read_sample
from lightning_llava.data.indexer import ShardIndex, ShardIndexer, index_shards
from lightning_llava.data.location import printable
from lightning_llava.data.schema import from_json
from lightning_llava.data.shard_options import add_encoder_options, add_shard_options, encoder_of
from lightning_llava.data.statistics import Statistics
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.text.conversation import ConversationEncoder

MOST_TILES = 500
"""More would make a picture that few programs open."""


def add_look_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser: ArgumentParser = commands.add_parser(
        "look",
        help="draw samples into one picture, and count what there is",
        description="Draw samples, chosen by chance, side by side into a PNG, and print what all "
        "samples are like: sources, languages, images, lengths, types of answers. Shards that were "
        "not indexed are indexed.",
        epilog="example: python tools/shards.py look 'shards/vqav2-*.tar' --output vqav2.png",
    )
    add_shard_options(parser)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=Path("sheet.png"),
        metavar="FILE",
        help="the picture; replaced when it exists (default: %(default)s)",
    )
    add("--number", type=int, default=24, metavar="N", help="samples drawn (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the choice (default: %(default)s)")
    add("--columns", type=int, default=6, metavar="N", help="side by side (default: %(default)s)")
    add_encoder_options(parser)
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Print the statistics and write the sheet.

    Returns:
        0, or 1 where there is no sample to look at.

    Raises:
        SettingError: a wrong input.
    """
    _check(options)
    encoder, storage = encoder_of(options), ShardStorage(options.cache_dir)
    shards = expand_shards("SHARDS", options.shards, storage)
    indexed = index_shards(shards, ShardIndexer(storage, encoder), options.processes)
    samples = list(found_samples(indexed))
    console = Console()
    left_out = sum(len(found.left_out()) for found in indexed)
    if samples:
        for table in _count(samples, indexed, storage, encoder):
            console.print(table)
        _draw(samples, storage, options)
        _line(console, f"{_samples(min(options.number, len(samples)))} drawn: {options.output}")
    else:
        _line(console, f"no sample in {len(shards):,} shard{'s' * (len(shards) != 1)}")
    if left_out:
        _line(console, f"left out: {left_out:,} (tools/shards.py index names them)")
    return 0 if samples else 1


def found_samples(indexed: list[ShardIndex]) -> Iterator[IndexedSample]:
    """List the samples of shards, those included that an encoder refuses."""
    for found in indexed:
        facts = found.facts
        ends = np.cumsum(facts.num_images)
        for row, key in enumerate(facts.keys):
            images = facts.images[ends[row] - facts.num_images[row] : ends[row]].tolist()
            offset, size = facts.records[row].tolist()
            yield IndexedSample(
                shard=found.shard,
                stamp=found.stamp,
                key=key,
                record=(offset, size),
                images=tuple((start, length) for start, length in images),
                source="",
                length=0,
            )


def _count(
    samples: list[IndexedSample],
    indexed: list[ShardIndex],
    storage: ShardStorage,
    encoder: ConversationEncoder | None,
) -> list[Any]:
    tokenizer = encoder.tokenizer if encoder else None
    statistics = Statistics(
        (lambda text: len(tokenizer.tokenize(text))) if tokenizer is not None else None
    )
    console = Console(stderr=True)
    for sample in track(samples, "reading records", console=console, transient=True):
        try:
            record = storage.read(sample.shard, *sample.record, sample.stamp)
        except OSError as error:
            raise SettingError(f"shard {printable(sample.shard)}: {error}") from error
        statistics.add(from_json(record, [b""] * len(sample.images)))
    sizes = np.concatenate([found.facts.image_sizes for found in indexed])
    measured = [found.measured.lengths for found in indexed if found.measured]
    lengths = np.concatenate(measured) if measured else None
    return statistics.tables(sizes, None if lengths is None else lengths[lengths > 0])


def _draw(samples: list[IndexedSample], storage: ShardStorage, options: Namespace) -> None:
    number = min(options.number, len(samples))
    chosen = np.random.default_rng(options.seed).choice(len(samples), number, replace=False)
    tiles = []
    for i in sorted(chosen.tolist()):
        indexed, sample, problem = samples[i], None, ""
        try:
            sample = read_sample(storage, indexed)
        except (SettingError, OSError) as error:
            problem = str(error)
        name = PurePosixPath(printable(indexed.shard)).name
        tiles.append(Tile(name, indexed.key, sample, problem))
    try:
        draw_sheet(tiles, options.columns).save(options.output, "PNG")
    except OSError as error:
        raise SettingError(f"--output {options.output}: {error.strerror or error}") from error


def _check(options: Namespace) -> None:
    if not 1 <= options.number <= MOST_TILES:
        raise SettingError(f"--number is {options.number}, expected 1 to {MOST_TILES}")
    if options.columns < 1:
        raise SettingError(f"--columns is {options.columns}, expected 1 or more")
    if options.seed < 0:
        raise SettingError(f"--seed is {options.seed}, expected 0 or more")
    if not options.output.parent.is_dir():
        raise SettingError(f"--output: the folder {options.output.parent} does not exist")


def _samples(count: int) -> str:
    return f"{count:,} sample{'s' * (count != 1)}"


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
