"""Questions into Russian: reviewed ones first, the others by a translation model."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.language import SCRIPTS, script_share
from lightning_llava.evaluation.translation.cache import CachedTranslator
from lightning_llava.evaluation.translation.checks import Problem
from lightning_llava.evaluation.translation.translator import read_table

POPE_OBJECTS = files("lightning_llava.evaluation.translation") / "pope_objects.tsv"
# With the typing error of POPE's older version.
_POPE = re.compile(r"Is there an? (.+) in the iman?ge\?")


@dataclass(frozen=True)
class Rendered:
    """A question in Russian."""

    text: str
    is_reviewed: bool
    problem: Problem | None
    """Why the text must not be asked, if so."""


class Reviewed:
    """Questions that a person has put into Russian: all of POPE's, and what a user adds.

    Args:
        added: English question → Russian; these come first.
    """

    def __init__(self, added: Mapping[str, str] | None = None) -> None:
        self._added = added or {}
        self.pope = read_table(Path(str(POPE_OBJECTS)), "POPE's objects")

    def find(self, question: str) -> str | None:
        """Return the reviewed Russian of a question, or None."""
        if question in self._added:
            return self._added[question]
        asked = _POPE.fullmatch(question.strip())
        noun = self.pope.get(asked[1]) if asked else None
        return None if noun is None else f"Есть ли на изображении {noun}?"

    def not_found(self, rows: Iterable[LedgerRow]) -> list[str]:
        """Return the published questions of rows that a translator, not a person, translated."""
        sources = (row.source for row in rows)
        return [source for source in sources if source is not None and self.find(source) is None]


def render(
    texts: Sequence[str], translator: CachedTranslator, reviewed: Reviewed
) -> list[Rendered]:
    """Put English questions into Russian, each different one once.

    Raises:
        SettingError: one is Russian already.
    """
    for text in texts:
        if script_share(text, SCRIPTS["ru"]) > 0.5:
            raise SettingError(
                f"the question {text!r:.100} is Russian already; give the published English ones"
            )
    known = [reviewed.find(text) for text in texts]
    rest = [text for text, russian in zip(texts, known, strict=True) if russian is None]
    said = dict(zip(rest, translator.translate(rest), strict=True))
    return [
        Rendered(said[text].text, False, said[text].problem)
        if russian is None
        else Rendered(russian, True, None)
        for text, russian in zip(texts, known, strict=True)
    ]


def translate_questions(
    questions: Sequence[Question],
    translator: CachedTranslator,
    reviewed: Reviewed | None = None,
) -> list[Question]:
    """Put a benchmark's questions into Russian; labels and answers stay as published.

    Raises:
        SettingError: a translation fails its checks, or a question is Russian already.
    """
    rendered = render([question.text for question in questions], translator, reviewed or Reviewed())
    failed = [
        (question.text, russian)
        for question, russian in zip(questions, rendered, strict=True)
        if russian.problem
    ]
    if failed:
        raise SettingError(describe_failures(dict(failed)))
    return [
        replace(question, text=russian.text, language="ru", source=question.text)
        for question, russian in zip(questions, rendered, strict=True)
    ]


def describe_failures(failed: Mapping[str, Rendered]) -> str:
    """Say which questions have no usable translation, and what to do."""
    question, russian = next(iter(failed.items()))
    return (
        f"{len(failed):,} different questions have no usable translation, first {question!r:.100}: "
        f"{russian.text!r:.100} ({russian.problem}); translate them by hand in a reviewed table, "
        "or name another translator"
    )
