"""Questions to ledger rows: each distinct one is asked once, those about one image together."""

from collections.abc import Iterable, Sequence

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.pope import parse_answer


def group_identical(questions: Sequence[Question]) -> list[list[Question]]:
    """Put questions with the same image, text and language together.

    Their prompts are the same, so one greedy answer serves them all: POPE asks 5,127 distinct
    questions in 9,000 rows.

    Returns:
        One list per distinct question, those about one image next to each other.
    """
    by_image: dict[object, dict[tuple[str, str], list[Question]]] = {}
    for question in questions:
        same_image = by_image.setdefault(question.image, {})
        same_image.setdefault((question.text, question.language), []).append(question)
    return [group for same_image in by_image.values() for group in same_image.values()]


def share(groups: Sequence[list[Question]], rank: int, world: int) -> Sequence[list[Question]]:
    """Return what one of `world` processes asks.

    Raises:
        SettingError: a process would have nothing to ask, and the others would wait for it.
    """
    if len(groups) < world:
        raise SettingError(
            f"{len(groups)} different questions for {world} processes, expected at least one for "
            f"each; set trainer.devices: {max(1, len(groups))} or fewer"
        )
    return groups[rank::world]


def make_rows(questions: Iterable[Question], prompt: str, raw_answer: str) -> list[LedgerRow]:
    """Write a row for each of the identical questions, parsed and judged where it has a label."""
    return [_make_row(question, prompt, raw_answer) for question in questions]


def _make_row(question: Question, prompt: str, raw_answer: str) -> LedgerRow:
    parsed = None if question.label is None else parse_answer(raw_answer, question.language)
    return LedgerRow(
        benchmark=question.benchmark,
        split=question.split,
        question_id=question.question_id,
        image=None if question.image is None else str(question.image),
        language=question.language,
        question=question.text,
        prompt=prompt,
        raw_answer=raw_answer,
        label=question.label,
        parsed=parsed,
        correct=None if question.label is None else parsed == question.label,
    )
