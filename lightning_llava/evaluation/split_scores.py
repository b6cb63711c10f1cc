"""The numbers of one split, per kind of benchmark."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.kind_scores import Numbers, Scored, score_kind, score_types
from lightning_llava.evaluation.kinds import (
    IN_ENGLISH,
    WITHOUT_LABELS,
    headline_dialect,
    scored_answer,
)
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.row_scores import label_of, read_answer
from lightning_llava.evaluation.russian import has_lemmas, russian_compute, russian_update
from lightning_llava.evaluation.scorers.language import language_compute, language_update

_OF_HUMANS = {"vqav2", "textvqa"}
"""Kinds whose answers are held against ten humans'."""
_OF_ONE = {"pope", "gqa", "gqa_ru"}
"""Kinds with a right answer that may be the commonest."""
_WAYS = {
    "vqav2": ("answer_type", "question_type"),
    **dict.fromkeys(("gqa", "gqa_ru"), ("answer_type", "structural", "semantic")),
}
"""Kind → which types of questions the report tells apart."""


def score_split(rows: Sequence[LedgerRow]) -> Numbers:
    """Score the rows of one split in the headline's dialect.

    Returns:
        What the kind's `…_compute` gives, and with it: `unknown_rate`, the share of answers in
        which nothing can be read; `chance_accuracy`, what always giving the commonest right answer
        would have, and for POPE `chance_f1`, always saying yes; `yes_ratio`, the share of answers
        that say yes, of VQAv2 and GQA where yes or no is right; `accuracy_TYPE` per answer_type
        of VQAv2 and GQA, question_type of VQAv2, and structural and semantic type of GQA;
        `language_fidelity`, the share of raw answers in the language asked for, of those that have
        letters; `not_in_english`, the share of answers in another language that are held against
        English ones, where there are any. Where nothing is published to score with, `total` and
        fidelity.

    Raises:
        SettingError: several kinds or languages in the split, or rows without label.
    """
    kind = _only(rows, "kinds", lambda row: row.kind)
    language = _only(rows, "languages", lambda row: row.language)
    if kind in WITHOUT_LABELS and all(row.label is None for row in rows):
        return {"total": len(rows), **_fidelity(rows, language)}
    labels, scored = [label_of(row) for row in rows], [_scored(row) for row in rows]
    dialect = headline_dialect(rows[0])
    # POPE and regions count their unknowns themselves.
    unknown = sum(not read_answer(row) for row in rows) / len(rows)
    return {
        "unknown_rate": unknown,
        **score_kind(kind, scored, dialect),
        **_chance(kind, scored, labels, dialect),
        **_yes_ratio(rows, kind),
        **_by_type(kind, scored, dialect),
        **(_in_russian(scored, labels) if kind == "gqa_ru" else {}),
        **_fidelity(rows, language),
        **_not_in_english(rows, kind, language),
    }


def _only(rows: Sequence[LedgerRow], what: str, of: Callable[[LedgerRow], str]) -> str:
    found = {of(row) for row in rows}
    if len(found) > 1:
        raise SettingError(
            f"split {rows[0].split!r} of {rows[0].benchmark!r} holds rows in the {what} "
            f"{sorted(found)}, expected one; give each benchmark in each language a name of its own"
        )
    return found.pop()


def _fidelity(rows: Sequence[LedgerRow], language: str) -> Numbers:
    share = language_compute(language_update([row.raw_answer for row in rows], language))
    # Numbers alone are of no language, and not a number is no JSON.
    return {} if math.isnan(share["fidelity"]) else {"language_fidelity": share["fidelity"]}


def _not_in_english(rows: Sequence[LedgerRow], kind: str, language: str) -> Numbers:
    """Tell how many answers nobody has brought back; POPE is read in both languages."""
    if language == "en" or kind == "pope" or kind not in IN_ENGLISH:
        return {}
    share = sum(row.english is None for row in rows) / len(rows)
    return {"not_in_english": share} if share else {}


def _scored(row: LedgerRow) -> Scored:
    right = row.answers if row.kind in _OF_HUMANS else [label_of(row)]
    return Scored(scored_answer(row), right, row.types)


def _chance(kind: str, scored: Sequence[Scored], labels: Sequence[str], dialect: Any) -> Numbers:
    """Score what says the same to every question, where that says something."""
    commonest, times = Counter(labels).most_common(1)[0]
    if kind in _OF_HUMANS:
        same = [each._replace(answer=commonest) for each in scored]
        return {"chance_accuracy": score_kind(kind, same, dialect)["accuracy"]}
    if kind not in _OF_ONE:
        return {}
    chance = {"chance_accuracy": times / len(labels)}
    if kind == "pope":
        positives = labels.count("yes")
        chance["chance_f1"] = 2 * positives / (len(labels) + positives)
    return chance


def _yes_ratio(rows: Sequence[LedgerRow], kind: str) -> Numbers:
    """Tell which way a model leans; POPE's scorer does it itself."""
    if kind not in ("vqav2", "gqa"):
        return {}
    said = [read_answer(row) for row in rows if row.label in ("yes", "no")]
    return {"yes_ratio": said.count("yes") / len(said)} if said else {}


def _by_type(kind: str, scored: Sequence[Scored], dialect: Any) -> Numbers:
    """Return the accuracy of each type of question that is told apart."""
    return {
        f"accuracy_{name.replace('/', '_')}": numbers["accuracy"]
        for way in _WAYS.get(kind, ())
        for name, numbers in score_types(kind, scored, dialect, way).items()
    }


def _in_russian(scored: Sequence[Scored], labels: Sequence[str]) -> Numbers:
    lemmas = has_lemmas()
    counts = russian_update([each.answer for each in scored], labels, lemmas)
    return russian_compute(counts, lemmas)
