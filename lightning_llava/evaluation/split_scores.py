"""The numbers of one split, per kind of benchmark."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.kinds import (
    IN_ENGLISH,
    WITHOUT_LABELS,
    headline_dialect,
    scored_answer,
)
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.row_scores import label_of, read_answer, right_box
from lightning_llava.evaluation.russian import has_lemmas, russian_compute, russian_update
from lightning_llava.evaluation.scorers.gqa import gqa_compute, gqa_update
from lightning_llava.evaluation.scorers.language import language_compute, language_update
from lightning_llava.evaluation.scorers.ocr import ocr_compute, ocr_update
from lightning_llava.evaluation.scorers.pope import pope_compute, pope_update
from lightning_llava.evaluation.scorers.regions import regions_compute, regions_update
from lightning_llava.evaluation.scorers.vqa import VqaBenchmark, vqa_compute, vqa_update

Numbers = dict[str, float]


def score_split(rows: Sequence[LedgerRow]) -> Numbers:
    """Score the rows of one split in the headline's dialect.

    Returns:
        What the kind's `…_compute` gives, and with it: `unknown_rate`, the share of answers in
        which nothing can be read; `chance_accuracy`, what always giving the commonest right answer
        would have, and for POPE `chance_f1`, always saying yes; VQAv2's `accuracy_TYPE` per
        answer_type; `language_fidelity`, the share of raw answers in the language asked for, of
        those that have letters; `not_in_english`, the share of answers in another language that are
        held against English ones, where there are any. Where nothing is published to score with,
        `total` and fidelity.

    Raises:
        SettingError: several kinds or languages in the split, or rows without label.
    """
    kind = _only(rows, "kinds", lambda row: row.kind)
    language = _only(rows, "languages", lambda row: row.language)
    if kind in WITHOUT_LABELS and all(row.label is None for row in rows):
        return {"total": len(rows), **_fidelity(rows, language)}
    labels = [label_of(row) for row in rows]
    # POPE and regions count their unknowns themselves.
    unknown = sum(not read_answer(row) for row in rows) / len(rows)
    numbers = _SCORERS[kind](rows, labels, headline_dialect(rows[0]))
    spoken = _fidelity(rows, language) | _not_in_english(rows, kind, language)
    return {"unknown_rate": unknown, **numbers, **spoken}


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


def _answers(rows: Sequence[LedgerRow]) -> list[str]:
    return [scored_answer(row) for row in rows]


def _commonest(labels: Sequence[str]) -> str:
    return Counter(labels).most_common(1)[0][0]


def _score_pope(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    positives = labels.count("yes")
    return {
        **pope_compute(pope_update(_answers(rows), labels, dialect)),
        "chance_accuracy": labels.count(_commonest(labels)) / len(labels),
        "chance_f1": 2 * positives / (len(labels) + positives),
    }


def _score_vqa(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    benchmark: VqaBenchmark = "vqav2" if rows[0].kind == "vqav2" else "textvqa"

    def scored(part: Sequence[LedgerRow], answers: Sequence[str]) -> Numbers:
        humans = [row.answers for row in part]
        return vqa_compute(vqa_update(answers, humans, dialect, benchmark))

    by_type: dict[str, list[LedgerRow]] = defaultdict(list)
    for row in rows:
        if "answer_type" in row.types:
            by_type[row.types["answer_type"]].append(row)
    return {
        **scored(rows, _answers(rows)),
        "chance_accuracy": scored(rows, [_commonest(labels)] * len(rows))["accuracy"],
        **{
            f"accuracy_{name.replace('/', '_')}": scored(part, _answers(part))["accuracy"]
            for name, part in sorted(by_type.items())
        },
    }


def _score_gqa(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    return {
        **gqa_compute(gqa_update(_answers(rows), labels, dialect)),
        "chance_accuracy": labels.count(_commonest(labels)) / len(labels),
    }


def _score_gqa_ru(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    lemmas = has_lemmas()
    counts = russian_update(_answers(rows), labels, lemmas)
    return {**_score_gqa(rows, labels, dialect), **russian_compute(counts, lemmas)}


def _score_ocr(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    return ocr_compute(ocr_update(_answers(rows), labels, dialect))


def _score_regions(rows: Sequence[LedgerRow], labels: list[str], dialect: Any) -> Numbers:
    # Labels are fractions of what the answers are fractions of.
    return regions_compute(regions_update(_answers(rows), list(map(right_box, labels))))


_SCORERS: dict[str, Callable[[Sequence[LedgerRow], list[str], Any], Numbers]] = {
    "pope": _score_pope,
    "vqav2": _score_vqa,
    "textvqa": _score_vqa,
    "gqa": _score_gqa,
    "gqa_ru": _score_gqa_ru,
    "ocr": _score_ocr,
    "regions": _score_regions,
}
