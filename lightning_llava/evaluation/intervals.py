"""Confidence intervals that know that questions about one image are not independent.

Whole clusters, the questions about one image, are drawn with replacement, and the score is computed
anew from each draw. The interval is bias-corrected and accelerated (BCa: Efron, Better Bootstrap
Confidence Intervals, JASA 1987): scores near 0 or 1 and ratios such as F1 have skewed
distributions, which plain percentiles do not follow.

Every score here is a mean over groups (splits) of ratios of sums, so that all that is needed of a
cluster is, per group, the sums of its rows' numerators and denominators, and their number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
CHUNK = 4_000_000
"""Cells of the resampling matrix that are held at a time."""
TIE = 1e-12
"""Scores that differ by less are equal but for rounding."""

Sums = Float[np.ndarray, "clusters groups 3"]
Statistic = Callable[[Float[np.ndarray, "*draws groups 3"]], Float[np.ndarray, "*draws"]]


@dataclass(frozen=True)
class Interval:
    """A number, what it may be by chance alone, and what it was computed from."""

    value: float
    low: float | None
    """None, like `high`, where all images score alike: resampling them then says nothing."""
    high: float | None
    images: int
    """Independent parts: images, and questions without one."""
    questions: int


def sum_by_cluster(
    clusters: Int[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
    parts: Float[np.ndarray, "rows 2"],
) -> Sums:
    """Sum the rows' numerators and denominators per cluster and group, and count the rows.

    Args:
        clusters: number of each row's cluster, from 0.
        groups: number of each row's group, from 0.
        parts: numerator and denominator of each row.
    """
    sums = np.zeros((clusters.max() + 1, groups.max() + 1, 3))
    np.add.at(sums, (clusters, groups), np.column_stack([parts, np.ones(len(parts))]))
    return sums


def mean_ratio(totals: Float[np.ndarray, "*draws groups 3"]) -> Float[np.ndarray, "*draws"]:
    """Take the plain mean, over the groups that have rows, of numerator over denominator.

    A denominator of 0 gives 0, as in `pope_compute`: no yes was said, and none was right.
    """
    numerators, denominators, rows = np.moveaxis(totals, -1, 0)
    ratios = np.divide(
        numerators, denominators, out=np.zeros_like(numerators), where=denominators > 0
    )
    return ratios.sum(-1) / np.count_nonzero(rows, axis=-1)


def interval(
    sums: Float[np.ndarray, "clusters ..."],
    statistic: Statistic,
    questions: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Compute a statistic and its BCa bootstrap interval over clusters.

    Args:
        sums: per cluster, what adds up.
        statistic: from sums over clusters to the score; leading dimensions are draws.
        questions: number of rows, for the record.
        resamples: draws of all clusters.
        seed: the same seed, the same interval.
        level: of confidence.
    """
    totals = sums.sum(0)
    value = float(statistic(totals))
    influence = statistic(totals - sums) if len(sums) > 1 else np.zeros(1)
    influence = influence.mean() - influence
    spread = (influence**2).sum()
    if spread < TIE**2:
        return Interval(value, None, None, len(sums), questions)
    acceleration = (influence**3).sum() / (6 * spread**1.5)
    drawn = _draw(sums, statistic, resamples, seed)
    below = np.count_nonzero(drawn < value - TIE) + np.count_nonzero(drawn <= value + TIE)
    smallest = 1 / (2 * resamples)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below / (2 * resamples), smallest), 1 - smallest))
    ends = [bias + normal.inv_cdf(share) for share in ((1 - level) / 2, (1 + level) / 2)]
    shares = [normal.cdf(bias + end / (1 - acceleration * end)) for end in ends]
    low, high = np.quantile(drawn, shares)
    return Interval(value, float(low), float(high), len(sums), questions)


def chunks(draws: int, clusters: int) -> Iterator[int]:
    """Split a number of draws such that no step holds more than `CHUNK` cells, or one draw."""
    size = max(1, CHUNK // clusters)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _draw(
    sums: Float[np.ndarray, "clusters ..."], statistic: Statistic, resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    generator = np.random.default_rng(seed)
    clusters = len(sums)
    flat = sums.reshape(clusters, -1)
    drawn: list[np.ndarray] = []
    for size in chunks(resamples, clusters):
        chosen = generator.integers(0, clusters, (size, clusters))
        chosen += clusters * np.arange(size)[:, None]
        times = np.bincount(chosen.ravel(), minlength=size * clusters).reshape(size, clusters)
        drawn.append(statistic((times @ flat).reshape(size, *sums.shape[1:])))
    return np.concatenate(drawn)
