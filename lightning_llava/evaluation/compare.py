"""Is B better than A? A paired comparison of two ledgers over the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT
from lightning_llava.evaluation.intervals import (
    LEVEL,
    RESAMPLES,
    SEED,
    TIE,
    Interval,
    Sums,
    chunks,
    interval,
    mean_ratio,
    sum_by_cluster,
)
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import (
    RIGHT,
    cluster_numbers,
    group_numbers,
    measures,
    row_parts,
    row_score,
)
from lightning_llava.evaluation.pairing import Pair, pair_rows

PERMUTATIONS = 9999
EXACT = 12
"""Up to so many images on which A and B differ, all swaps are tried."""


@dataclass(frozen=True)
class Comparison:
    """A and B on one split, or on the mean over a benchmark's splits."""

    benchmark: str
    """A's name, and B's after an arrow where it is another."""
    split: str
    measure: str
    a: float
    b: float
    difference: Interval
    """B minus A."""
    p: float
    """Two-sided: how often a difference as large comes up if A and B are the same."""
    both_right: int
    only_a: int
    only_b: int
    neither: int
    sentence: str


def compare(
    first: Sequence[LedgerRow],
    second: Sequence[LedgerRow],
    names: Mapping[str, str] | None = None,
    a: str = "A",
    b: str = "B",
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare two ledgers question by question.

    Args:
        first: rows of A, the reference.
        second: rows of B.
        names: as in `pair_rows`.
        a: what the sentences call A.
        b: and B.
        resamples: for the intervals.
        permutations: for the p-values.
        seed: the same seed, the same numbers.

    Returns:
        Per benchmark, split and measure, and on the mean where there are several splits.

    Raises:
        SettingError: the ledgers do not pair.
    """
    result: list[Comparison] = []
    for pairs in pair_rows(first, second, names).values():
        splits = list(dict.fromkeys(row.split for row, _ in pairs))
        parts = {split: [pair for pair in pairs if pair[0].split == split] for split in splits}
        if len(splits) > 1:
            parts[RESERVED_SPLIT] = pairs
        common = [name for name in measures(pairs[0][0].kind) if name in measures(pairs[0][1].kind)]
        result += [
            _compare(part, split, name, (a, b), resamples, permutations, seed)
            for split, part in parts.items()
            for name in common
        ]
    return result


def swap_test(
    first: Sums, second: Sums, permutations: int = PERMUTATIONS, seed: int = SEED
) -> float:
    """Return the two-sided p-value of the paired permutation test over clusters.

    If A and B are the same, it is chance which of the two gave an image's answers: A and B are
    swapped on random images, all of an image's answers at once, and the difference in score is
    computed anew. Where few images differ, all ways to swap are tried.

    Args:
        first: what `sum_by_cluster` gives of A.
        second: of B, with the same clusters and groups.
        permutations: random ways to swap.
        seed: of the choice.
    """
    change = (second - first)[(first != second).any((1, 2))]
    observed = abs(_difference(np.stack([first.sum(0), second.sum(0)])))
    clusters = len(change)
    exact = clusters <= EXACT
    generator = np.random.default_rng(seed)
    extreme, tried = (0, 0) if exact else (1, 1)  # as observed, which is one way
    for size in [2**clusters] if exact else chunks(permutations, clusters):
        swaps = (
            np.array(list(product((0.0, 1.0), repeat=clusters))).reshape(size, clusters)
            if exact
            else generator.integers(0, 2, (size, clusters), dtype=np.int8).astype(float)
        )
        moved = (swaps @ change.reshape(clusters, first[0].size)).reshape(size, *first.shape[1:])
        totals = np.stack([first.sum(0) + moved, second.sum(0) - moved], axis=1)
        extreme += np.count_nonzero(np.abs(_difference(totals)) >= observed - TIE)
        tried += size
    return float(extreme / tried)


def _compare(
    pairs: Sequence[Pair],
    split: str,
    name: str,
    labels: tuple[str, str],
    resamples: int,
    permutations: int,
    seed: int,
) -> Comparison:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    clusters, groups = cluster_numbers(first), group_numbers(first)
    both = [
        sum_by_cluster(clusters, groups, row_parts(rows, measures(rows[0].kind)[name]))
        for rows in (first, second)
    ]
    difference = interval(np.stack(both, axis=1), _difference, len(pairs), resamples, seed)
    p = swap_test(both[0], both[1], permutations, seed)
    right = [(row_score(a) >= RIGHT, row_score(b) >= RIGHT) for a, b in pairs]
    a, b = (float(mean_ratio(sums.sum(0))) for sums in both)
    names = dict.fromkeys(rows[0].benchmark for rows in (first, second))
    return Comparison(
        " → ".join(names),
        split,
        name,
        a,
        b,
        difference,
        p,
        right.count((True, True)),
        right.count((True, False)),
        right.count((False, True)),
        right.count((False, False)),
        sentence(difference, p, *labels),
    )


def _difference(totals: Float[np.ndarray, "*draws 2 groups 3"]) -> Float[np.ndarray, "*draws"]:
    scores = mean_ratio(totals)
    return scores[..., 1] - scores[..., 0]


def sentence(difference: Interval, p: float, a: str = "A", b: str = "B") -> str:
    """Say in words what a comparison shows, in points: hundredths of the score.

    One is called better only if p is under 5 % and the interval leaves 0 out.
    """
    points, low, high = 100 * difference.value, difference.low, difference.high
    basis = f"{_count(difference.images, 'image')}, {_count(difference.questions, 'question')}"
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if low is None or high is None:
        return f"{b} minus {a} is {points:.1f} points on every image ({chance}; {basis})."
    certain = p < 1 - LEVEL and not low <= 0 <= high
    if certain and points < 0:
        points, low, high = -points, -high, -low
        a, b = b, a
    span = f"{LEVEL:.0%} interval".replace("%", " %")
    facts = f"{span} {100 * low:.1f} to {100 * high:.1f}; {chance}; {basis}"
    if certain:
        return f"{b} is better by {points:.1f} points ({facts})."
    return f"No difference can be told: {b} minus {a} is {points:.1f} points ({facts})."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
