"""The ledger: one row per question, with everything needed to score again without the model."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import read_json_lines, write_atomically

Key = tuple[str, str, str]
"""Benchmark, split and question id, which no two rows of a ledger share."""


@dataclass(frozen=True)
class LedgerRow:
    """A question and what became of it."""

    benchmark: str
    split: str
    question_id: str
    image: str | None
    language: str
    question: str
    """The benchmark's own text."""
    prompt: str
    """The exact text that the model was given."""
    raw_answer: str
    """The model's text, untouched: scoring starts from here."""
    label: str | None
    parsed: str | None
    """How the headline scorer reads the answer; None without a label."""
    correct: bool | None
    kind: str
    """Format and scorer: `BenchmarkSpec.kind`, or `predict`."""
    answers: list
    """All right answers, ten for VQAv2."""
    types: dict
    """Ways to group the questions → the group of this one."""
    source: str | None
    """The published question, where `question` is its translation."""
    english: str | None
    """The answer brought back into English, where the model was asked in another language and is
    scored in English."""
    route: str | None
    """How that was done: `map`, `lexicon`, `mt`, `kept` where the answer was English already, or
    `none` where nothing could, and `english` is empty."""

    @property
    def key(self) -> Key:
        """Which question it is."""
        return self.benchmark, self.split, self.question_id


def repeated_keys(rows: Iterable[LedgerRow]) -> list[Key]:
    """List the questions that are answered more than once."""
    return [key for key, count in Counter(row.key for row in rows).items() if count > 1]


def refuse_keys(keys: Sequence[Key], problem: str, remedy: str, ledger: str = "") -> None:
    """Refuse questions of a ledger, if there are any.

    Args:
        keys: of the questions.
        problem: what is wrong with them.
        remedy: what was expected, or mends it.
        ledger: which one, where that is not clear.

    Raises:
        SettingError: with their number and the first.
    """
    if keys:
        benchmark, split, question_id = keys[0]
        where = f"{ledger}: " if ledger else ""
        raise SettingError(
            f"{where}{len(keys):,} questions {problem}, first {question_id!r} of {benchmark!r}, "
            f"split {split!r}; {remedy}"
        )


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> None:
    """Write a whole ledger; an existing one is replaced only when the new one is complete."""
    write_atomically(path, "".join(map(_line, rows)))


def append_rows(path: Path, rows: Iterable[LedgerRow]) -> None:
    """Add rows to the end of a ledger, which is created if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as handle:
        handle.writelines(map(_line, rows))


def read_ledger(path: Path) -> list[LedgerRow]:
    """Read a ledger back.

    Raises:
        SettingError: the file does not exist, or a line is not a ledger row.
    """
    return [
        _row(record, f"{path}, line {number}")
        for number, record in read_json_lines(path, "the ledger")
    ]


def _line(row: LedgerRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _row(record: dict[str, Any], where: str) -> LedgerRow:
    expected = get_type_hints(LedgerRow)
    if record.keys() != expected.keys():
        missing, unknown = (
            sorted(expected.keys() - record.keys()),
            sorted(record.keys() - expected.keys()),
        )
        raise SettingError(
            f"{where}: not a ledger row, missing {missing}, unknown {unknown}; give a ledger that "
            "this version wrote"
        )
    for name, kind in expected.items():
        if not isinstance(record[name], kind):
            wanted = getattr(kind, "__name__", str(kind))
            raise SettingError(
                f"{where}: {name} is {record[name]!r}, expected {wanted}; mend the line"
            )
    return LedgerRow(**record)
