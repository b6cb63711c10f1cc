"""`tools/shards.py index SHARDS …`: look for damage, and leave the indexes beside the shards."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_llava.data.index import Quarantined, expand_shards
from lightning_llava.data.indexer import ShardIndex, ShardIndexer, index_shards
from lightning_llava.data.location import printable
from lightning_llava.data.scan import countable
from lightning_llava.data.shard_options import add_encoder_options, add_shard_options, encoder_of
from lightning_llava.data.storage import ShardStorage

SHOWN = 3
"""Examples that are named for every reason; --json names all."""


def add_index_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser: ArgumentParser = commands.add_parser(
        "index",
        help="check shards and write their indexes",
        description="Read every header of the shards, check every record and every image's header, "
        "and write SHARD.index.json beside each, so that training need not. With a tokenizer, also "
        "count the tokens. Shards whose index still holds are not read again. Exits with 1 when "
        "anything must be left out of training.",
        epilog="example: python tools/shards.py index 'shards/*.tar'",
    )
    add_shard_options(parser)
    add_encoder_options(parser)
    add = parser.add_argument
    add(
        "--decode",
        action="store_true",
        help="decode every image to its last pixel, slowly (default: read its header)",
    )
    add(
        "--json",
        action="store_true",
        help="print one JSON object that names all (default: a table)",
    )
    parser.set_defaults(run=run)


def run(options: Namespace) -> int:
    """Index, and print what was found.

    Returns:
        0 when all is well, 1 when something was left out.

    Raises:
        SettingError: a wrong input.
    """
    encoder, storage = encoder_of(options), ShardStorage(options.cache_dir)
    shards = expand_shards("SHARDS", options.shards, storage)
    indexer = ShardIndexer(storage, encoder, options.decode)
    results = index_shards(shards, indexer, options.processes)
    summary, quarantine = summarise(results), _quarantine(results)
    if options.json:
        named = [{"shard": q.shard, "key": q.key, "reason": q.reason} for q in quarantine]
        sys.stdout.write(json.dumps(summary | {"quarantine": named}) + "\n")
    else:
        _print(summary, quarantine, {printable(r.shard): r.stamp.size for r in results})
    return 1 if quarantine else 0


def summarise(results: list[ShardIndex]) -> dict[str, Any]:
    """Count what shards hold; tokens only where all were measured."""
    facts = [found.facts for found in results]
    sizes = np.concatenate([np.empty((0, 2), dtype=np.int64), *(f.image_sizes for f in facts)])
    reasons, notes, languages = Counter[str](), Counter[str](), Counter[str]()
    for found in facts:
        notes.update(found.notes)
        languages.update(found.languages)
    reasons.update(countable(entry.reason) for entry in _quarantine(results))
    summary: dict[str, Any] = {
        "shards": len(results),
        "samples": sum(len(f.keys) for f in facts),
        "text_only": sum(int((f.num_images == 0).sum()) for f in facts),
        "images": len(sizes),
        "bytes": sum(found.stamp.size for found in results),
        "pairs": sum(int(f.pairs.sum()) for f in facts),
        "languages": dict(languages.most_common()),
        "image_sizes": _spread(sizes.max(axis=1)) if len(sizes) else None,
        "quarantined": sum(reasons.values()),
        "reasons": dict(reasons.most_common()),
        "notes": dict(notes.most_common()),
    }
    measured = [found.measured for found in results if found.measured]
    if measured:
        lengths = np.concatenate([m.lengths[m.lengths > 0] for m in measured])
        summary["usable"] = len(lengths)
        summary["tokens"] = int(lengths.sum())
        summary["lengths"] = _spread(lengths) if len(lengths) else None
        summary["truncated"] = sum(int((m.dropped > 0).sum()) for m in measured)
    return summary


def _spread(values: np.ndarray) -> dict[str, int]:
    least, median, most = np.quantile(values, [0, 0.5, 1]).astype(int).tolist()
    return {"least": least, "median": median, "most": most}


def _quarantine(results: list[ShardIndex]) -> list[Quarantined]:
    return [
        Quarantined("", printable(found.shard), key, reason)
        for found in results
        for key, reason in found.left_out()
    ]


def _lost(entry: Quarantined, sizes: dict[str, int]) -> str:
    """Say how much of a damaged shard is not used, where bytes follow the damage."""
    damage = re.search(r" \(at byte (\d+): ", entry.reason)
    size = sizes.get(entry.shard, 0)
    if entry.key or not damage or size <= int(damage[1]):
        return ""  # cut in a member's content: the reason says how much of it is missing
    return f"; the last {size - int(damage[1]):,} of its {size:,} bytes are not used"


def _print(summary: dict[str, Any], quarantine: list[Quarantined], sizes: dict[str, int]) -> None:
    console, table = Console(), Table(show_header=False)
    sides = _range(summary["image_sizes"], "pixels")
    rows = {
        "shards": f"{summary['shards']:,}, {summary['bytes']:,} bytes",
        "samples": f"{summary['samples']:,} ({summary['text_only']:,} text-only)",
        "questions": f"{summary['pairs']:,}",
        "languages": ", ".join(f"{name} {n:,}" for name, n in summary["languages"].items()),
        "images": f"{summary['images']:,}" + (f"; longer side {sides}" if sides else ""),
        "left out": f"{summary['quarantined']:,}",
    }
    if "tokens" in summary:
        lengths = _range(summary["lengths"], "tokens")
        rows["tokens"] = f"{summary['tokens']:,}" + (f"; a sample {lengths}" if lengths else "")
        rows["truncated"] = f"{summary['truncated']:,} samples lose turns at their end"
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for note, count in summary["notes"].items():
        _line(console, f"note: {count:,} {note}")
    for reason, count in summary["reasons"].items():
        _line(console, f"left out: {count:,} x {reason}")
        for entry in [q for q in quarantine if countable(q.reason) == reason][:SHOWN]:
            _line(console, f"  {entry}{_lost(entry, sizes)}")
        if count > SHOWN:
            _line(console, f"  and {count - SHOWN:,} more (--json names all)")


def _range(spread: dict[str, int] | None, unit: str) -> str:
    if not spread:
        return ""
    return f"{spread['least']:,} to {spread['most']:,} {unit}, median {spread['median']:,}"


def _line(console: Console, text: str) -> None:
    # A reason may quote half of a surrogate pair out of a broken record.
    text = text.encode(errors="backslashreplace").decode()
    console.print(text, soft_wrap=True, markup=False, highlight=False)
