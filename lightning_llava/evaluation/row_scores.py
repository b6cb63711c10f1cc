"""Score one answer, as the headline number of its benchmark does."""

from collections.abc import Callable
from dataclasses import replace

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.kinds import headline_dialect, scored_answer
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.gqa import gqa_is_right
from lightning_llava.evaluation.scorers.ocr import normalise_reading
from lightning_llava.evaluation.scorers.pope import parse_answer
from lightning_llava.evaluation.scorers.regions import THRESHOLD, iou, parse_box
from lightning_llava.evaluation.scorers.vqa import VqaBenchmark, vqa_tenths
from lightning_llava.evaluation.scorers.vqa_text import process_m4c

RIGHT = 0.5
"""A row with this score or more is called right: half a point, where the score has parts."""


def row_score(row: LedgerRow) -> float:
    """Score a row from its answer: 0 to 1, in tenths for VQAv2 and TextVQA, else right or wrong.

    A POPE row is right as its accuracy counts, a region with an IoU of 0.5 or more.

    Raises:
        SettingError: the row has no label.
    """
    label = label_of(row)
    return _SCORES[row.kind](row, label)


def judged(row: LedgerRow) -> LedgerRow:
    """Fill `parsed` and `correct` from the answers of the row; without a label both are None.

    An answer is called correct from a score of `RIGHT`.
    """
    if row.label is None:
        return replace(row, parsed=None, correct=None)
    return replace(row, parsed=read_answer(row), correct=row_score(row) >= RIGHT)


def read_answer(row: LedgerRow) -> str | None:
    """Read the answer of a scored kind as the headline does; empty or None where nothing is read.

    POPE's is yes, no or unknown.
    """
    return _READERS[row.kind](row)


def label_of(row: LedgerRow) -> str:
    """Return the label, which a row that is scored must have.

    Raises:
        SettingError: it has none, or its kind has no scorer.
    """
    if row.label is None or row.kind not in _SCORES:
        raise SettingError(
            f"question {row.question_id!r} of {row.benchmark!r}, split {row.split!r}, has no "
            "label; expected a ledger of `validate` or `test`: what `predict` answers cannot be "
            "scored"
        )
    return row.label


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
    dialect = headline_dialect(row)
    assert dialect is not None
    return dialect


def _read_short(row: LedgerRow) -> str:
    return scored_answer(row).strip().rstrip(".").lower()


def _read_box(row: LedgerRow) -> str | None:
    box = parse_box(row.raw_answer)
    return None if box is None else str(list(box))


def _score_vqa(row: LedgerRow, label: str) -> float:
    benchmark: VqaBenchmark = "vqav2" if row.kind == "vqav2" else "textvqa"
    return vqa_tenths(scored_answer(row), row.answers, _dialect(row), benchmark) / 10


def _score_gqa(row: LedgerRow, label: str) -> float:
    return float(gqa_is_right(scored_answer(row), label, _dialect(row)))


def _score_ocr(row: LedgerRow, label: str) -> float:
    return float(read_answer(row) == normalise_reading(label, _dialect(row)))


def _score_regions(row: LedgerRow, label: str) -> float:
    found = parse_box(row.raw_answer)
    return float(found is not None and iou(found, right_box(label)) >= THRESHOLD)


_READERS: dict[str, Callable[[LedgerRow], str | None]] = {
    "pope": lambda row: parse_answer(scored_answer(row), row.language),
    "vqav2": lambda row: process_m4c(scored_answer(row)),
    "textvqa": lambda row: process_m4c(scored_answer(row)),
    "gqa": _read_short,
    "gqa_ru": _read_short,
    "ocr": lambda row: normalise_reading(row.raw_answer, _dialect(row)),
    "regions": _read_box,
}
_SCORES: dict[str, Callable[[LedgerRow, str], float]] = {
    "pope": lambda row, label: float(read_answer(row) == label),
    "vqav2": _score_vqa,
    "textvqa": _score_vqa,
    "gqa": _score_gqa,
    "gqa_ru": _score_gqa,
    "ocr": _score_ocr,
    "regions": _score_regions,
}
