"""What the Russian protocol measured: score, MT ceiling, score by route, language, problems."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.table import Table

from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.language import language_compute, language_update
from lightning_llava.evaluation.translation.answers import ROUTES, Brought
from lightning_llava.evaluation.translation.ceiling import Ceiling
from lightning_llava.evaluation.translation.scoring import headline, row_score
from lightning_llava.evaluation.translation.snap import Vocabulary

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
        and `score` (the mean over rows: of POPE the accuracy); `language`: see
        `language_compute`; `problems`: what went wrong on the way → rows. With a ceiling,
        `ceiling`, `gold` (the right answers, not translated) and `ceiling_routes`; with a
        vocabulary, `snapped`.
    """
    result = {split: _describe(part) for split, part in answered.by_split().items()}
    if ceiling:
        gold = Answered(ceiling.gold, ceiling.brought).by_split()
        for split, part in Answered(ceiling.rows, ceiling.brought).by_split().items():
            result[split] |= {
                "ceiling": headline(part.rows),
                "gold": headline(gold[split].rows),
                "ceiling_routes": _routes(part),
            }
    if vocabulary:
        for split, part in answered.by_split().items():
            snapped = [
                replace(row, english=vocabulary.snap(row.english or "")) for row in part.rows
            ]
            result[split]["snapped"] = headline(snapped)
    return {"/".join(split): numbers for split, numbers in result.items()}


def _describe(part: Answered) -> dict[str, Any]:
    rows = part.rows
    problems = Counter(problem for brought in part.brought for problem in brought.problems)
    return {
        "kind": rows[0].kind,
        "metric": "F1" if rows[0].kind == "pope" else "accuracy",
        "total": len(rows),
        "score": headline(rows),
        "routes": _routes(part),
        "language": _fidelity([row.raw_answer for row in rows]),
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
        "score": "score",
        "ceiling": "MT ceiling",
        "gold": "gold",
        "snapped": "snapped",
    }
    table = Table(title="Scores in %", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for name in ("metric", "rows", *columns.values(), "in Russian"):
        table.add_column(name, justify="right")
    for name, numbers in splits.items():
        table.add_row(
            name,
            numbers["metric"],
            f"{numbers['total']:,}",
            *(_percent(numbers.get(column)) for column in columns),
            _percent(numbers["language"]["fidelity"]),
        )
    return table


def route_table(splits: Mapping[str, Mapping[str, Any]], key: str = "routes") -> Table:
    """Show how answers came into English, and what they are worth by that."""
    what = "Answers" if key == "routes" else "Right answers, there and back,"
    table = Table(title=f"{what} by route", box=box.SIMPLE_HEAD, padding=0)
    for name in ("", "route"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "share", "score"):
        table.add_column(name, justify="right")
    table.add_column("how")
    for name, numbers in splits.items():
        for route, how in ROUTES.items():
            if found := numbers.get(key, {}).get(route):
                cells = (f"{found['rows']:,}", _percent(found["share"]), _percent(found["score"]))
                table.add_row(name, route, *cells, how)
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
