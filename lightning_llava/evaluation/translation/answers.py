"""Answers back into English: map, lexicon, translation in context, checks; the route is kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_llava.evaluation.kinds import IN_ENGLISH
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.row_scores import judged
from lightning_llava.evaluation.scorers.language import SCRIPTS, script_share
from lightning_llava.evaluation.scorers.pope import parse_english, parse_strict
from lightning_llava.evaluation.translation.answer_map import map_answer
from lightning_llava.evaluation.translation.cache import CachedTranslator
from lightning_llava.evaluation.translation.context import as_written
from lightning_llava.evaluation.translation.lexicon import Lexicon

Route = Literal["map", "lexicon", "mt", "kept", "none"]
ROUTES: dict[Route, str] = {
    "map": "by tables",
    "lexicon": "by training answers",
    "mt": "translated",
    "kept": "answered in English",
    "none": "lost, so wrong",
}


@dataclass(frozen=True)
class Asked:
    """An answer, and what must be known to translate it."""

    question: str
    """In the language of the answer; empty where it is not known."""
    answer: str
    kind: str


@dataclass(frozen=True)
class Brought:
    """An answer in English, how it came there, and what went wrong on the way."""

    english: str
    """Empty where the route is `none`."""
    route: Route
    problems: tuple[str, ...] = ()


class AnswerChain:
    """The way back into English; each different answer to each different question goes it once.

    Args:
        to_english: translates what map and lexicon do not know.
        lexicon: None goes without.
    """

    def __init__(self, to_english: CachedTranslator, lexicon: Lexicon | None = None) -> None:
        self._to_english = to_english
        self._lexicon = lexicon

    def bring(self, asked: Sequence[Asked]) -> list[Brought]:
        """Bring answers back.

        Args:
            asked: any number.

        Returns:
            As many. The English is written as the answer was: with a capital letter and a final
            period, or without.
        """
        known = {each: self._without_model(each) for each in dict.fromkeys(asked)}
        rest = [each for each, brought in known.items() if brought is None]
        translated = dict(zip(rest, self._translate(rest), strict=True))
        return [known[each] or translated[each] for each in asked]

    def _without_model(self, asked: Asked) -> Brought | None:
        answer = asked.answer.strip()
        if not any(map(str.isalnum, answer)):
            return Brought("", "none", ("empty answer",))
        if asked.kind == "pope" and (verdict := parse_strict(answer)) != "unknown":
            return Brought(as_written(verdict, answer), "map")
        if english := map_answer(answer):
            return Brought(as_written(english, answer), "map")
        if script_share(answer, SCRIPTS["en"]) > 0.5:
            return Brought(answer, "kept")
        if self._lexicon and (english := self._lexicon.find(answer)):
            return Brought(as_written(english, answer), "lexicon")
        return None

    def _translate(self, asked: Sequence[Asked]) -> list[Brought]:
        answers = [(each.answer.strip(), each.question or None) for each in asked]
        return [
            self._judge(each, said, problems)
            for each, (said, problems) in zip(
                asked, translate_answers(answers, self._to_english), strict=True
            )
        ]

    def _judge(self, asked: Asked, said: str, problems: tuple[str, ...]) -> Brought:
        if not said:
            return Brought("", "none", problems)
        if asked.kind == "pope" and parse_english(said) == "unknown":
            return Brought("", "none", (*problems, "neither yes nor no"))
        return Brought(said, "mt", problems)


def translate_answers(
    answers: Sequence[tuple[str, str | None]], translator: CachedTranslator
) -> list[tuple[str, tuple[str, ...]]]:
    """Translate answers behind their questions, and alone where nothing usable comes of that.

    Args:
        answers: each with its question, or None.
        translator: into either language.

    Returns:
        Per answer its translation, written as the answer was, or nothing; and what went wrong.
    """
    texts, questions = [answer for answer, _ in answers], [question for _, question in answers]
    first = translator.translate(texts, questions)
    failed = [text for text, said in zip(texts, first, strict=True) if said.problem]
    alone = dict(zip(failed, translator.translate(failed), strict=True))
    result: list[tuple[str, tuple[str, ...]]] = []
    for (text, question), said in zip(answers, first, strict=True):
        problems: list[str] = []
        if said.problem and question is not None:
            problems, said = [f"behind its question: {said.problem}"], alone[text]
        if said.problem:
            problems.append(f"alone: {said.problem}")
        usable = "" if said.problem else as_written(said.text, text)
        result.append((usable, tuple(problems)))
    return result


def is_translated(row: LedgerRow) -> bool:
    """Tell whether a row was answered in Russian and is scored in English."""
    return row.language == "ru" and row.kind in IN_ENGLISH


def trace(rows: Sequence[LedgerRow], chain: AnswerChain) -> list[Brought]:
    """Bring the answers of rows back, without touching the rows."""
    return chain.bring([Asked(row.question, row.raw_answer, row.kind) for row in rows])


def bring_back(
    rows: Sequence[LedgerRow],
    chain: AnswerChain,
    judge: Callable[[LedgerRow], LedgerRow] = judged,
) -> list[LedgerRow]:
    """Fill `english`, `route`, `parsed` and `correct` of the rows answered in Russian.

    Rows in English, and those of kinds whose right answers are not English, stay as they are; so
    does every raw answer.

    Args:
        rows: a ledger's.
        chain: the way back.
        judge: fills `parsed` and `correct` from `english`.
    """
    translated = [row for row in rows if is_translated(row)]
    brought = iter(trace(translated, chain))
    return [with_english(row, next(brought), judge) if is_translated(row) else row for row in rows]


def with_english(
    row: LedgerRow, brought: Brought, judge: Callable[[LedgerRow], LedgerRow] = judged
) -> LedgerRow:
    """Write into a row what its answer is in English, and judge it again."""
    return judge(replace(row, english=brought.english, route=brought.route))
