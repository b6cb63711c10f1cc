"""A question as it is asked: what all benchmarks have in common."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

LONG_ANSWERS = {"ocr", "regions", "mt_bench"}
"""Kinds whose questions never get the prompt for short answers."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark; (benchmark, split, question_id) is unique."""

    benchmark: str
    split: str
    question_id: str
    text: str
    """As published, without any prompt around it."""
    image: Path | None
    label: str | None
    """The right answer in the benchmark's own words (POPE: yes or no, in Russian, too)."""
    language: str
    """Of `text`."""
    kind: str = "pope"
    """Format and scorer: `BenchmarkSpec.kind`, or `predict`."""
    answers: tuple[str, ...] = ()
    """All right answers, ten for VQAv2; `label` is the first, or the commonest."""
    types: tuple[tuple[str, str], ...] = ()
    """Ways to group the questions, and the group of this one, such as VQAv2's answer_type."""
    source: str | None = None
    """The published text, where `text` is its translation."""
    context: str = ""
    """What stands behind `text` and is no part of the question: TextVQA's OCR tokens."""
    follow_up: str | None = None
    """What is asked after the answer to this question, in the same conversation."""
    history: tuple[str, ...] = ()
    """Questions and answers in turn, before this question in the same conversation."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Benchmark, split and id, as in a ledger."""
        return self.benchmark, self.split, self.question_id

    def asked(self, short_answer: Mapping[str, str] | None) -> str:
        """Write the user's turn, without placeholders for the image.

        Args:
            short_answer: prompt per language, which kinds with longer answers go without; None:
                no prompt.
        """
        if short_answer is None or self.kind in LONG_ANSWERS:
            return self.text + self.context
        return self.text + self.context + short_answer[self.language]

    def prompt_key(self) -> Hashable:
        """Return what, together with the image, decides what the model is given."""
        is_long = self.kind in LONG_ANSWERS
        return self.text, self.context, self.language, self.history, is_long

    def next_question(self, answer: str) -> "Question | None":
        """Return the follow-up, once the answer is there; its split is one of its own."""
        if self.follow_up is None:
            return None
        return replace(
            self,
            split=f"{self.split}_turn_2",
            text=self.follow_up,
            history=(*self.history, self.text, answer),
            follow_up=None,
        )


def with_follow_ups(questions: Iterable[Question]) -> list[Question]:
    """List all questions that will have been answered, in whatever words."""
    asked = list(questions)
    return asked + [after for question in asked if (after := question.next_question(""))]
