"""Scores from a ledger, and the report that is written and printed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT, Question
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.pope import dialect_for, pope_compute, pope_update

Scores = dict[str, dict[str, dict[str, float]]]
"""Benchmark → split (and `mean`) → numbers."""

_MEANS = ("accuracy", "f1", "chance_accuracy", "chance_f1")
_PERCENTAGES = {
    "accuracy": "accuracy",
    "chance_accuracy": "chance",
    "f1": "F1",
    "chance_f1": "always yes",
    "precision": "precision",
    "recall": "recall",
    "yes_ratio": "yes ratio",
    "unknown_rate": "unknown",
}
_REPORT_ONLY = ("precision", "recall")
_LEGEND = (
    "Percentages. `chance` is the accuracy of always giving the commoner label, `always yes` the "
    "F1 of always saying yes; `yes ratio` is the share of answers, `unknown` the share in which "
    "neither yes nor no, or both, are said. English answers are read by POPE's published rule, by "
    "which all that is not no counts as yes; in other languages an unknown answer is wrong."
)


def score_rows(rows: Sequence[LedgerRow], expected: Iterable[Question] | None = None) -> Scores:
    """Score a ledger from its raw answers.

    Args:
        rows: of any number of benchmarks and splits, every one with a label.
        expected: the questions that were to be answered; None takes the rows as they are.

    Returns:
        Per benchmark and split the numbers of `pope_compute`, with `chance_accuracy` (always the
        commoner label) and `chance_f1` (always yes), both computed from the labels; under `mean`
        the plain means of accuracy and F1 over the splits, POPE's headline, and of their chance
        levels.

    Raises:
        SettingError: no rows, duplicate rows, rows without label, several languages in one split,
            or rows that are missing from or foreign to `expected`.
    """
    _check_rows(rows, expected)
    groups: dict[str, dict[str, list[LedgerRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.benchmark][row.split].append(row)
    scores: Scores = {}
    for benchmark, splits in groups.items():
        numbers = {split: _score_split(split_rows) for split, split_rows in splits.items()}
        mean = {key: sum(split[key] for split in numbers.values()) / len(numbers) for key in _MEANS}
        scores[benchmark] = {**numbers, RESERVED_SPLIT: mean}
    return scores


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
    meta: Mapping[str, object],
    expected: Iterable[Question] | None = None,
) -> Path:
    """Score the rows and write `report.json` and `report.md` into a folder.

    Args:
        folder: created if need be.
        rows: the ledger.
        meta: what the numbers belong to, e.g. checkpoint, settings hash, date; values that JSON
            lacks are written as text.
        expected: as in `score_rows`.

    Returns:
        The path of `report.json`: `scores`, `counts` (rows per benchmark and split) and `meta`.
    """
    scores = score_rows(rows, expected)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row.benchmark][row.split] += 1
    content = {"scores": scores, "counts": counts, "meta": dict(meta)}
    path = folder / "report.json"
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=2, default=str) + "\n")
    write_atomically(folder / "report.md", _markdown(scores, meta))
    return path


def rich_table(scores: Scores) -> Table:
    """Show the scores in a terminal: a line per split, chance levels beside what they belong to."""
    # No frame, and fewer numbers than in the report: this must fit into 80 columns.
    header, lines = _cells(scores, [key for key in _PERCENTAGES if key not in _REPORT_ONLY])
    table = Table(
        title="Scores in %",
        box=box.SIMPLE_HEAD,
        padding=0,
        caption="chance, always yes: what a model that ignores the picture can have. By POPE's rule"
        " an unknown English answer counts as yes; in other languages it is wrong.",
    )
    for position, name in enumerate(header):
        is_name = position < 2
        table.add_column(
            name,
            justify="left" if is_name else "right",
            no_wrap=is_name,
            min_width=max(map(len, name.split())),
        )
    for line in lines:
        is_mean = line[1] == RESERVED_SPLIT
        table.add_row(*line, style="bold" if is_mean else None)
    return table


def _score_split(rows: Sequence[LedgerRow]) -> dict[str, float]:
    languages = {row.language for row in rows}
    if len(languages) > 1:
        raise SettingError(
            f"split {rows[0].split!r} of {rows[0].benchmark!r} holds rows in the languages "
            f"{sorted(languages)}, expected one; give the benchmark in each language a name of its "
            "own"
        )
    labels = [_label(row) for row in rows]
    answers = [row.raw_answer for row in rows]
    numbers = pope_compute(pope_update(answers, labels, dialect_for(languages.pop())))
    positives = labels.count("yes")
    return {
        **numbers,
        "chance_accuracy": max(Counter(labels).values()) / len(labels),
        "chance_f1": 2 * positives / (len(labels) + positives),
    }


def _label(row: LedgerRow) -> str:
    if row.label is None:
        raise SettingError(
            f"question {row.question_id!r} of {row.benchmark!r}, split {row.split!r}, has no "
            "label; expected a ledger of `validate` or `test`: what `predict` answers cannot be "
            "scored"
        )
    return row.label


def _check_rows(rows: Sequence[LedgerRow], expected: Iterable[Question] | None) -> None:
    if not rows:
        raise SettingError("no answers to score; expected a ledger with a row per question")
    found = Counter((row.benchmark, row.split, row.question_id) for row in rows)
    duplicates = [key for key, count in found.items() if count > 1]
    _refuse(
        duplicates,
        "answered more than once",
        "expected one row per question; remove the others from the ledger",
    )
    if expected is None:
        return
    wanted = dict.fromkeys(
        (question.benchmark, question.split, question.question_id) for question in expected
    )
    missing = [key for key in wanted if key not in found]
    _refuse(
        missing, "without an answer", "scores of a part would not be comparable; answer the rest"
    )
    foreign = [key for key in found if key not in wanted]
    _refuse(
        foreign,
        "not of this benchmark",
        "expected answers to the configured questions only; check data.benchmarks",
    )


def _refuse(keys: Sequence[tuple[str, str, str]], problem: str, remedy: str) -> None:
    if keys:
        benchmark, split, question_id = keys[0]
        raise SettingError(
            f"{len(keys)} questions {problem}, first {question_id!r} of {benchmark!r}, split "
            f"{split!r}; {remedy}"
        )


def _cells(scores: Scores, keys: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    keys = list(keys)
    header = ["benchmark", "split", "asked", *(_PERCENTAGES[key] for key in keys)]
    lines: list[list[str]] = []
    for benchmark, splits in scores.items():
        for split, numbers in splits.items():
            total = f"{numbers['total']:,}" if "total" in numbers else ""
            percentages = [f"{100 * numbers[key]:.2f}" if key in numbers else "" for key in keys]
            lines.append([benchmark, split, total, *percentages])
    return header, lines


def _markdown(scores: Scores, meta: Mapping[str, object]) -> str:
    header, lines = _cells(scores, _PERCENTAGES)
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])
    facts = "".join(f"* {key}: {value}\n" for key, value in meta.items())
    return f"# Scores\n\n{table}\n\n{_LEGEND}\n" + (f"\n{facts}" if facts else "")
