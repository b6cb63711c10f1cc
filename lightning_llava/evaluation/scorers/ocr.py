"""Read text: exact match, and the errors per character and per word."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio
from lightning_llava.evaluation.scorers.dialects import require

_SHAPES = str.maketrans("«»“”„‟‘’‚–—−‑ё", '""""""\'\'\'----е')
_LOOKALIKES = str.maketrans("aceopxykmhtb3", "асеорхукмнтвз")
"""Latin letters (and the digit three) → Cyrillic ones, lower case.

Not only letters that look alike in lower case: the text is folded, and `H` was `Н`.
"""
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_WORD = re.compile(r"\w+")


def _verbatim(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _folded(text: str) -> str:
    return _verbatim(text).lower().translate(_SHAPES).replace("…", "...")


def _lookalike(text: str) -> str:
    def unify(word: re.Match[str]) -> str:
        return word[0].translate(_LOOKALIKES) if _CYRILLIC.search(word[0]) else word[0]

    return _WORD.sub(unify, _folded(text))


_FORMS: dict[str, Callable[[str], str]] = {
    "verbatim": _verbatim,
    "folded": _folded,
    "lookalike": _lookalike,
}


class OcrCounts(NamedTuple):
    """What the scores are made of; the counts of parts add up element by element."""

    correct: int
    total: int
    character_edits: int
    characters: int
    """Of the references."""
    word_edits: int
    words: int
    """Of the references."""
    cer_sum: float
    """Sum of the rows' own error rates."""
    wer_sum: float


def edit_distance(found: Sequence[object], expected: Sequence[object]) -> int:
    """Count the insertions, deletions and replacements that turn one sequence into the other."""
    if len(found) < len(expected):
        found, expected = expected, found
    row = list(range(len(expected) + 1))
    for number, item in enumerate(found, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(expected, start=1):
            replaced = diagonal + (item != other)
            diagonal = row[place]
            row[place] = min(replaced, diagonal + 1, row[place - 1] + 1)
    return row[-1]


def normalise_reading(text: str, dialect: str) -> str:
    """Bring a text into the form that is compared.

    Raises:
        SettingError: there is no such dialect; see `dialects.DIALECTS`.
    """
    require("ocr", dialect)
    return _FORMS[dialect](text)


def ocr_update(predictions: Sequence[str], references: Sequence[str], dialect: str) -> OcrCounts:
    """Compare texts as read with those written in the image.

    Raises:
        SettingError: a reference is empty, there is no such dialect, or the columns differ in
            length.
    """
    check_lengths(predictions=predictions, references=references)
    rows = [
        _compare(normalise_reading(found, dialect), normalise_reading(expected, dialect))
        for found, expected in zip(predictions, references, strict=True)
    ]
    return OcrCounts(*map(sum, zip(*rows, strict=True))) if rows else OcrCounts(*[0] * 8)


def _compare(found: str, expected: str) -> OcrCounts:
    if not expected:
        raise SettingError(
            "a reference is empty, and no error rate is defined on it; leave out what has no text"
        )
    character_edits, characters = edit_distance(found, expected), len(expected)
    word_edits, words = edit_distance(found.split(), expected.split()), len(expected.split())
    return OcrCounts(
        found == expected,
        1,
        character_edits,
        characters,
        word_edits,
        words,
        character_edits / characters,
        word_edits / words,
    )


def ocr_compute(counts: OcrCounts) -> dict[str, float]:
    """Turn counts into unrounded numbers.

    Returns:
        `accuracy` (exact match), `correct`, `total`; `cer` and `wer`, all edits over all characters
        (words) of the references, as in speech recognition; `mean_cer` and `mean_wer`, the means of
        the rows' own rates, in which a short text weighs as much as a long one. All four can exceed
        1: a long answer to a short text has more edits than the text has characters.
    """
    return {
        "accuracy": ratio(counts.correct, counts.total),
        "correct": counts.correct,
        "total": counts.total,
        "cer": ratio(counts.character_edits, counts.characters),
        "wer": ratio(counts.word_edits, counts.words),
        "mean_cer": ratio(counts.cer_sum, counts.total),
        "mean_wer": ratio(counts.wer_sum, counts.total),
    }


class Ocr(CountingMetric):
    """Exact match and error rates over batches and processes."""

    def __init__(self, dialect: str = "verbatim", **kwargs: Any) -> None:
        require("ocr", dialect)
        super().__init__(len(OcrCounts._fields), torch.float64, **kwargs)
        self.dialect = dialect

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add texts as read and as written in the image."""
        self.add(ocr_update(predictions, references, self.dialect))

    def compute(self) -> dict[str, float]:
        """Return `ocr_compute` over everything seen, by all processes."""
        return ocr_compute(OcrCounts(*self.counts.tolist()))
