"""The paper's tables, with its own numbers beside those measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.intervals import Interval
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import by_benchmark, measures, with_intervals

COLUMNS = {"vqav2": "VQAv2", "gqa": "GQA", "pope": "POPE"}
"""Kind of benchmark → heading."""
LANGUAGES = {"en": "English", "ru": "Russian"}
MISSING = "–"
PAPER, HERE = "paper", "measured"
_LLAVA = "2310.03744"


@dataclass(frozen=True)
class TableRow:
    """A model in a language; scores are fractions."""

    model: str
    language: str
    source: str
    scores: Mapping[str, float | Interval]
    """Kind of benchmark → published number, or a measured one; what is missing is not there."""


def _published(
    model: str, source: str, vqav2: float | None, gqa: float | None, pope: float | None, /
) -> TableRow:
    numbers = {"vqav2": vqav2, "gqa": gqa, "pope": pope}
    known = {kind: number for kind, number in numbers.items() if number is not None}
    return TableRow(model, "en", source, known)


_LLAVA_15 = _published("LLaVA 1.5", PAPER, 0.80, 0.63, 0.85)
PUBLISHED = {
    # English questions. arXiv:2310.03744 is LLaVA 1.5's own paper: LLaVA's rows are in its model
    # zoo, the others in its figure 1, all in percent.
    "table1": (
        _LLAVA_15,
        _published("InstructBLIP", PAPER, 0.48, 0.49, 0.79),
        _published("BLIP-2", PAPER, 0.15, 0.02, 0.86),
        _published("LLaVA 1.5 13B", _LLAVA, 0.800, 0.633, 0.859),
        _published("LLaVA 1.5 7B", _LLAVA, 0.785, 0.620, 0.859),
        _published("InstructBLIP 13B", _LLAVA, None, 0.495, 0.789),
        _published("BLIP-2 13B", _LLAVA, None, None, 0.853),
    ),
    # The second under the Russian protocol: translated questions, answers brought back.
    "table3": (
        _LLAVA_15,
        TableRow("LLaVA-Saiga/Mistral", "ru", PAPER, {"vqav2": 0.72, "gqa": 0.53, "pope": 0.79}),
    ),
}


def fill_table(
    name: str, ledgers: Sequence[tuple[str, Sequence[LedgerRow]]], **bootstrap: int
) -> list[TableRow]:
    """Put what was measured below the paper's row of the same model, or at the end.

    Args:
        name: `table1` or `table3`.
        ledgers: name of a model and its rows; one name may have several ledgers.
        bootstrap: `resamples` and `seed` of the intervals.

    Raises:
        SettingError: a ledger cannot be scored, holds none of the table's benchmarks, or there are
            two benchmarks for one cell.
    """
    measured: dict[tuple[str, str], dict[str, Interval]] = {}
    for model, rows in ledgers:
        cells = _cells(model, rows, bootstrap)
        for (language, kind), cell in cells.items():
            row = measured.setdefault((model, language), {})
            if kind in row:
                raise SettingError(
                    f"{model!r} has more than one {COLUMNS[kind]} in {LANGUAGES[language]}; "
                    "expected one for the cell: give each ledger a name of its own, NAME=LEDGER"
                )
            row[kind] = cell
    ours = [
        TableRow(model, language, HERE, scores) for (model, language), scores in measured.items()
    ]
    table: list[TableRow] = []
    for published in PUBLISHED[name]:
        same = [row for row in ours if _key(row) == _key(published)]
        table += [published, *same]
        ours = [row for row in ours if row not in same]
    return table + ours


def _key(row: TableRow) -> tuple[str, str]:
    return row.model.casefold(), row.language


def _cells(
    model: str, rows: Sequence[LedgerRow], bootstrap: Mapping[str, int]
) -> dict[tuple[str, str], Interval]:
    cells: dict[tuple[str, str], Interval] = {}
    for benchmark, part in by_benchmark(rows).items():
        kind, language = part[0].kind, part[0].language
        if kind not in COLUMNS or all(row.label is None for row in part):
            continue  # of another table, or without right answers: VQAv2's test-dev
        headline = next(iter(measures(kind)))
        if (language, kind) in cells:
            raise SettingError(
                f"the ledger of {model!r} has more than one {COLUMNS[kind]} in "
                f"{LANGUAGES[language]}, {benchmark!r} being the second; expected one for the cell"
            )
        numbers = with_intervals(part, **bootstrap)[benchmark]
        cells[language, kind] = list(numbers.values())[-1][headline]  # the mean, if there is one
    if not cells:
        raise SettingError(
            f"the ledger of {model!r} holds no scored rows of {', '.join(COLUMNS.values())}, only "
            f"of {', '.join(sorted({row.kind for row in rows})) or 'nothing'}"
        )
    return cells


def markdown_table(rows: Sequence[TableRow]) -> str:
    """Write a table for a document."""
    lines = [_HEADER, ["---"] * 3 + ["---:"] * len(COLUMNS)]
    lines += [_line(row, " ({}–{})") for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{LEGEND}\n"


def rich_table(rows: Sequence[TableRow], title: str) -> Table:
    """Show a table in a terminal of 80 columns: the interval stands below its number."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, caption=LEGEND)
    for position, heading in enumerate(_HEADER):
        table.add_column(heading, justify="left" if position < 3 else "right", no_wrap=position > 0)
    for row in rows:
        cells = map(escape, _line(row, "\n{}–{}"))
        table.add_row(*cells, style="bold" if row.source == HERE else None)
    return table


def plain_table(rows: Sequence[TableRow]) -> list[dict[str, Any]]:
    """Return what JSON holds: unrounded fractions; None where there is no number."""

    def plain(score: float | Interval | None) -> dict[str, Any] | None:
        if score is None or isinstance(score, Interval):
            return None if score is None else asdict(score)
        return {"value": score}

    return [
        {"model": row.model, "language": row.language, "source": row.source}
        | {kind: plain(row.scores.get(kind)) for kind in COLUMNS}
        for row in rows
    ]


_HEADER = ["model", "questions", "source", *COLUMNS.values()]
LEGEND = (
    "VQAv2 and GQA: accuracy; POPE: mean F1 of its splits. In brackets, or below: 95 % interval, "
    "images drawn anew. Sources: paper, the one this project follows; 2310.03744, LLaVA 1.5's own "
    "on arXiv; measured, your ledgers."
)


def _line(row: TableRow, span: str) -> list[str]:
    decimals = 2 if row.source == PAPER else 3  # as many as were published
    cells = [_cell(row.scores.get(kind), decimals, span) for kind in COLUMNS]
    return [row.model, LANGUAGES[row.language], row.source, *cells]


def _cell(score: float | Interval | None, decimals: int, span: str) -> str:
    if score is None:
        return MISSING
    if not isinstance(score, Interval):
        return f"{score:.{decimals}f}"
    value = f"{score.value:.{decimals}f}"
    if score.low is None or score.high is None:
        return value
    return value + span.format(f"{score.low:.3f}", f"{score.high:.3f}")
