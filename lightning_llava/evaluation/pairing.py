"""Put two ledgers' rows side by side, question by question, and refuse what does not pair."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import by_benchmark, scored_rows

Pair = tuple[LedgerRow, LedgerRow]
OPTION = "--benchmark"


def pair_rows(
    first: Sequence[LedgerRow],
    second: Sequence[LedgerRow],
    names: Mapping[str, str] | None = None,
) -> dict[str, list[Pair]]:
    """Pair two ledgers on benchmark, split and question id.

    Args:
        first: rows of A.
        second: rows of B.
        names: benchmarks of A to compare → what B calls them. None compares all: those of the same
            name, and the others where kind and splits leave no choice (`pope` and `pope_ru`).

    Returns:
        Per benchmark of A, its pairs in A's order.

    Raises:
        SettingError: a benchmark or question has no partner, or partners are not the same question.
    """
    a = by_benchmark(scored_rows(first, "ledger A"))
    b = by_benchmark(scored_rows(second, "ledger B"))
    names = _match(a, b) if names is None else names
    for side, ledger, wanted in (("A", a, names.keys()), ("B", b, names.values())):
        if missing := sorted(set(wanted) - set(ledger)):
            raise SettingError(
                f"{OPTION}: ledger {side} has no {missing[0]!r}, only {', '.join(ledger)}"
            )
    return {name: _pair(a[name], b[other]) for name, other in names.items()}


def _match(
    a: Mapping[str, Sequence[LedgerRow]], b: Mapping[str, Sequence[LedgerRow]]
) -> dict[str, str]:
    names = {name: name for name in a if name in b}
    left_a = [name for name in a if name not in names]
    left_b = [name for name in b if name not in names]
    for name in left_a:
        alike = [other for other in left_b if _form(a[name]) == _form(b[other])]
        rivals = [other for other in left_a if _form(a[other]) == _form(a[name])]
        if len(alike) == len(rivals) == 1:
            names[name] = alike[0]
    lonely = [f"{name!r} of A" for name in left_a if name not in names]
    lonely += [f"{name!r} of B" for name in left_b if name not in names.values()]
    if lonely:
        raise SettingError(
            f"no partner for {', '.join(lonely)}; say what to compare: {OPTION} NAME, or NAME_IN_A"
            "=NAME_IN_B, once for each"
        )
    return names


def _form(rows: Sequence[LedgerRow]) -> tuple[str, frozenset[str]]:
    return rows[0].kind, frozenset(row.split for row in rows)


def _pair(first: Sequence[LedgerRow], second: Sequence[LedgerRow]) -> list[Pair]:
    a = {(row.split, row.question_id): row for row in first}
    b = {(row.split, row.question_id): row for row in second}
    only_a, only_b = [key for key in a if key not in b], [key for key in b if key not in a]
    if only_a or only_b:
        split, question = (only_a or only_b)[0]
        raise SettingError(
            f"{first[0].benchmark!r}: {len(only_a):,} questions only in A, {len(only_b):,} only in "
            f"B, first {question!r} of split {split!r}; expected the same questions in both: "
            "answer the rest, or the same subset"
        )
    pairs = [(row, b[key]) for key, row in a.items()]
    for one, other in pairs:
        _check_same(one, other)
    return pairs


def _check_same(one: LedgerRow, other: LedgerRow) -> None:
    """Compare what both say of the question: its picture and, in one language, text and answers."""
    seen = {"image": [_file_name(row.image) for row in (one, other)]}
    if _published(one)[0] == _published(other)[0]:
        seen["question"] = [_published(row)[1] for row in (one, other)]
        seen["right answer"] = [row.label for row in (one, other)]
    for what, (mine, theirs) in seen.items():
        if mine != theirs:
            raise SettingError(
                f"question {one.question_id!r} of {one.benchmark!r}, split {one.split!r}: {what} "
                f"{mine!r} in A, {theirs!r} in B; the ledgers are of different questions under the "
                "same ids"
            )


def _file_name(image: str | None) -> str | None:
    """Two machines keep the same pictures in different folders."""
    return None if image is None else PurePath(image).name


def _published(row: LedgerRow) -> tuple[str, str]:
    return (row.language, row.question) if row.source is None else ("en", row.source)
