"""Scores from a ledger, and the report that is written and printed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT, Question
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.kinds import HEADLINE
from lightning_llava.evaluation.ledger import LedgerRow, refuse_keys, repeated_keys
from lightning_llava.evaluation.score_tables import markdown_tables, rich_tables
from lightning_llava.evaluation.split_scores import score_split

Scores = dict[str, dict[str, dict[str, float]]]
"""Benchmark → split (and `mean`) → numbers."""
_MEANS = ("accuracy", "f1", "chance_accuracy", "chance_f1", "mean_iou", "cer", "wer")


def score_rows(rows: Sequence[LedgerRow], expected: Iterable[Question] | None = None) -> Scores:
    """Score a ledger from its raw answers.

    Args:
        rows: of any number of benchmarks, kinds and splits.
        expected: the questions that were to be answered; None takes the rows as they are.

    Returns:
        Per benchmark and split what `score_split` gives; under `mean`, for POPE and wherever there
        are several splits with labels, the plain means of their fractions: POPE's headline is the
        mean F1.

    Raises:
        SettingError: no rows, duplicate rows, rows without label, several languages in one split,
            or rows that are missing from or foreign to `expected`.
    """
    check_rows(rows, expected)
    groups: dict[str, dict[str, list[LedgerRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.benchmark][row.split].append(row)
    scores: Scores = {}
    for benchmark, splits in groups.items():
        numbers = {split: score_split(split_rows) for split, split_rows in splits.items()}
        is_pope = any(row.kind == "pope" for split in splits.values() for row in split)
        scores[benchmark] = numbers | _mean(numbers, is_pope)
    return scores


def check_rows(rows: Sequence[LedgerRow], expected: Iterable[Question] | None) -> None:
    """Refuse a ledger that is not whole.

    Args:
        rows: the ledger.
        expected: as in `score_rows`.

    Raises:
        SettingError: no rows, duplicate rows, or rows that are missing from or foreign to
            `expected`.
    """
    if not rows:
        raise SettingError("no answers to score; expected a ledger with a row per question")
    refuse_keys(
        repeated_keys(rows),
        "answered more than once",
        "expected one row per question; remove the others from the ledger",
    )
    if expected is None:
        return
    found = dict.fromkeys(row.key for row in rows)
    wanted = dict.fromkeys(question.key for question in expected)
    missing = [key for key in wanted if key not in found]
    refuse_keys(
        missing, "without an answer", "scores of a part would not be comparable; answer the rest"
    )
    foreign = [key for key in found if key not in wanted]
    refuse_keys(
        foreign,
        "not of this benchmark",
        "expected answers to the configured questions only; check data.benchmarks",
    )


def benchmark_scalars(scores: Mapping[str, Any], prefix: str = "benchmarks/") -> dict[str, float]:
    """Flatten nested scores to TensorBoard tags."""
    flat: dict[str, float] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            flat |= benchmark_scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def write_report(
    folder: Path,
    rows: Sequence[LedgerRow],
    scores: Scores,
    meta: Mapping[str, object],
) -> Path:
    """Write `report.json` and `report.md` into a folder.

    Args:
        folder: created if need be.
        rows: the ledger.
        scores: what `score_rows` gives of it.
        meta: what the numbers belong to, e.g. checkpoint, settings hash, date; values that JSON
            lacks are written as text.

    Returns:
        The path of `report.json`: `scores`, `headline` (which number stands for a benchmark),
        `counts` (rows per benchmark and split) and `meta`.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.benchmark][row.split] += 1
    kinds = {row.benchmark: row.kind for row in rows}
    headline = {name: HEADLINE[kind] for name, kind in kinds.items() if kind in HEADLINE}
    content = {"scores": scores, "headline": headline, "counts": counts, "meta": dict(meta)}
    path = folder / "report.json"
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")
    facts = "".join(f"* {key}: {value}\n" for key, value in meta.items())
    text = f"# Scores\n\n{markdown_tables(scores)}" + (f"\n{facts}" if facts else "")
    write_atomically(folder / "report.md", text)
    return path


def rich_table(scores: Scores) -> Group:
    """Show the scores in a terminal of 80 columns."""
    return rich_tables(scores, bold=RESERVED_SPLIT)


def _mean(numbers: Mapping[str, Mapping[str, float]], always: bool) -> dict[str, dict[str, float]]:
    scored = [split for split in numbers.values() if "accuracy" in split]
    if len(scored) < (1 if always else 2):
        return {}
    keys = [key for key in _MEANS if all(key in split for split in scored)]
    return {RESERVED_SPLIT: {k: sum(split[k] for split in scored) / len(scored) for k in keys}}
