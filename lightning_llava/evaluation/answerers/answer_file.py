"""A file of answers in the place of a model."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.evaluation.rescoring.join import check_question, check_same
from lightning_llava.evaluation.rescoring.predictions import (
    OPTION,
    Prediction,
    read_predictions,
)

Key = tuple[str, ...]


class AnswerFile:
    """Answers that were given elsewhere, in any form that `read_predictions` knows.

    They join on benchmark, split and id, as far as the file has them: a ledger all three, others
    the id alone.

    Args:
        path: the file.

    Raises:
        SettingError: as `read_predictions`.
    """

    fingerprint = None

    def __init__(self, path: Path) -> None:
        self.name, self._predictions = str(path), _read(path)
        self._is_ledger = self._predictions[0].benchmark is not None
        if self._is_ledger:  # its answers may have been brought back into English
            rows = zip(self._predictions, read_ledger(path), strict=True)
            self._predictions = [replace(one, answer=row.raw_answer) for one, row in rows]
        self._by_key = {self._key(prediction): prediction for prediction in self._predictions}

    def prompt(self, question: Question) -> str:
        """Return what the file says that the model was given; the bare question if nothing."""
        found = self._by_key[self._key(question)]
        return found.prompt or found.question or question.text

    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Look the answers to all questions of the evaluation up.

        Raises:
            SettingError: answers are missing, double or extra, answer other questions, or cannot
                be told apart.
        """
        self._check_ids(questions)
        check_same(
            f"--model {self.name}",
            map(self._key, questions),
            map(self._key, self._predictions),
        )
        answers: list[str] = []
        for question in questions:
            prediction = self._by_key[self._key(question)]
            check_question(_truth(question), prediction)
            answers.append(prediction.answer)
        return answers

    def _key(self, one: Question | Prediction) -> Key:
        question_id = one.id if isinstance(one, Prediction) else one.question_id
        if not self._is_ledger:
            return (question_id,)
        return (str(one.benchmark), str(one.split), question_id)

    def _check_ids(self, questions: Sequence[Question]) -> None:
        """Refuse splits that use the same ids, where the file does not say which one is meant."""
        ids = Counter(map(self._key, questions))
        double = [key for key, times in ids.items() if times > 1]
        if double:
            raise SettingError(
                f"--model: {self.name} does not say which split its answers belong to, and "
                f"{len(double):,} question ids occur in several (first {double[0][-1]}); leave "
                "one split in data.benchmarks, give a ledger, or score it by tools/score.py, which "
                "takes a file per split"
            )


def _read(path: Path) -> list[Prediction]:
    try:
        return read_predictions(path, None)
    except SettingError as error:  # it names the option of the tool that rescores
        raise SettingError(str(error).replace(OPTION, "--model")) from error


def _truth(question: Question) -> Truth:
    return Truth(
        question.question_id,
        question.answers,
        question=question.source or question.text,
        image=None if question.image is None else str(question.image),
    )
