"""The command line of `tools/score.py`."""

import json
import math
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lightning_llava.evaluation.rescoring.run import ALL, Rescored, named, rescore
from lightning_llava.evaluation.scorers.dialects import DIALECTS

_COUNTS = ("tp", "fp", "tn", "fn", "correct", "total")
_HEADERS = {name: name for name in (*_COUNTS, "accuracy", "precision", "recall")} | {
    "f1": "F1",
    "yes_ratio": "yes ratio",
    "unknown_rate": "unknown",
    "cer": "CER",
    "wer": "WER",
    "mean_cer": "mean CER",
    "mean_wer": "mean WER",
}
_HIDDEN = ("by_question_type",)
"""65 lines of it; `--json` has them."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Score what the command line names, and print it.

    Raises:
        SettingError: files, rows or dialect do not fit together.
    """
    options = parser().parse_args(arguments)
    result = rescore(
        options.benchmark,
        [named(file) for file in options.ground_truth],
        [named(file) for file in options.predictions],
        options.questions,
        options.dialect,
    )
    if options.json:
        # Not a number is no JSON: what has no value is null.
        json.dump(_plain(_report(result)), sys.stdout, ensure_ascii=False, indent=2)
        sys.stdout.write("\n")
        return 0
    _print(result, Console())
    return 0


def parser() -> ArgumentParser:
    """Build the argument parser."""
    table = "\n".join(f"  {benchmark}: {', '.join(names)}" for benchmark, names in DIALECTS.items())
    parser = ArgumentParser(
        prog="python tools/score.py",
        formatter_class=RawDescriptionHelpFormatter,
        description="Score answers again, this project's or others', without a model.",
        epilog="dialects; when none is named, a ledger takes that of its report, other answers the "
        f"first (pope: strict for answers in Russian):\n{table}",
    )
    add = parser.add_argument
    add("benchmark", choices=list(DIALECTS))
    add(
        "--ground-truth",
        nargs="+",
        required=True,
        metavar="[SPLIT=]FILE",
        help="as published; pope: one per split; ocr: path<TAB>text lines or JSON lines (required)",
    )
    add(
        "--predictions",
        nargs="+",
        required=True,
        metavar="[SPLIT=]FILE",
        help="ledger.jsonl, LLaVA's answers (question_id, text), VQA results (question_id, answer) "
        "or GQA predictions (questionId, prediction) (required)",
    )
    add(
        "--questions",
        type=Path,
        metavar="FILE",
        help="pope: LLaVA's question file, when one answer file holds all splits; vqav2: the "
        "published questions, to check the annotations with",
    )
    add("--dialect", metavar="NAME", help=f"a name, or {ALL} for every one that is defined")
    add("--json", action="store_true", help="unrounded fractions and counts (default: a table)")
    return parser


def _report(result: Rescored) -> dict[str, Any]:
    """Repeat at the top what a single dialect has to say, so that nobody needs to know its name."""
    report = asdict(result)
    if len(result.dialects) > 1:
        return report
    (name, scores), *_ = result.dialects.items()
    numbers = {key: value for key, value in scores.items() if key != "headline"}
    return report | {"dialect": name} | numbers | scores.get("headline", {})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(result: Rescored, console: Console) -> None:
    lines = [f"POPE version: {result.version}"] if result.version else []
    for line in [*lines, *(f"note: {note}" for note in result.notes)]:
        console.print(line, markup=False, highlight=False)
    for dialect, scores in result.dialects.items():
        console.print(f"\n{result.benchmark}, {dialect}, in %", style="bold")
        console.print(DIALECTS[result.benchmark][dialect], markup=False, highlight=False)
        console.print(_table(dict(_named_rows(scores))))


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    keys = [key for key in next(iter(rows.values())) if key in _HEADERS]
    if "tp" in keys:
        keys.remove("total")  # too much for 80 columns, and the version says it
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for key in keys:
        table.add_column(_HEADERS[key], justify="right")
    for name, numbers in rows.items():
        style = "bold" if name in ("headline", "all") else None
        table.add_row(name, *[_cell(key, numbers[key]) for key in keys], style=style)
    return table


def _named_rows(scores: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if "splits" in scores:
        yield from scores["splits"].items()
        yield "headline", scores["headline"]
        return
    yield "all", scores
    for kind, groups in scores.items():
        if isinstance(groups, dict) and kind not in _HIDDEN:
            yield from groups.items()


def _cell(key: str, value: float) -> str:
    if key == "correct" and isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:.0f}" if key in _COUNTS else f"{100 * value:.2f}"
