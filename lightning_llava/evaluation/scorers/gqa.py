"""GQA: one right answer, compared whole."""

import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio
from lightning_llava.evaluation.scorers.dialects import require

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _same_letters(text: str) -> str:
    return text.lower().translate(_WITHOUT_PUNCTUATION)


_IS_RIGHT: dict[str, Callable[[str, str], bool]] = {
    "official": lambda prediction, answer: prediction == answer,
    "llava": lambda prediction, answer: prediction.rstrip(".").lower() == answer,
    "lmms-eval": lambda prediction, answer: _same_letters(prediction) == _same_letters(answer),
    "vlmevalkit": lambda prediction, answer: prediction.strip().lower() == answer.strip().lower(),
}


class GqaCounts(NamedTuple):
    """What the accuracy is made of; the counts of parts add up element by element."""

    correct: int
    total: int


def gqa_is_right(prediction: str, answer: str, dialect: str) -> bool:
    """Compare one answer.

    Raises:
        SettingError: GQA does not define the dialect.
    """
    require("gqa", dialect)
    return _IS_RIGHT[dialect](prediction, answer)


def gqa_update(predictions: Sequence[str], answers: Sequence[str], dialect: str) -> GqaCounts:
    """Count raw answers that are right.

    Args:
        predictions: of the balanced questions: in every dialect GQA is scored on those alone.
        answers: the published ones.
        dialect: see `dialects.DIALECTS`.

    Raises:
        SettingError: GQA does not define the dialect, or the columns differ in length.
    """
    require("gqa", dialect)
    check_lengths(predictions=predictions, answers=answers)
    correct = sum(map(_IS_RIGHT[dialect], predictions, answers))
    return GqaCounts(correct, len(predictions))


def gqa_compute(counts: GqaCounts) -> dict[str, float]:
    """Turn counts into `accuracy` (an unrounded fraction), `correct` and `total`."""
    return {"accuracy": ratio(counts.correct, counts.total), **counts._asdict()}


class Gqa(CountingMetric):
    """GQA's accuracy over batches and processes."""

    def __init__(self, dialect: str, **kwargs: Any) -> None:
        require("gqa", dialect)
        super().__init__(len(GqaCounts._fields), **kwargs)
        self.dialect = dialect

    def update(self, predictions: Sequence[str], answers: Sequence[str]) -> None:
        """Add raw answers of balanced questions and the right ones."""
        self.add(gqa_update(predictions, answers, self.dialect))

    def compute(self) -> dict[str, float]:
        """Return `gqa_compute` over everything seen, by all processes."""
        return gqa_compute(GqaCounts(*self.counts.tolist()))
