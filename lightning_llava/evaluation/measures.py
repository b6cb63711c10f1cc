"""What is measured on a ledger's rows: one number each, with its interval."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT
from lightning_llava.evaluation.intervals import (
    RESAMPLES,
    SEED,
    Interval,
    interval,
    mean_ratio,
    sum_by_cluster,
)
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.pope import dialect_for, pope_update

Parts = tuple[float, float]
"""A row's share in numerator and denominator of a ratio of sums."""
Intervals = dict[str, dict[str, dict[str, Interval]]]
"""Benchmark → split, and `mean` → measure."""

RIGHT = 0.5
"""A row with this score or more is called right: half a point, where the score has parts."""


def row_score(row: LedgerRow) -> float:
    """Return a row's score, from 0 to 1."""
    return float(bool(row.correct))


def _accuracy(row: LedgerRow) -> Parts:
    return row_score(row), 1.0


def _f1(row: LedgerRow) -> Parts:
    # F1 = 2 tp / (2 tp + fp + fn) is a ratio of sums over rows, like accuracy.
    answer = row.raw_answer if row.english is None else row.english
    dialect = dialect_for(row.language if row.english is None else "en")
    counts = pope_update([answer], [row.label or ""], dialect)
    return 2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn


_ACCURACY: dict[str, Callable[[LedgerRow], Parts]] = {"accuracy": _accuracy}
_BY_KIND = {"pope": {"f1": _f1, **_ACCURACY}}


def measures(kind: str) -> dict[str, Callable[[LedgerRow], Parts]]:
    """Return what is measured on rows of a kind, the headline first."""
    return _BY_KIND.get(kind, _ACCURACY)


def with_intervals(
    rows: Sequence[LedgerRow], resamples: int = RESAMPLES, seed: int = SEED
) -> Intervals:
    """Score a ledger, each number with its image-clustered bootstrap interval.

    Args:
        rows: of any number of benchmarks and splits, every one with a label.
        resamples: draws of all images.
        seed: the same seed, the same intervals.

    Returns:
        Per benchmark and split, and under `mean` over the splits, the measures of its kind. Images
        are drawn once for all splits of a benchmark, since POPE's ask about the same ones.

    Raises:
        SettingError: no rows, duplicate rows, rows without a label, or several kinds or languages
            in a benchmark.
    """
    check_rows(rows)
    result: Intervals = {}
    for benchmark, chosen in by_benchmark(rows).items():
        clusters, groups = cluster_numbers(chosen), group_numbers(chosen)
        result[benchmark] = {
            split: {} for split in [*dict.fromkeys(row.split for row in chosen), RESERVED_SPLIT]
        }
        for name, measure in measures(chosen[0].kind).items():
            sums = sum_by_cluster(clusters, groups, row_parts(chosen, measure))
            for number, numbers in enumerate(result[benchmark].values()):
                # The mean comes after the last split.
                part = sums[:, [number]] if number < sums.shape[1] else sums
                part = part[part[..., 2].any(1)]
                asked = int(part[..., 2].sum())
                numbers[name] = interval(part, mean_ratio, asked, resamples, seed)
    return result


def by_benchmark(rows: Sequence[LedgerRow]) -> dict[str, list[LedgerRow]]:
    """Divide a ledger."""
    divided: dict[str, list[LedgerRow]] = {}
    for row in rows:
        divided.setdefault(row.benchmark, []).append(row)
    return divided


def cluster_numbers(rows: Sequence[LedgerRow]) -> Int[np.ndarray, " rows"]:
    """Number the images; a question without one stands for itself."""
    return _number([row.image or (row.benchmark, row.split, row.question_id) for row in rows])


def group_numbers(rows: Sequence[LedgerRow]) -> Int[np.ndarray, " rows"]:
    """Number the splits in order of appearance."""
    return _number([row.split for row in rows])


def row_parts(
    rows: Sequence[LedgerRow], measure: Callable[[LedgerRow], Parts]
) -> Float[np.ndarray, "rows 2"]:
    """Measure every row."""
    return np.array([measure(row) for row in rows])


def check_rows(rows: Sequence[LedgerRow], ledger: str = "the ledger") -> None:
    """Refuse rows that cannot be scored together.

    Raises:
        SettingError: as `with_intervals`.
    """
    if not rows:
        raise SettingError(f"{ledger} holds no rows; expected one per question")
    keys = Counter((row.benchmark, row.split, row.question_id) for row in rows)
    _refuse([key for key, times in keys.items() if times > 1], ledger, "answered more than once")
    unlabelled = [row for row in rows if row.label is None]
    _refuse(
        [(row.benchmark, row.split, row.question_id) for row in unlabelled],
        ledger,
        "without a right answer, so there is nothing to compare with",
    )
    for benchmark, chosen in by_benchmark(rows).items():
        for name in ("kind", "language"):
            if len(found := {getattr(row, name) for row in chosen}) > 1:
                raise SettingError(
                    f"{ledger}: {benchmark!r} holds rows of {name} {' and '.join(sorted(found))}, "
                    "expected one; give each a benchmark of its own"
                )


def _number(keys: Sequence[object]) -> Int[np.ndarray, " rows"]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _refuse(keys: Sequence[tuple[str, str, str]], ledger: str, problem: str) -> None:
    if keys:
        benchmark, split, question = keys[0]
        raise SettingError(
            f"{ledger}: {len(keys):,} questions {problem}, first {question!r} of {benchmark!r}, "
            f"split {split!r}; expected one scored row per question"
        )
