"""Numbers of each dialect from pairs of ground truth and answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_llava.evaluation.kind_scores import Scored, score_kind, score_types
from lightning_llava.evaluation.rescoring.join import Pair
from lightning_llava.evaluation.scorers.pope import pope_headline

Numbers = dict[str, Any]


def score(benchmark: str, splits: Mapping[str, Sequence[Pair]], dialect: str) -> Numbers:
    """Score a benchmark in one dialect.

    Returns:
        POPE: `splits` (name → `pope_compute`) and `headline` (`pope_headline`). The others: the
        numbers of all pairs and, where the ground truth has types, `by_KIND` (type → numbers).

    Raises:
        SettingError: the benchmark does not define the dialect.
    """
    scored = {name: list(map(_scored, pairs)) for name, pairs in splits.items()}
    if benchmark == "pope":
        numbers = {name: score_kind("pope", part, dialect) for name, part in scored.items()}
        return {"splits": numbers, "headline": pope_headline(numbers)}
    whole = [each for part in scored.values() for each in part]
    ways = dict.fromkeys(way for each in whole for way in each.types)
    by_type = {f"by_{way}": score_types(benchmark, whole, dialect, way) for way in ways}
    return {**score_kind(benchmark, whole, dialect), **by_type}


def _scored(pair: Pair) -> Scored:
    truth, prediction = pair
    return Scored(prediction.answer, truth.answers, truth.types)
