"""Make WebDataset shards: `python tools/shards.py convert llava --help`."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_llava.data.convert import Report, llava_samples, read_records
from lightning_llava.data.shards import existing_shards, write_shards
from lightning_llava.errors import SettingError

SHOWN = 3
"""Records left out that are named on the screen; all are in the report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when something was written, 1 when nothing was, 2 on a wrong input."""
    try:
        return convert_llava(_parser().parse_args(arguments))
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def convert_llava(options: Namespace) -> int:
    """Write the shards and the report, and print the summary."""
    prefix = options.prefix or options.json.stem
    if found := existing_shards(options.output, prefix):
        raise SettingError(
            f"{options.output} already holds {len(found)} shards named {prefix}-*.tar;"
            " remove them or choose another --prefix"
        )
    report = Report()
    records = track(
        read_records(options.json),
        description=f"Converting {options.json.name}",
        console=Console(stderr=True),
    )
    samples = llava_samples(
        records, options.images, options.source or prefix, options.language, report
    )
    shards = write_shards(samples, options.output, prefix, options.max_samples)
    report_path = options.output / f"{prefix}.report.json"
    report_path.write_text(report.to_json(shards), encoding="utf-8")
    console = Console()
    console.print(_summary(report, shards))
    for entry in report.left_out[:SHOWN]:
        line = f"left out: record {entry.record}, id {entry.id}: {entry.reason}: {entry.detail}"
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(f"details: {report_path}", soft_wrap=True, markup=False, highlight=False)
    return 0 if report.written else 1


def _summary(report: Report, shards: list[Path]) -> Table:
    reasons = report.reasons()
    refused = {reason: reasons[reason] for reason in ("path", "format", "conversation", "record")}
    rows = {
        "records": report.records,
        "written": report.written,
        "images": report.images,
        "missing": reasons["missing"],
        "corrupt": reasons["corrupt"],
        "refused": _with_parts(refused),
        "text-only": report.text_only,
        "languages": _with_parts(report.languages),
        "bytes": f"{sum(path.stat().st_size for path in shards):,} in {len(shards)} shards",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _with_parts(counts: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)
    return f"{sum(counts.values())} ({parts})" if parts else "0"


def _parser() -> ArgumentParser:
    top = ArgumentParser(prog="python tools/shards.py", description="Make WebDataset shards.")
    commands = top.add_subparsers(title="commands", required=True)
    convert = commands.add_parser("convert", help="write shards from another format")
    formats = convert.add_subparsers(title="formats", required=True)
    llava = formats.add_parser(
        "llava",
        help="LLaVA's JSON plus a folder of images",
        description="Write shards from LLaVA's JSON (an array, or one record a line) and a folder"
        " of JPEG, PNG or WebP images. Every record that is left out is named, with the reason, in"
        " OUTPUT/PREFIX.report.json.",
    )
    add = llava.add_argument
    add("--json", type=Path, required=True, metavar="FILE", help="the records (required)")
    add(
        "--images",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the records' image paths start; nothing outside it is read (required)",
    )
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the shards PREFIX-000000.tar, … and the report go (required)",
    )
    add("--prefix", metavar="NAME", help="default: the name of the JSON file without its ending")
    add("--source", metavar="NAME", help="source that samples are marked with (default: PREFIX)")
    add(
        "--language",
        choices=("auto", "en", "ru"),
        default="auto",
        help="language of the answers; auto takes ru where more than half of their letters are"
        " Cyrillic, else en (default: %(default)s)",
    )
    add(
        "--max-samples",
        type=int,
        default=5000,
        metavar="N",
        help="samples per shard (default: %(default)s)",
    )
    return top


if __name__ == "__main__":
    sys.exit(main())
