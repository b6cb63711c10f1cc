"""Is B better than A? A paired comparison of two ledgers over the same questions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

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
    ERRORS,
    cluster_numbers,
    group_numbers,
    measures,
    row_parts,
    unique_splits,
)
from lightning_llava.evaluation.pairing import Pair, pair_rows
from lightning_llava.evaluation.row_scores import RIGHT

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
    compared = pair_rows(first, second, names).values()
    return [
        found
        for pairs in compared
        for found in _compare(pairs, (a, b), resamples, permutations, seed)
    ]


def _compare(
    pairs: Sequence[Pair], names: tuple[str, str], resamples: int, permutations: int, seed: int
) -> Iterator[Comparison]:
    first, second = [one for one, _ in pairs], [other for _, other in pairs]
    parts = _parts(first, second)
    right_a, right_b = (part[:, 0] >= RIGHT for part in parts["accuracy"])
    clusters, groups = cluster_numbers(first), group_numbers(first)
    for split, chosen in _splits(first, groups).items():
        # Numbered anew, so that all clusters and groups have rows.
        images, parted = (
            np.unique(numbers[chosen], return_inverse=True)[1] for numbers in (clusters, groups)
        )
        agreement = [
            int(np.count_nonzero(chosen & (right_a == in_a) & (right_b == in_b)))
            for in_a, in_b in product((True, False), repeat=2)
        ]
        for measure, both in parts.items():
            one, other = (sum_by_cluster(images, parted, part[chosen]) for part in both)
            asked = int(chosen.sum())
            change = interval(np.stack([one, other], 1), _difference, asked, resamples, seed)
            p = swap_test(one, other, permutations, seed)
            yield Comparison(
                " → ".join(dict.fromkeys([first[0].benchmark, second[0].benchmark])),
                split,
                measure,
                float(mean_ratio(one.sum(0))),
                float(mean_ratio(other.sum(0))),
                change,
                p,
                *agreement,
                sentence=sentence(change, p, *names, less_is_better=measure in ERRORS),
            )


def _parts(
    first: Sequence[LedgerRow], second: Sequence[LedgerRow]
) -> dict[str, tuple[Float[np.ndarray, "rows 2"], Float[np.ndarray, "rows 2"]]]:
    """Measure all rows of A and B by what is defined for both."""
    a, b = measures(first[0].kind), measures(second[0].kind)
    return {
        name: (row_parts(first, a[name]), row_parts(second, b[name])) for name in a if name in b
    }


def _splits(
    rows: Sequence[LedgerRow], groups: Int[np.ndarray, " rows"]
) -> dict[str, Bool[np.ndarray, " rows"]]:
    """Say which rows belong to each split, and to the mean if there are several."""
    splits = {split: groups == number for number, split in enumerate(unique_splits(rows))}
    return splits if len(splits) == 1 else {**splits, RESERVED_SPLIT: groups >= 0}


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


def _difference(totals: Float[np.ndarray, "*draws 2 groups 3"]) -> Float[np.ndarray, "*draws"]:
    scores = mean_ratio(totals)
    return scores[..., 1] - scores[..., 0]


def sentence(
    difference: Interval, p: float, a: str = "A", b: str = "B", less_is_better: bool = False
) -> str:
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
    better = a if less_is_better else b  # b has more
    span = f"{LEVEL:.0%} interval".replace("%", " %")
    facts = f"{span} {100 * low:.1f} to {100 * high:.1f}; {chance}; {basis}"
    if certain:
        return f"{better} is better by {points:.1f} points ({facts})."
    return f"No difference can be told: {b} minus {a} is {points:.1f} points ({facts})."


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
