"""Compare answers in Russian: as written, normalised, and by lemmas."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio

LEAST_SCORE = 0.05
"""Readings of a word that pymorphy3 thinks less likely are left out."""
KEPT = {"не", "нет", "да"}
"""Carry the answer, though dictionaries list some of them as conjunctions."""

_UNITS = {
    "ноль": 0,
    "нуль": 0,
    "один": 1,
    "одна": 1,
    "одно": 1,
    "два": 2,
    "две": 2,
    "три": 3,
    "четыре": 4,
    "пять": 5,
    "шесть": 6,
    "семь": 7,
    "восемь": 8,
    "девять": 9,
}
_TEENS = {
    "десять": 10,
    "одиннадцать": 11,
    "двенадцать": 12,
    "тринадцать": 13,
    "четырнадцать": 14,
    "пятнадцать": 15,
    "шестнадцать": 16,
    "семнадцать": 17,
    "восемнадцать": 18,
    "девятнадцать": 19,
}
_TENS = {
    "двадцать": 20,
    "тридцать": 30,
    "сорок": 40,
    "пятьдесят": 50,
    "шестьдесят": 60,
    "семьдесят": 70,
    "восемьдесят": 80,
    "девяносто": 90,
}
_NUMBERS = _UNITS | _TEENS | _TENS | {"сто": 100}


def normalise(text: str) -> str:
    """Bring a text to NFC and lower case, ё to е, signs to spaces, numerals up to 100 to digits.

    A comma or point between digits stays, as a point: `2,5` is `2.5`.
    """
    return " ".join(_with_digits(_words(text)))


def _words(text: str) -> list[str]:
    text = unicodedata.normalize("NFC", text).lower().replace("ё", "е")
    text = re.sub(r"(?<=\d)[.,](?=\d)", ".", text)
    signs = {
        sign: " " for sign in set(text) if unicodedata.category(sign)[0] in "PSZC" and sign != "."
    }
    text = text.translate(str.maketrans(signs))
    return re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text).split()


def _with_digits(words: Sequence[str]) -> list[str]:
    result: list[str] = []
    after_tens = False
    for word in words:
        unit = _UNITS.get(word, 0)
        if after_tens and unit:
            result[-1] = str(int(result[-1]) + unit)
        else:
            result.append(str(_NUMBERS[word]) if word in _NUMBERS else word)
        after_tens = word in _TENS
    return result


def has_lemmas() -> bool:
    """Tell whether pymorphy3 is installed."""
    return find_spec("pymorphy3") is not None


def lemma_sets(text: str) -> list[frozenset[str]]:
    """List, word by word, the lemmas that a text may have; prepositions and conjunctions go.

    Not the likeliest lemma alone: «стоит» is стоить or стоять, and «ели» ель or есть.

    Raises:
        SettingError: pymorphy3 is not installed.
    """
    words = [word for word in _words(text) if word in KEPT or not _is_function_word(word)]
    # Numerals are put together by their lemmas: «двадцати двух» is 22.
    numerals = [_numeral(word) or word for word in words]
    return [
        frozenset([word]) if word[0].isdigit() else _lemmas(word) for word in _with_digits(numerals)
    ]


def lemmas_match(found: str, expected: str) -> bool:
    """Tell whether two texts have, word by word in the same order, a lemma in common.

    Two texts that are function words and signs only never match by lemmas: nothing is left.

    Raises:
        SettingError: pymorphy3 is not installed.
    """
    ours, theirs = lemma_sets(found), lemma_sets(expected)
    return (
        bool(ours)
        and len(ours) == len(theirs)
        and all(left & right for left, right in zip(ours, theirs, strict=True))
    )


class RussianCounts(NamedTuple):
    """What the columns are made of; the counts of parts add up element by element."""

    strict: int
    normalised: int
    lemma: int
    total: int


def russian_update(
    answers: Sequence[str], references: Sequence[str], lemmas: bool = True
) -> RussianCounts:
    """Count the answers that equal their reference, by three measures of growing leniency.

    Args:
        answers: raw answers of the model.
        references: the right ones, in Russian.
        lemmas: also compare by lemmas, where the normalised texts differ.

    Raises:
        SettingError: pymorphy3 is not installed though `lemmas` is asked for, or the columns differ
            in length.
    """
    check_lengths(answers=answers, references=references)
    pairs = list(zip(answers, references, strict=True))
    strict = [found.strip() == expected.strip() for found, expected in pairs]
    normalised = [normalise(found) == normalise(expected) for found, expected in pairs]
    lemma = [
        same or lemmas_match(*pair) for same, pair in zip(normalised, pairs, strict=True) if lemmas
    ]
    return RussianCounts(sum(strict), sum(normalised), sum(lemma), len(pairs))


def russian_compute(counts: RussianCounts, lemmas: bool = True) -> dict[str, float]:
    """Turn counts into the fractions `strict`, `normalised` and `lemma`, and `total`."""
    columns = ("strict", "normalised", "lemma") if lemmas else ("strict", "normalised")
    shares = {column: ratio(getattr(counts, column), counts.total) for column in columns}
    return {**shares, "total": counts.total}


class RussianMatch(CountingMetric):
    """Strict, normalised and lemma match over batches and processes.

    Args:
        lemmas: also by lemmas, for which pymorphy3 must be installed.
    """

    def __init__(self, lemmas: bool = True, **kwargs: Any) -> None:
        super().__init__(len(RussianCounts._fields), **kwargs)
        if lemmas:
            _analyser()
        self.lemmas = lemmas

    def update(self, answers: Sequence[str], references: Sequence[str]) -> None:
        """Add raw answers and the right ones."""
        self.add(russian_update(answers, references, self.lemmas))

    def compute(self) -> dict[str, float]:
        """Return `russian_compute` over everything seen, by all processes."""
        return russian_compute(RussianCounts(*self.counts.tolist()), self.lemmas)


@lru_cache(maxsize=1)
def _analyser() -> Any:
    if not has_lemmas():
        raise SettingError(
            "pymorphy3 is not installed, and lemmas need it; run pip install "
            "'lightning-llava[russian]' or compare without lemmas"
        )
    return import_module("pymorphy3").MorphAnalyzer()


@lru_cache(maxsize=1 << 16)
def _readings(word: str) -> list[tuple[str, str | None, float]]:
    return [
        (reading.normal_form.replace("ё", "е"), reading.tag.POS, reading.score)
        for reading in _analyser().parse(word)
    ]


def _lemmas(word: str) -> frozenset[str]:
    scores: dict[str, float] = {}
    for lemma, _, score in _readings(word):
        scores[lemma] = scores.get(lemma, 0.0) + score
    return frozenset(lemma for lemma, score in scores.items() if score >= LEAST_SCORE)


def _numeral(word: str) -> str | None:
    """Return a numeral's lemma; «сорока» is none, for it may be a bird."""
    lemmas = {word} if word in _NUMBERS else _lemmas(word)
    return next(iter(lemmas)) if len(lemmas) == 1 and lemmas <= _NUMBERS.keys() else None


def _is_function_word(word: str) -> bool:
    return sum(score for _, kind, score in _readings(word) if kind in ("PREP", "CONJ")) > 0.5
