"""The protocol around an evaluation: before the model is asked, and after it has answered."""

from collections.abc import Sequence
from typing import Any

from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.kinds import IN_ENGLISH
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.translation.answers import (
    AnswerChain,
    is_translated,
    trace,
    with_english,
)
from lightning_llava.evaluation.translation.cache import CachedTranslator
from lightning_llava.evaluation.translation.ceiling import ceiling, question_ceiling
from lightning_llava.evaluation.translation.lexicon import Lexicon
from lightning_llava.evaluation.translation.questions import Reviewed, translate_questions
from lightning_llava.evaluation.translation.report import Answered, report
from lightning_llava.evaluation.translation.snap import Vocabulary


class RussianProtocol:
    """`before` and `after` of an evaluation, and what the second measured.

    Args:
        to_russian: translates questions and, for the ceiling, right answers.
        to_english: translates answers.
        reviewed: questions that are not translated; None takes POPE's.
        lexicon: None goes without.
        vocabulary: also score answers put to the nearest of these.
        with_ceiling: measure the MT ceiling, too.
    """

    def __init__(
        self,
        to_russian: CachedTranslator,
        to_english: CachedTranslator,
        reviewed: Reviewed | None = None,
        lexicon: Lexicon | None = None,
        vocabulary: Vocabulary | None = None,
        with_ceiling: bool = True,
    ) -> None:
        self._to_russian = to_russian
        self._to_english = to_english
        self._reviewed = reviewed or Reviewed()
        self._lexicon = lexicon
        self._vocabulary = vocabulary
        self._with_ceiling = with_ceiling
        self.splits: dict[str, Any] = {}
        """What `report` says of the rows that went through `after`."""
        self.questions: dict[str, float] = {}
        """What `question_ceiling` says of their questions."""

    def before(self, questions: Sequence[Question]) -> list[Question]:
        """Put the English questions into Russian, of kinds whose right answers are English.

        Raises:
            SettingError: as `translate_questions`.
        """
        english = [question for question in questions if _is_asked_in_russian(question)]
        russian = iter(translate_questions(english, self._to_russian, self._reviewed))
        return [next(russian) if _is_asked_in_russian(each) else each for each in questions]

    def after(self, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
        """Bring the Russian answers back and measure; see `bring_back` for what stays as it is.

        Raises:
            SettingError: the lexicon was counted on the questions.
        """
        asked = [row for row in rows if is_translated(row)]
        if self._lexicon:
            self._lexicon.check_unseen(asked)
        chain = AnswerChain(self._to_english, self._lexicon)
        brought = trace(asked, chain)
        english = list(map(with_english, asked, brought))
        scored = [place for place, row in enumerate(asked) if row.label is not None]
        answered = Answered([english[i] for i in scored], [brought[i] for i in scored])
        top = None
        if self._with_ceiling:
            top = ceiling(answered.rows, self._to_russian, chain)
            questions = self._reviewed.not_found(answered.rows)
            self.questions = question_ceiling(questions, self._to_russian, self._to_english)
        self.splits = report(answered, top, self._vocabulary)
        rest = iter(english)
        return [next(rest) if is_translated(row) else row for row in rows]


def _is_asked_in_russian(question: Question) -> bool:
    return question.language == "en" and question.kind in IN_ENGLISH
