"""Score rows whose answers were brought back into English."""

from collections.abc import Sequence
from dataclasses import replace

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.gqa import gqa_is_right
from lightning_llava.evaluation.scorers.pope import parse_strict, pope_compute, pope_update
from lightning_llava.evaluation.scorers.vqa import vqa_tenths

IN_ENGLISH = ("pope", "vqav2", "textvqa", "gqa")
"""Kinds whose right answers are English; all others are scored as they were answered."""


def row_score(row: LedgerRow) -> float:
    """Score the English answer, 0 to 1, in LLaVA's dialect; POPE's unknown answers are wrong.

    Not in POPE's official one: what it cannot read, a lost translation included, is yes to it.

    Raises:
        SettingError: the row has no label, or is of a kind that is not scored in English.
    """
    if row.label is None or row.kind not in IN_ENGLISH:
        raise SettingError(
            f"question {row.question_id!r} of {row.benchmark!r}, split {row.split!r}: kind "
            f"{row.kind!r}, label {row.label!r}, cannot be scored in English; expected a kind of "
            f"{', '.join(IN_ENGLISH)} with published answers"
        )
    answer = row.english or ""
    if row.kind == "pope":
        return float(parse_strict(answer) == row.label)
    if row.kind == "gqa":
        return float(gqa_is_right(answer, row.label, "llava"))
    benchmark = "vqav2" if row.kind == "vqav2" else "textvqa"
    return vqa_tenths(answer, row.answers, "llava", benchmark) / 10


def judged(row: LedgerRow) -> LedgerRow:
    """Fill `parsed` and `correct`; an answer is called correct from a score of 0.5."""
    if row.label is None:
        return row
    answer = row.english or ""
    parsed = parse_strict(answer) if row.kind == "pope" else answer.strip().rstrip(".").lower()
    return replace(row, parsed=parsed, correct=row_score(row) >= 0.5)


def headline(rows: Sequence[LedgerRow]) -> float:
    """Return the number that stands for a split: F1 for POPE, else the accuracy."""
    if rows[0].kind != "pope":
        return sum(map(row_score, rows)) / len(rows)
    answers, labels = [row.english or "" for row in rows], [row.label or "" for row in rows]
    return pope_compute(pope_update(answers, labels, "strict"))["f1"]
