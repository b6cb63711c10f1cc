"""What each kind of benchmark is known by: its headline number, and the dialect of it."""

from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.pope import dialect_for

HEADLINE = {
    "pope": "f1",
    "vqav2": "accuracy",
    "textvqa": "accuracy",
    "gqa": "accuracy",
    "gqa_ru": "accuracy",
    "ocr": "accuracy",
    "regions": "accuracy",
}
"""Kind → the number that stands for it; MT-Bench has none, for its judge is elsewhere."""
WITHOUT_LABELS = {"vqav2", "textvqa", "mt_bench"}
"""Kinds of which whole splits may have no published answers."""
_DIALECT = {"vqav2": "llava", "textvqa": "llava", "gqa": "llava", "gqa_ru": "lmms-eval"}
"""Vicuna's and Saiga's answers begin with a capital letter, which the official scripts of VQAv2 and
GQA count as wrong; LLaVA's published numbers are computed with its own. GQA-ru's were with
lmms-eval's."""
IN_ENGLISH = {"pope", "vqav2", "textvqa", "gqa"}
"""Kinds whose right answers are English."""


def headline_dialect(row: LedgerRow) -> str | None:
    """Name the dialect in which an answer is scored; None where there is only one way.

    POPE goes by the language that was asked in, also where the answer was brought back into
    English: by the official rule a translation that was lost would be a yes.
    """
    if row.kind == "pope":
        return dialect_for(row.language)
    return "verbatim" if row.kind == "ocr" else _DIALECT.get(row.kind)


def scored_answer(row: LedgerRow) -> str:
    """Return the text that is scored: brought back into English, where that was done.

    Kinds whose right answers are not English are scored as they were answered.
    """
    return row.english if row.english is not None and row.kind in IN_ENGLISH else row.raw_answer
