"""What a language must be able to say about the embedded world."""

from typing import Protocol

from lightning_llava.demo.drawing import Extent
from lightning_llava.demo.questions import Question
from lightning_llava.demo.scenes import Scene, SceneObject


class Wording(Protocol):
    """One language. `english.py` and `russian.py` are modules of this shape."""

    @property
    def CODE(self) -> str:  # noqa: N802 (a module's constant)
        """ISO 639-1 code."""
        ...

    @property
    def DESCRIBE(self) -> str:  # noqa: N802
        """Asks for a caption."""
        ...

    @property
    def IN_WORDS(self) -> str:  # noqa: N802
        """Takes the place of the picture in text-only records; holds `{caption}`."""
        ...

    @property
    def OPPOSITES(self) -> tuple[tuple[str, str], ...]:  # noqa: N802
        """Pairs of words of opposite meaning."""
        ...

    def ask(self, question: Question) -> str:
        """Ask."""
        ...

    def answer(self, question: Question) -> str:
        """Answer in a word or phrase."""
        ...

    def reply(self, question: Question) -> str:
        """Answer in a sentence."""
        ...

    def describe(self, thing: SceneObject) -> str:
        """Name an object by size, colour and shape, in lower case and without an article."""
        ...

    def place(self, cell: int) -> str:
        """Name a cell of the grid."""
        ...

    def printed(self, word: str) -> str:
        """Name a printed word as a part of the picture, in lower case."""
        ...

    def caption(self, scene: Scene) -> str:
        """Describe a scene in reading order."""
        ...

    def ask_phrase(self, box: str) -> str:
        """Ask what is in a box."""
        ...

    def ask_box(self, phrase: str) -> str:
        """Ask for the box of what a phrase names."""
        ...

    def ask_sum(self, first: int, second: int) -> str:
        """Ask for a sum."""
        ...

    def ask_opposite(self, word: str) -> str:
        """Ask for the opposite of a word."""
        ...

    def ask_letter(self, word: str, last: bool) -> str:
        """Ask for the first or last letter of a word."""
        ...


def coordinates(extent: Extent) -> str:
    """Write a box as text: left, top, right, bottom with two decimals."""
    return "[" + ", ".join(f"{edge:.2f}" for edge in extent) + "]"


def capitalised(text: str) -> str:
    """Capitalise the first letter and nothing else."""
    return text[:1].upper() + text[1:]
