"""Questions to ledger rows: each distinct one is asked once, those about one image together."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.row_scores import judged

T = TypeVar("T")


def group_identical(questions: Sequence[Question]) -> list[list[Question]]:
    """Put questions with the same image and prompt together.

    Their prompts are the same, so one greedy answer serves them all: POPE asks 5,127 distinct
    questions in 9,000 rows.

    Returns:
        One list per distinct question, those about one image next to each other.
    """
    by_image: dict[object, dict[Hashable, list[Question]]] = {}
    for question in questions:
        same_image = by_image.setdefault(question.image, {})
        same_image.setdefault(question.prompt_key(), []).append(question)
    return [group for same_image in by_image.values() for group in same_image.values()]


def group_by_image(
    distinct: Iterable[T], image_of: Callable[[T], Hashable], most_without: int
) -> list[list[T]]:
    """Put the distinct questions about one image together: they are answered together.

    Args:
        distinct: questions, in whatever form.
        image_of: what tells the image of one; None where it has none.
        most_without: questions without an image have less in common, so at most that many are put
            together.
    """
    by_image: dict[Hashable, list[T]] = {}
    for one in distinct:
        by_image.setdefault(image_of(one), []).append(one)
    together: list[list[T]] = []
    for image, same in by_image.items():
        size = len(same) if image is not None else most_without
        together += [same[start : start + size] for start in range(0, len(same), size)]
    return together


def share(
    groups: Sequence[list[Question]], rank: int, world: int, at_once: int, in_step: bool = False
) -> list[list[list[Question]]]:
    """Return what one of `world` processes asks, image by image.

    Args:
        groups: as `group_identical` gives them.
        rank: of the process.
        world: number of processes.
        at_once: most questions in a pass.
        in_step: give each process as many questions as the others, or one less, one by one.

    Raises:
        SettingError: a process would have nothing to ask, and the others would wait for it; or, in
            step, a question has a second turn.
    """
    if in_step and any(question.follow_up for group in groups for question in group):
        raise SettingError(
            "data.benchmarks: MT-Bench's second turns depend on the first, and the processes of "
            "trainer.strategy: fsdp2 would wait for one another; answer it on one device"
        )
    by_image = [[group] for group in groups]
    if not in_step:
        most_without = max(1, min(at_once, len(groups) // world))
        by_image = group_by_image(groups, lambda group: group[0].image, most_without)
    if len(by_image) < world:
        raise SettingError(
            f"{len(groups)} different questions about {len(by_image)} images for {world} "
            "processes, expected at least one image for each; set trainer.devices: "
            f"{max(1, len(by_image))} or fewer"
        )
    return by_image[rank::world]


def make_rows(questions: Iterable[Question], prompt: str, raw_answer: str) -> list[LedgerRow]:
    """Write a row for each of the identical questions, parsed and judged where it has a label."""
    return [judged(_make_row(question, prompt, raw_answer)) for question in questions]


def _make_row(question: Question, prompt: str, raw_answer: str) -> LedgerRow:
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
        parsed=None,
        correct=None,
        kind=question.kind,
        answers=list(question.answers),
        types=dict(question.types),
        source=question.source,
        english=None,
        route=None,
    )
