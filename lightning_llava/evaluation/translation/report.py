"""What the Russian protocol measured: score, MT ceiling, score by route, language, problems."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.table import Table

from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT
from lightning_llava.evaluation.kinds import HEADLINE
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.row_scores import row_score
from lightning_llava.evaluation.scorers.language import language_compute, language_update
from lightning_llava.evaluation.split_scores import score_split
from lightning_llava.evaluation.translation.answers import ROUTES, Brought
from lightning_llava.evaluation.translation.ceiling import Ceiling
from lightning_llava.evaluation.translation.snap import Vocabulary

_COLUMNS = {"score": "score", "ceiling": "MT ceiling", "gold": "gold", "snapped": "snapped"}

Split = tuple[str, str]
"""Benchmark and split."""


@dataclass(frozen=True)
class Answered:
    """Rows with labels, brought back, and how."""

    rows: Sequence[LedgerRow]
    brought: Sequence[Brought]

    def by_split(self) -> dict[Split, "Answered"]:
        """Part the rows."""
        places: dict[Split, list[int]] = defaultdict(list)
        for place, row in enumerate(self.rows):
            places[row.benchmark, row.split].append(place)
        return {
            split: Answered([self.rows[p] for p in chosen], [self.brought[p] for p in chosen])
            for split, chosen in places.items()
        }


def report(
    answered: Answered, ceiling: Ceiling | None = None, vocabulary: Vocabulary | None = None
) -> dict[str, Any]:
    """Count and score.

    Args:
        answered: all rows that were answered in Russian and are scored in English.
        ceiling: of the same rows in the same order; None goes without.
        vocabulary: also score answers put to the nearest of these.

    Returns:
        `BENCHMARK/SPLIT` → `kind`, `metric`, `total`, `score`; `routes`: route → `rows`, `share`
        and `score` (the mean over rows: of POPE the accuracy); `problems`: what went wrong on the
        way → rows; `language`: see `language_compute`. With a ceiling, `ceiling`,
        `ceiling_routes`, `ceiling_problems` and `gold`, what the right answers score untranslated;
        with a vocabulary, `snapped`. Of several splits, `BENCHMARK/mean` has the plain means.
    """
    result: dict[Split, dict[str, Any]] = {}
    for split, part in answered.by_split().items():
        kind = part.rows[0].kind
        result[split] = {
            "kind": kind,
            "metric": HEADLINE[kind],
            "total": len(part.rows),
            **_score(part),
            "language": _fidelity([row.raw_answer for row in part.rows]),
        }
        if vocabulary:
            snapped = [
                replace(row, english=vocabulary.snap(row.english or "")) for row in part.rows
            ]
            result[split]["snapped"] = headline(snapped)
    for split, numbers in ceiling_report(ceiling).items() if ceiling else ():
        result[split] |= numbers
    return _named(result)


def headline(rows: Sequence[LedgerRow]) -> float:
    """Return the number that stands for a split."""
    return score_split(rows)[HEADLINE[rows[0].kind]]


def ceiling_report(ceiling: Ceiling) -> dict[Split, dict[str, Any]]:
    """Count and score the round trip of the right answers alone."""
    gold = Answered(ceiling.gold, ceiling.brought).by_split()
    return {
        split: {
            "ceiling": (numbers := _score(part))["score"],
            "ceiling_routes": numbers["routes"],
            "ceiling_problems": numbers["problems"],
            "gold": headline(gold[split].rows),
        }
        for split, part in Answered(ceiling.rows, ceiling.brought).by_split().items()
    }


def _named(splits: dict[Split, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    named = {"/".join(split): numbers for split, numbers in splits.items()}
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in splits):
        parts = [numbers for split, numbers in splits.items() if split[0] == benchmark]
        if len(parts) > 1:
            means = {
                key: sum(numbers[key] for numbers in parts) / len(parts)
                for key in ("score", "ceiling", "gold", "snapped")
                if key in parts[0]
            }
            total = sum(numbers["total"] for numbers in parts)
            metric = parts[0]["metric"]
            named[f"{benchmark}/{RESERVED_SPLIT}"] = {"metric": metric, "total": total, **means}
    return named


def _score(part: Answered) -> dict[str, Any]:
    problems = Counter(problem for brought in part.brought for problem in brought.problems)
    return {
        "score": headline(part.rows),
        "routes": _routes(part),
        "problems": dict(problems.most_common()),
    }


def _fidelity(answers: Sequence[str]) -> dict[str, float | None]:
    """Count the languages; the share of no words at all is null, for JSON has no NaN."""
    numbers = language_compute(language_update(answers, "ru"))
    return {key: None if math.isnan(value) else value for key, value in numbers.items()}


def _routes(part: Answered) -> dict[str, dict[str, float]]:
    scores: dict[str, list[float]] = {route: [] for route in ROUTES}
    for row, brought in zip(part.rows, part.brought, strict=True):
        scores[brought.route].append(row_score(row))
    return {
        route: {
            "rows": len(found),
            "share": len(found) / len(part.rows),
            "score": sum(found) / len(found),
        }
        for route, found in scores.items()
        if found
    }


def score_table(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """Show the scores beside their ceilings, a line per split."""
    columns = {
        key: title for key, title in _COLUMNS.items() if any(key in n for n in splits.values())
    }
    table = Table(title="Scores in %", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for name in ("metric", "rows", *columns.values(), "in Russian"):
        table.add_column(name, justify="right")
    for name, numbers in splits.items():
        cells = [_percent(numbers.get(key)) for key in columns]
        in_russian = _percent(numbers.get("language", {}).get("fidelity"))
        table.add_row(name, numbers["metric"], f"{numbers['total']:,}", *cells, in_russian)
    return table


def route_table(splits: Mapping[str, Mapping[str, Any]], key: str, title: str) -> Table:
    """Show how answers came into English, and what they are worth by that.

    Args:
        splits: of `report`.
        key: `routes` or `ceiling_routes`.
        title: what answers they are.
    """
    caption = "; ".join(f"{route}: {how}" for route, how in ROUTES.items())
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, caption=caption)
    for name in ("", "route"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "share in %", "score in %"):
        table.add_column(name, justify="right")
    for name, numbers in splits.items():
        for route, found in numbers.get(key, {}).items():
            cells = (f"{found['rows']:,}", _percent(found["share"]), _percent(found["score"]))
            table.add_row(name, route, *cells)
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
