"""POPE: is it in the picture? The published yes/no rules, and a strict one of our own."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio
from lightning_llava.evaluation.scorers.dialects import require
from lightning_llava.evaluation.scorers.vqa_text import vlmevalkit_words

Verdict = Literal["yes", "no", "unknown"]
LABELS = ("yes", "no")

_OFFICIAL_NO = {"No", "not", "no"}
_YES_WORDS = {"yes", "да"}
_NO_WORDS = {"no", "нет"}
_SUMMED = {"tp", "fp", "tn", "fn", "total"}


def parse_official(answer: str) -> Verdict:
    """Apply POPE's published rule: a no-word in the first sentence is no, everything else is yes.

    Case, quotes, exclamation marks and line ends are not cleaned away, so that `NO`, `No!` and
    `Нет` are yes: this is what published English numbers were computed with (evaluate.py of
    https://github.com/AoiDragon/POPE).
    """
    first_sentence = answer.split(".", 1)[0].replace(",", "")
    return "yes" if _OFFICIAL_NO.isdisjoint(first_sentence.split(" ")) else "no"


def parse_whole(answer: str) -> Verdict:
    """Take an answer that is yes or no and nothing else, as lmms-eval does."""
    return _verdict([answer.strip().lower()], {"yes"}, {"no"})


def parse_vlmevalkit(answer: str) -> Verdict:
    """Find the English yes or no, but not both, among the words, as VLMEvalKit does."""
    return _verdict(vlmevalkit_words(answer), {"yes"}, {"no"})


def parse_strict(answer: str) -> Verdict:
    """Find yes or no, English or Russian, as whole words; neither or both is unknown."""
    return _verdict(re.findall(r"\w+", answer.casefold()), _YES_WORDS, _NO_WORDS)


def parse_english(answer: str) -> Verdict:
    """Find the English yes or no as whole words; so `Нет` is unknown."""
    return _verdict(re.findall(r"\w+", answer.casefold()), {"yes"}, {"no"})


def _verdict(words: Sequence[str], yes_words: set[str], no_words: set[str]) -> Verdict:
    says_yes, says_no = not yes_words.isdisjoint(words), not no_words.isdisjoint(words)
    if says_yes == says_no:
        return "unknown"
    return "yes" if says_yes else "no"


class _Rule(NamedTuple):
    parse: Callable[[str], Verdict]
    finds: Callable[[str], Verdict]
    """Whose unknowns are counted as such: `parse`, or where that knows none, another."""
    unknown: Literal["yes", "no", "wrong", "wrong, left out of recall"] = "wrong"


_RULES = {
    "official": _Rule(parse_official, parse_english),
    "llava": _Rule(parse_official, parse_english),
    "lmms-eval": _Rule(parse_whole, parse_whole, "wrong, left out of recall"),
    "vlmevalkit": _Rule(parse_vlmevalkit, parse_vlmevalkit),
    "strict": _Rule(parse_strict, parse_strict),
    "strict-unknown-yes": _Rule(parse_strict, parse_strict, "yes"),
    "strict-unknown-no": _Rule(parse_strict, parse_strict, "no"),
}


def dialect_for(language: str) -> str:
    """Name the dialect of the headline numbers.

    English takes the official one, which knows no unknown. Every other language takes the strict
    one: under the official rule each unparsed Russian answer, `Нет` included, would count as yes.
    """
    return "official" if language == "en" else "strict"


def parse_answer(answer: str, language: str) -> Verdict:
    """Read an answer as the headline numbers do."""
    return _RULES[dialect_for(language)].parse(answer)


class PopeCounts(NamedTuple):
    """What the scores are made of; the counts of parts add up element by element."""

    tp: int
    fp: int
    tn: int
    fn: int
    total: int
    """All answers: tp + fp + tn + fn and the unknown ones that are none of these."""
    unparsed: int
    """Answers in which the dialect finds neither yes nor no, or both.

    The official and LLaVA's rule knows none of these; there, answers without a plain English yes or
    no, all of which it reads as one or the other.
    """


def pope_update(answers: Sequence[str], labels: Sequence[str], dialect: str) -> PopeCounts:
    """Count raw answers against labels, yes being the positive class.

    An unknown answer is never a yes, unless the dialect says so: with label yes it is a false
    negative (lmms-eval: none of the four); with label no it is neither a false positive nor a true
    negative. So it is negative in F1 and wrong for accuracy.

    Args:
        answers: raw answers of the model.
        labels: `yes` or `no`, as many.
        dialect: see `dialects.DIALECTS`, and `dialect_for`.

    Raises:
        SettingError: a label is neither yes nor no, POPE does not define the dialect, or the
            columns differ in length.
    """
    require("pope", dialect)
    check_lengths(answers=answers, labels=labels)
    rule = _RULES[dialect]
    pairs: dict[tuple[str, str], int] = {}
    unparsed = 0
    for answer, label in zip(answers, labels, strict=True):
        if label not in LABELS:
            raise SettingError(
                f"label {label!r} to the answer {answer!r}, expected yes or no; mend the "
                "benchmark's file"
            )
        verdict = rule.parse(answer)
        if verdict == "unknown" and rule.unknown in LABELS:
            verdict = rule.unknown
        pairs[verdict, label] = pairs.get((verdict, label), 0) + 1
        unparsed += rule.finds(answer) == "unknown"
    fn = pairs.get(("no", "yes"), 0)
    if rule.unknown == "wrong":
        fn += pairs.get(("unknown", "yes"), 0)
    return PopeCounts(
        tp=pairs.get(("yes", "yes"), 0),
        fp=pairs.get(("yes", "no"), 0),
        tn=pairs.get(("no", "no"), 0),
        fn=fn,
        total=sum(pairs.values()),
        unparsed=unparsed,
    )


def pope_compute(counts: PopeCounts) -> dict[str, float]:
    """Turn counts into POPE's numbers, unrounded fractions.

    Returns:
        `tp fp tn fn total` (counts) and `accuracy precision recall f1 yes_ratio unknown_rate`
        (fractions). Where no yes was said or none was right, precision, recall and F1 are 0; the
        fractions of no answers at all are not a number. `yes_ratio` is the share of answers, not of
        labels. In the dialects official and llava `unknown_rate` changes no other number.
    """
    tp, fp, tn, fn, total, unparsed = counts
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "total": total,
        "accuracy": ratio(tp + tn, total),
        "precision": tp / (tp + fp) if tp else 0.0,
        "recall": tp / (tp + fn) if tp else 0.0,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "yes_ratio": ratio(tp + fp, total),
        "unknown_rate": ratio(unparsed, total),
    }


def pope_headline(splits: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Sum the counts over the splits, and take the plain mean of every fraction.

    POPE's headline is the mean of the splits' F1, not the F1 of their union.

    Args:
        splits: `pope_compute` of each split, at least one.
    """
    scores = list(splits.values())
    headline: dict[str, float] = {}
    for key in scores[0]:
        total = sum(split[key] for split in scores)
        headline[key] = total if key in _SUMMED else total / len(scores)
    return headline


class Pope(CountingMetric):
    """POPE's numbers over batches and processes, of one split; see `pope_headline` for several."""

    def __init__(self, dialect: str = "official", **kwargs: Any) -> None:
        require("pope", dialect)
        super().__init__(len(PopeCounts._fields), **kwargs)
        self.dialect = dialect

    def update(self, answers: Sequence[str], labels: Sequence[str]) -> None:
        """Add raw answers and their labels (`yes` or `no`)."""
        self.add(pope_update(answers, labels, self.dialect))

    def compute(self) -> dict[str, float]:
        """Return `pope_compute` over everything seen, by all processes."""
        return pope_compute(PopeCounts(*self.counts.tolist()))
