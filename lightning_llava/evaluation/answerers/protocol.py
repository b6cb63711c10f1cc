"""What an evaluation needs of a model, and of nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lightning_llava.evaluation.benchmarks import Question


class Answerer(Protocol):
    """Anything that answers questions."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """Hash of all that an answer depends on beside image and prompt: weights, settings, code.

        None where the answers are there already: nothing is asked, so nothing is kept, and equal
        questions need not have equal answers.
        """
        ...

    def prompt(self, question: Question) -> str:
        """Return the exact text that the model is given; equal texts get equal answers."""
        ...

    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Answer questions about one image, or about none.

        Returns:
            The raw answers, each as if its question had been asked alone.
        """
        ...
