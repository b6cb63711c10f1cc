"""Scores with their intervals, for people: lines of a table, and the files of a report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from lightning_llava.evaluation.intervals import Interval
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import Intervals
from lightning_llava.evaluation.report import score_rows, write_report

HEADINGS = {"f1": "F1", "cer": "CER"}
"""What a measure is called where people read."""
_HEADER = ["benchmark", "split", "measure", "score", "95 % interval", "images", "asked"]
_LEGEND = (
    "Percentages. Intervals are BCa bootstrap intervals that draw whole images; there is none (–) "
    "where all images score alike."
)


def interval_lines(intervals: Intervals) -> list[list[str]]:
    """Write a table as texts, the header first."""
    return [_HEADER] + [
        [
            benchmark,
            split,
            HEADINGS.get(measure, measure),
            *_facts(found),
        ]
        for benchmark, splits in intervals.items()
        for split, numbers in splits.items()
        for measure, found in numbers.items()
    ]


def write_interval_report(
    folder: Path,
    rows: Sequence[LedgerRow],
    intervals: Intervals,
    meta: Mapping[str, object],
) -> None:
    """Write `report.json` and `report.md` as `write_report` does, and the intervals into both.

    Args:
        folder: created if need be.
        rows: the ledger.
        intervals: what `with_intervals` gives of it; `intervals` in `report.json`.
        meta: as in `write_report`.

    Raises:
        SettingError: the rows cannot be scored.
    """
    write_report(folder, rows, score_rows(rows), meta)
    add_intervals(folder, intervals)


def add_intervals(folder: Path, intervals: Intervals) -> None:
    """Write intervals into the `report.json` and `report.md` of a folder."""
    path, markdown = folder / "report.json", folder / "report.md"
    plain = {
        benchmark: {
            split: {name: asdict(found) for name, found in numbers.items()}
            for split, numbers in splits.items()
        }
        for benchmark, splits in intervals.items()
    }
    content = json.loads(path.read_text(encoding="utf-8")) | {"intervals": plain}
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    header, *lines = interval_lines(intervals)
    rule = ["---"] * 3 + ["---:"] * (len(header) - 3)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])
    text = markdown.read_text(encoding="utf-8")
    write_atomically(markdown, f"{text}\n## Intervals\n\n{table}\n\n{_LEGEND}\n")


def _facts(found: Interval) -> list[str]:
    span = "–"
    if found.low is not None and found.high is not None:
        span = f"{100 * found.low:.2f}–{100 * found.high:.2f}"
    return [f"{100 * found.value:.2f}", span, f"{found.images:,}", f"{found.questions:,}"]
