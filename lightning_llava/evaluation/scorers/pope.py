"""POPE: is it in the picture? The published yes/no rule for English, a strict one beside it."""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_llava.errors import SettingError

Verdict = Literal["yes", "no", "unknown"]

_OFFICIAL_NO = {"No", "not", "no"}
_YES_WORDS = {"yes", "да"}
_NO_WORDS = {"no", "нет"}


def parse_official(answer: str) -> Verdict:
    """Apply POPE's published rule: a no-word in the first sentence is no, everything else is yes.

    Case, quotes, exclamation marks and line ends are not cleaned away, so that `NO`, `No!` and
    `Нет` are yes: this is what published English numbers were computed with (evaluate.py of
    https://github.com/AoiDragon/POPE).
    """
    first_sentence = answer.split(".", 1)[0].replace(",", "")
    return "yes" if _OFFICIAL_NO.isdisjoint(first_sentence.split(" ")) else "no"


def parse_strict(answer: str) -> Verdict:
    """Find yes or no, English or Russian, as whole words; neither or both is unknown."""
    words = set(re.findall(r"\w+", answer.casefold()))
    says_yes, says_no = not words.isdisjoint(_YES_WORDS), not words.isdisjoint(_NO_WORDS)
    if says_yes == says_no:
        return "unknown"
    return "yes" if says_yes else "no"


def parse_answer(answer: str, language: str) -> Verdict:
    """Read an answer as the headline numbers do.

    English takes the official rule, which knows no unknown. Every other language takes the strict
    one: under the official rule each unparsed Russian answer, `Нет` included, would count as yes.
    """
    return parse_official(answer) if language == "en" else parse_strict(answer)


class PopeCounts(NamedTuple):
    """What the scores are made of; the counts of parts add up element by element."""

    tp: int
    fp: int
    tn: int
    fn: int
    total: int
    """All answers: tp + fp + tn + fn and the unknown answers to questions with label no."""
    unparsed: int
    """Answers in which the strict parser finds neither yes nor no, or both."""


def pope_update(answers: Sequence[str], labels: Sequence[str], language: str) -> PopeCounts:
    """Count raw answers against labels, yes being the positive class.

    An unknown answer is never a yes: with label yes it is a false negative; with label no it is
    neither a false positive nor a true negative. So it is negative in F1 and wrong for accuracy.

    Args:
        answers: raw answers of the model.
        labels: `yes` or `no`, as many.
        language: of the questions; see `parse_answer`.

    Raises:
        SettingError: a label is neither yes nor no.
    """
    pairs: dict[tuple[str, str], int] = {}
    unparsed = 0
    for answer, label in zip(answers, labels, strict=True):
        if label not in ("yes", "no"):
            raise SettingError(
                f"label {label!r} to the answer {answer!r}, expected yes or no; mend the "
                "benchmark's file"
            )
        pair = parse_answer(answer, language), label
        pairs[pair] = pairs.get(pair, 0) + 1
        unparsed += parse_strict(answer) == "unknown"
    return PopeCounts(
        tp=pairs.get(("yes", "yes"), 0),
        fp=pairs.get(("yes", "no"), 0),
        tn=pairs.get(("no", "no"), 0),
        fn=pairs.get(("no", "yes"), 0) + pairs.get(("unknown", "yes"), 0),
        total=sum(pairs.values()),
        unparsed=unparsed,
    )


def pope_compute(counts: PopeCounts) -> dict[str, float]:
    """Turn counts into POPE's numbers, unrounded fractions.

    Returns:
        `tp fp tn fn total` (counts) and `accuracy precision recall f1 yes_ratio unknown_rate`
        (fractions). Where no yes was said or none was right, precision, recall and F1 are 0; the
        fractions of no answers at all are not a number. `yes_ratio` is the share of answers, not of
        labels. `unknown_rate` is the strict parser's in every language; only where that parser also
        makes the headline (not in English) do unknowns change the other numbers.
    """
    tp, fp, tn, fn, total, unparsed = counts
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "total": total,
        "accuracy": _ratio(tp + tn, total),
        "precision": tp / (tp + fp) if tp else 0.0,
        "recall": tp / (tp + fn) if tp else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "yes_ratio": _ratio(tp + fp, total),
        "unknown_rate": _ratio(unparsed, total),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


class Pope(Metric):
    """POPE's numbers over batches and processes; the functions above do the work.

    One instance per split: the headline is the mean of the splits' F1, not the F1 of their union.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, language: str = "en", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.language = language
        zeros = torch.zeros(len(PopeCounts._fields), dtype=torch.long)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], labels: Sequence[str]) -> None:
        """Add raw answers and their labels (`yes` or `no`)."""
        batch = pope_update(answers, labels, self.language)
        self.counts += torch.tensor(batch, dtype=torch.long, device=self.counts.device)

    def compute(self) -> dict[str, float]:
        """Return `pope_compute` over everything seen, by all processes."""
        return pope_compute(PopeCounts(*self.counts.tolist()))
