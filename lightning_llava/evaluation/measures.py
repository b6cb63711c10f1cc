"""What is measured on a ledger's rows: one number each, with its interval."""

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
from lightning_llava.evaluation.kinds import headline_dialect, scored_answer
from lightning_llava.evaluation.ledger import LedgerRow, refuse_keys, repeated_keys
from lightning_llava.evaluation.row_scores import label_of, row_score
from lightning_llava.evaluation.scorers.ocr import ocr_update
from lightning_llava.evaluation.scorers.pope import pope_update

Parts = tuple[float, float]
"""A row's share in numerator and denominator of a ratio of sums."""
Intervals = dict[str, dict[str, dict[str, Interval]]]
"""Benchmark → split, and `mean` → measure."""


def _accuracy(row: LedgerRow) -> Parts:
    return row_score(row), 1.0


def _f1(row: LedgerRow) -> Parts:
    # F1 = 2 tp / (2 tp + fp + fn) is a ratio of sums over rows, like accuracy.
    dialect = headline_dialect(row)
    assert dialect is not None  # POPE has one in every language
    counts = pope_update([scored_answer(row)], [label_of(row)], dialect)
    return 2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn


def _cer(row: LedgerRow) -> Parts:
    dialect = headline_dialect(row)
    assert dialect is not None  # OCR has but one headline
    counts = ocr_update([scored_answer(row)], [label_of(row)], dialect)
    return counts.character_edits, counts.characters


_ACCURACY: dict[str, Callable[[LedgerRow], Parts]] = {"accuracy": _accuracy}
_BY_KIND = {"pope": {"f1": _f1, **_ACCURACY}, "ocr": {**_ACCURACY, "cer": _cer}}
ERRORS = {"cer"}
"""Measures of which less is better."""


def measures(kind: str) -> dict[str, Callable[[LedgerRow], Parts]]:
    """Return what is measured on rows of a kind, the headline first."""
    return _BY_KIND.get(kind, _ACCURACY)


def with_intervals(
    rows: Sequence[LedgerRow], resamples: int = RESAMPLES, seed: int = SEED
) -> Intervals:
    """Score a ledger, each number with its image-clustered bootstrap interval.

    Args:
        rows: of any number of benchmarks and splits.
        resamples: draws of all images.
        seed: the same seed, the same intervals.

    Returns:
        Per benchmark and split, and under `mean` over the splits (of POPE, and where there are
        several), the measures of its kind. Images are drawn once for all splits of a benchmark,
        since POPE's ask about the same ones.

    Raises:
        SettingError: as `scored_rows`.
    """
    result: Intervals = {}
    for benchmark, chosen in by_benchmark(scored_rows(rows)).items():
        clusters, groups = cluster_numbers(chosen), group_numbers(chosen)
        splits = unique_splits(chosen)
        columns = {split: [place] for place, split in enumerate(splits)}
        if len(splits) > 1 or chosen[0].kind == "pope":
            columns[RESERVED_SPLIT] = list(range(len(splits)))
        numbers: dict[str, dict[str, Interval]] = {split: {} for split in columns}
        for name, measure in measures(chosen[0].kind).items():
            sums = sum_by_cluster(clusters, groups, row_parts(chosen, measure))
            for split, places in columns.items():
                part = sums[:, places]
                part = part[part[..., 2].any(1)]  # images that the split asks about
                asked = int(part[..., 2].sum())
                numbers[split][name] = interval(part, mean_ratio, asked, resamples, seed)
        result[benchmark] = numbers
    return result


def by_benchmark(rows: Sequence[LedgerRow]) -> dict[str, list[LedgerRow]]:
    """Divide a ledger."""
    divided: dict[str, list[LedgerRow]] = {}
    for row in rows:
        divided.setdefault(row.benchmark, []).append(row)
    return divided


def unique_splits(rows: Sequence[LedgerRow]) -> list[str]:
    """List the splits in order of appearance."""
    return list(dict.fromkeys(row.split for row in rows))


def cluster_numbers(rows: Sequence[LedgerRow]) -> Int[np.ndarray, " rows"]:
    """Number the images; a question without one stands for itself."""
    return _number([row.image or row.key for row in rows])


def group_numbers(rows: Sequence[LedgerRow]) -> Int[np.ndarray, " rows"]:
    """Number the splits as `unique_splits` lists them."""
    return _number([row.split for row in rows])


def row_parts(
    rows: Sequence[LedgerRow], measure: Callable[[LedgerRow], Parts]
) -> Float[np.ndarray, "rows 2"]:
    """Measure every row."""
    return np.array([measure(row) for row in rows])


def scored_rows(rows: Sequence[LedgerRow], ledger: str = "the ledger") -> list[LedgerRow]:
    """Leave out splits without published answers, and refuse what cannot be scored together.

    Raises:
        SettingError: duplicate rows, no rows with a label, a split that has labels in part, or
            several kinds or languages in a benchmark.
    """
    remedy = "expected one scored row per question"
    refuse_keys(repeated_keys(rows), "answered more than once", remedy, ledger)
    labelled = {(row.benchmark, row.split) for row in rows if row.label is not None}
    chosen = [row for row in rows if (row.benchmark, row.split) in labelled]
    if not chosen:
        raise SettingError(
            f"{ledger} has no rows with a right answer; expected one of `validate` or `test`"
        )
    without = [row.key for row in chosen if row.label is None]
    problem = "without a right answer in splits that have them"
    refuse_keys(without, problem, remedy, ledger)
    for benchmark, part in by_benchmark(chosen).items():
        for name in ("kind", "language"):
            if len(found := {getattr(row, name) for row in part}) > 1:
                raise SettingError(
                    f"{ledger}: {benchmark!r} holds rows of {name} {' and '.join(sorted(found))}, "
                    "expected one; give each a benchmark of its own"
                )
    return chosen


def _number(keys: Sequence[object]) -> Int[np.ndarray, " rows"]:
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
