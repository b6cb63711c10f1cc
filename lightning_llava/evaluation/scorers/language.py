"""Language fidelity: the share of answers in the language asked for."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.counting import CountingMetric, ratio

SCRIPTS = {"en": "LATIN", "ru": "CYRILLIC"}
"""ISO 639-1 code → how the names of the language's letters begin in Unicode."""


class LanguageCounts(NamedTuple):
    """What the share is made of; the counts of parts add up element by element."""

    asked: int
    """Answers mostly in the script of the language asked for."""
    other: int
    """Answers mostly in other letters."""
    neutral: int
    """Answers without letters: `2` is an answer in every language."""


def script_share(text: str, script: str) -> float:
    """Return the share of letters that belong to a script; without letters, not a number."""
    letters = [letter for letter in text if letter.isalpha()]
    return ratio(
        sum(unicodedata.name(sign, "").startswith(script) for sign in letters), len(letters)
    )


def language_update(answers: Sequence[str], language: str) -> LanguageCounts:
    """Count answers by script: an answer is in the language when more than half its letters are.

    The script is all that is looked at: Ukrainian counts as Russian, German as English.

    Raises:
        SettingError: the script of the language is not known here.
    """
    if language not in SCRIPTS:
        raise SettingError(
            f"language {language!r}: its script is not known, expected one of {', '.join(SCRIPTS)}"
        )
    shares = [script_share(answer, SCRIPTS[language]) for answer in answers]
    asked = sum(share > 0.5 for share in shares)
    other = sum(share <= 0.5 for share in shares)
    return LanguageCounts(asked, other, len(answers) - asked - other)


def language_compute(counts: LanguageCounts) -> dict[str, float]:
    """Return `fidelity`, a share of the answers that have letters, and the counts."""
    return {"fidelity": ratio(counts.asked, counts.asked + counts.other), **counts._asdict()}


class LanguageFidelity(CountingMetric):
    """The share of answers in the language asked for, over batches and processes."""

    def __init__(self, language: str, **kwargs: Any) -> None:
        super().__init__(len(LanguageCounts._fields), **kwargs)
        language_update([], language)
        self.language = language

    def update(self, answers: Sequence[str]) -> None:
        """Add raw answers."""
        self.add(language_update(answers, self.language))

    def compute(self) -> dict[str, float]:
        """Return `language_compute` over everything seen, by all processes."""
        return language_compute(LanguageCounts(*self.counts.tolist()))
