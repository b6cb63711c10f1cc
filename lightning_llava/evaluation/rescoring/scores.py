"""Numbers of each dialect from pairs of ground truth and answer."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from lightning_llava.evaluation.rescoring.join import Pair
from lightning_llava.evaluation.scorers.gqa import gqa_compute, gqa_update
from lightning_llava.evaluation.scorers.ocr import ocr_compute, ocr_update
from lightning_llava.evaluation.scorers.pope import pope_compute, pope_headline, pope_update
from lightning_llava.evaluation.scorers.vqa import VqaBenchmark, vqa_compute, vqa_update

Numbers = dict[str, Any]


def score(benchmark: str, splits: Mapping[str, Sequence[Pair]], dialect: str) -> Numbers:
    """Score a benchmark in one dialect.

    Returns:
        POPE: `splits` (name → `pope_compute`) and `headline` (`pope_headline`). The others: the
        numbers of all pairs and, where the ground truth has types, `by_KIND` (type → numbers).

    Raises:
        SettingError: the benchmark does not define the dialect.
    """
    if benchmark == "pope":
        numbers = {name: _score_pope(pairs, dialect) for name, pairs in splits.items()}
        return {"splits": numbers, "headline": pope_headline(numbers)}
    pairs = [pair for split in splits.values() for pair in split]
    kinds = dict.fromkeys(kind for truth, _ in pairs for kind in truth.types)
    scorer = _SCORERS[benchmark]
    by_kind = {f"by_{kind}": _by_type(scorer, pairs, dialect, kind) for kind in kinds}
    return {**scorer(pairs, dialect), **by_kind}


def _by_type(
    scorer: Callable[[Sequence[Pair], str], Numbers],
    pairs: Sequence[Pair],
    dialect: str,
    kind: str,
) -> Numbers:
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if kind in pair[0].types:
            groups[pair[0].types[kind]].append(pair)
    return {name: scorer(groups[name], dialect) for name in sorted(groups)}


def _score_pope(pairs: Sequence[Pair], dialect: str) -> dict[str, float]:
    return pope_compute(pope_update(_answers(pairs), _references(pairs), dialect))


def _score_vqa(benchmark: VqaBenchmark, pairs: Sequence[Pair], dialect: str) -> dict[str, float]:
    humans = [truth.answers for truth, _ in pairs]
    return vqa_compute(vqa_update(_answers(pairs), humans, dialect, benchmark))


def _score_gqa(pairs: Sequence[Pair], dialect: str) -> dict[str, float]:
    return gqa_compute(gqa_update(_answers(pairs), _references(pairs), dialect))


def _score_ocr(pairs: Sequence[Pair], dialect: str) -> dict[str, float]:
    return ocr_compute(ocr_update(_answers(pairs), _references(pairs), dialect))


_SCORERS: dict[str, Callable[[Sequence[Pair], str], dict[str, float]]] = {
    "vqav2": partial(_score_vqa, "vqav2"),
    "textvqa": partial(_score_vqa, "textvqa"),
    "gqa": _score_gqa,
    "ocr": _score_ocr,
}


def _answers(pairs: Sequence[Pair]) -> list[str]:
    return [prediction.answer for _, prediction in pairs]


def _references(pairs: Sequence[Pair]) -> list[str]:
    return [truth.answers[0] for truth, _ in pairs]
