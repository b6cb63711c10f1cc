"""What a conversion prints at its end."""

from collections.abc import Mapping
from itertools import islice

from rich.console import Console
from rich.table import Table

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.folder_check import folder_hint
from lightning_llava.data.converters.report import Report
from lightning_llava.data.converters.run import Converted

SHOWN = 3
"""Records left out that are named on the screen; all are in the report."""


def print_summary(converted: Converted, conversion: Conversion) -> None:
    """Print a table of counts, a few records that were left out, and what to look at then."""
    report, console = converted.report, Console()
    table = Table(show_header=False)
    for name, value in _rows(converted).items():
        table.add_row(name, value)
    console.print(table)
    for position, entry in islice(report.left_out.items(), SHOWN):
        line = f"left out: {position}, id {entry.id}: {entry.reason}: {entry.detail}"
        print_line(console, line)
    if len(report.left_out) > SHOWN:
        print_line(console, f"and {len(report.left_out) - SHOWN:,} more")
    if report.left_out:
        print_line(console, "reasons: explained by python tools/shards.py convert --help")
    if report.reasons()["format"] and not report.reencoded:
        print_line(console, "--reencode converts BMP, GIF, TIFF and other formats")
    print_line(console, f"details: {converted.report_path}")
    if report.mostly_left_out():
        print_line(console, _mostly_left_out(report, conversion))


def print_line(console: Console, text: str) -> None:
    """Print a line that may hold what no terminal takes."""
    printable = text.encode(errors="backslashreplace").decode()
    console.print(printable, soft_wrap=True, markup=False, highlight=False)


def _rows(converted: Converted) -> dict[str, str]:
    report, sizes = converted.report, [path.stat().st_size for path in converted.shards]
    reasons = report.reasons()
    refused = {reason: reasons[reason] for reason in ("path", "format", "conversation", "record")}
    handled = "dropped" if report.duplicates_dropped else "kept"
    rows = {
        "records": f"{report.records:,}",
        "written": f"{report.written:,}",
        "questions": f"{report.questions:,}",
        "images": f"{report.images:,}",
        "missing": f"{reasons['missing']:,}",
        "corrupt": f"{reasons['corrupt']:,}",
        "refused": _with_parts(refused),
        "duplicates": _with_parts({handled: len(report.duplicates)}),
        "text-only": f"{report.text_only:,}",
        "other extension": f"{report.other_extension:,}",
        "re-encoded": f"{report.reencoded:,}",
        "languages": _with_parts(report.languages),
        "bytes": f"{sum(sizes):,} in {len(sizes):,} shard{'s' * (len(sizes) != 1)}",
    }
    if report.questions == report.written:
        del rows["questions"]
    return rows | {f"note: {note}": f"{count:,}" for note, count in sorted(report.notes.items())}


def _mostly_left_out(report: Report, conversion: Conversion) -> str:
    ((reason, count),) = report.reasons().most_common(1)
    line = (
        f"{len(report.left_out):,} of {report.records:,} records were left out, most often for"
        f" `{reason}` ({count:,})"
    )
    return f"{line}: {folder_hint(conversion)}" if reason == "missing" else line


def _with_parts(counts: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()) if count)
    return f"{sum(counts.values()):,} ({parts})" if parts else "0"
