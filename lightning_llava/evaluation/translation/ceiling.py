"""The MT ceiling: what right answers score when they go into Russian and back as all others do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.ocr import ocr_compute, ocr_update
from lightning_llava.evaluation.translation.answers import (
    AnswerChain,
    Brought,
    trace,
    translate_answers,
    with_english,
)
from lightning_llava.evaluation.translation.cache import CachedTranslator

_PLAIN = {"yes": "да", "no": "нет"}
"""Said in Russian by anyone, and by the map on the way back."""


@dataclass(frozen=True)
class Ceiling:
    """Right answers after the round trip, and before it."""

    rows: list[LedgerRow]
    """`raw_answer` is the right answer in Russian."""
    brought: list[Brought]
    gold: list[LedgerRow]
    """The right answers untouched: VQAv2's own do not all score 1."""


def ceiling(rows: Sequence[LedgerRow], to_russian: CachedTranslator, chain: AnswerChain) -> Ceiling:
    """Send the right answers of rows through translation and the chain.

    Yes and no become да and нет, all others are translated behind their English question, where the
    row has it. A right answer without a usable translation is lost: it counts as answered with
    nothing.

    Args:
        rows: with labels; what the model answered is not looked at.
        to_russian: the translator of the questions.
        chain: the way back.
    """
    labels = [row.label or "" for row in rows]
    rest = [(label, row.source) for label, row in zip(labels, rows, strict=True)]
    rest = [pair for pair in dict.fromkeys(rest) if pair[0] not in _PLAIN]
    said = dict(zip(rest, translate_answers(rest, to_russian), strict=True))
    russian = [
        replace(row, language="ru", raw_answer=_PLAIN.get(label) or said[label, row.source][0])
        for label, row in zip(labels, rows, strict=True)
    ]
    brought = trace(russian, chain)
    return Ceiling(
        [with_english(row, back) for row, back in zip(russian, brought, strict=True)],
        brought,
        [replace(row, english=label) for row, label in zip(rows, labels, strict=True)],
    )


def question_ceiling(
    questions: Sequence[str], to_russian: CachedTranslator, to_english: CachedTranslator
) -> dict[str, float]:
    """Compare different English questions with themselves after the round trip.

    A failed translation counts as empty.

    Returns:
        Nothing where there are no questions, else `ocr_compute`: `accuracy` (the same but for case
        and the shape of signs), `wer` and more.
    """
    unique = list(dict.fromkeys(questions))
    if not unique:
        return {}
    forth = ["" if said.problem else said.text for said in to_russian.translate(unique)]
    back = ["" if said.problem else said.text for said in to_english.translate(forth)]
    return ocr_compute(ocr_update(back, unique, "folded"))
