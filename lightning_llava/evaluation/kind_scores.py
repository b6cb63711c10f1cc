"""The numbers of each kind of benchmark, from answers and right answers."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from lightning_llava.evaluation.row_scores import right_box
from lightning_llava.evaluation.scorers.gqa import gqa_compute, gqa_update
from lightning_llava.evaluation.scorers.ocr import ocr_compute, ocr_update
from lightning_llava.evaluation.scorers.pope import pope_compute, pope_update
from lightning_llava.evaluation.scorers.regions import regions_compute, regions_update
from lightning_llava.evaluation.scorers.vqa import VqaBenchmark, vqa_compute, vqa_update

Numbers = dict[str, float]


class Scored(NamedTuple):
    """An answer, and what it is held against."""

    answer: str
    right: Sequence[str]
    """One right answer, or ten humans' (VQAv2, TextVQA)."""
    types: Mapping[str, str]
    """Ways to group the questions → the group of this one."""


def score_kind(kind: str, scored: Sequence[Scored], dialect: str | None) -> Numbers:
    """Score answers in a dialect, as the kind's `…_update` and `…_compute` do.

    Args:
        kind: `BenchmarkSpec.kind` of one that has a scorer here.
        scored: the answers.
        dialect: see `dialects.DIALECTS`; None for regions, which are compared in one way only.

    Raises:
        SettingError: the kind does not define the dialect, or a right answer is unusable.
    """
    return _SCORERS[kind](scored, dialect)


def score_types(
    kind: str, scored: Sequence[Scored], dialect: str | None, way: str
) -> dict[str, Numbers]:
    """Score each group of questions for itself, as `score_kind` does, in the order of their names.

    Args:
        kind: as for `score_kind`.
        scored: the answers; those that are not grouped in this way are left out.
        dialect: as for `score_kind`.
        way: to group them.
    """
    groups: dict[str, list[Scored]] = defaultdict(list)
    for each in scored:
        if way in each.types:
            groups[each.types[way]].append(each)
    return {name: score_kind(kind, groups[name], dialect) for name in sorted(groups)}


def _score_pope(scored: Sequence[Scored], dialect: Any) -> Numbers:
    return pope_compute(pope_update(_answers(scored), _labels(scored), dialect))


def _score_vqa(benchmark: VqaBenchmark, scored: Sequence[Scored], dialect: Any) -> Numbers:
    humans = [each.right for each in scored]
    return vqa_compute(vqa_update(_answers(scored), humans, dialect, benchmark))


def _score_gqa(scored: Sequence[Scored], dialect: Any) -> Numbers:
    return gqa_compute(gqa_update(_answers(scored), _labels(scored), dialect))


def _score_ocr(scored: Sequence[Scored], dialect: Any) -> Numbers:
    return ocr_compute(ocr_update(_answers(scored), _labels(scored), dialect))


def _score_regions(scored: Sequence[Scored], dialect: None) -> Numbers:
    # Labels are fractions of what the answers are fractions of.
    return regions_compute(regions_update(_answers(scored), list(map(right_box, _labels(scored)))))


_SCORERS: dict[str, Callable[[Sequence[Scored], Any], Numbers]] = {
    "pope": _score_pope,
    "vqav2": partial(_score_vqa, "vqav2"),
    "textvqa": partial(_score_vqa, "textvqa"),
    "gqa": _score_gqa,
    "gqa_ru": _score_gqa,
    "ocr": _score_ocr,
    "regions": _score_regions,
}


def _answers(scored: Sequence[Scored]) -> list[str]:
    return [each.answer for each in scored]


def _labels(scored: Sequence[Scored]) -> list[str]:
    return [each.right[0] for each in scored]
