"""Score one answer, as the headline number of its benchmark does."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.kinds import headline_dialect, scored_answer, scored_language
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.gqa import gqa_is_right
from lightning_llava.evaluation.scorers.ocr import normalise_reading
from lightning_llava.evaluation.scorers.pope import parse_answer
from lightning_llava.evaluation.scorers.regions import THRESHOLD, iou, parse_box
from lightning_llava.evaluation.scorers.vqa import vqa_tenths
from lightning_llava.evaluation.scorers.vqa_text import process_m4c


class Judgement(NamedTuple):
    """How an answer is read, and what it is worth."""

    parsed: str | None
    """None where nothing can be read."""
    score: float
    """0 to 1."""


def row_score(row: LedgerRow) -> float:
    """Score a row from its answer: 0 to 1, in tenths for VQAv2 and TextVQA, else right or wrong.

    A POPE row is right as its accuracy counts, a region with an IoU of 0.5 or more.

    Raises:
        SettingError: the row has no label.
    """
    return judge(row).score


def judged(row: LedgerRow) -> LedgerRow:
    """Fill `parsed` and `correct` from the answers of the row; without a label both are None.

    An answer is called correct from a score of 0.5.
    """
    if row.label is None:
        return replace(row, parsed=None, correct=None)
    parsed, score = judge(row)
    return replace(row, parsed=parsed, correct=score >= 0.5)


def judge(row: LedgerRow) -> Judgement:
    """Read and score an answer in the headline's dialect.

    Raises:
        SettingError: the row has no label, or no scorer.
    """
    if row.label is None or row.kind not in _JUDGES:
        raise SettingError(
            f"question {row.question_id!r} of {row.benchmark!r}, split {row.split!r}, has no "
            "label; expected a ledger of `validate` or `test`: what `predict` answers cannot be "
            "scored"
        )
    return _JUDGES[row.kind](row, row.label)


def _judge_pope(row: LedgerRow, label: str) -> Judgement:
    parsed = parse_answer(scored_answer(row), scored_language(row))
    return Judgement(parsed, float(parsed == label))


def _judge_vqa(row: LedgerRow, label: str) -> Judgement:
    answer, dialect = scored_answer(row), _dialect(row)
    benchmark = "vqav2" if row.kind == "vqav2" else "textvqa"
    return Judgement(process_m4c(answer), vqa_tenths(answer, row.answers, dialect, benchmark) / 10)


def _judge_gqa(row: LedgerRow, label: str) -> Judgement:
    answer = scored_answer(row)
    read = answer.strip().rstrip(".").lower()
    return Judgement(read, float(gqa_is_right(answer, label, _dialect(row))))


def _judge_ocr(row: LedgerRow, label: str) -> Judgement:
    read, expected = (normalise_reading(text, _dialect(row)) for text in (row.raw_answer, label))
    return Judgement(read, float(read == expected))


def _judge_regions(row: LedgerRow, label: str) -> Judgement:
    found, expected = parse_box(row.raw_answer), right_box(label)
    if found is None:
        return Judgement(None, 0.0)
    return Judgement(str(list(found)), float(iou(found, expected) >= THRESHOLD))


def right_box(label: str) -> tuple[float, float, float, float]:
    """Read the label of a region.

    Raises:
        SettingError: it is no box.
    """
    box = parse_box(label)
    if box is None:
        raise SettingError(f"label {label!r}, expected [left, top, right, bottom]; mend the ledger")
    return box


def _dialect(row: LedgerRow) -> str:
    dialect = headline_dialect(row.kind, scored_language(row))
    assert dialect is not None
    return dialect


_JUDGES: dict[str, Callable[[LedgerRow, str], Judgement]] = {
    "pope": _judge_pope,
    "vqav2": _judge_vqa,
    "textvqa": _judge_vqa,
    "gqa": _judge_gqa,
    "gqa_ru": _judge_gqa,
    "ocr": _judge_ocr,
    "regions": _judge_regions,
}
