"""Put an answer to the nearest of a closed list, which is another measurement: see the report."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from lightning_llava.errors import SettingError

CLOSE = 0.8
"""Least likeness, as `difflib` measures it, of an answer to what it is taken for."""


class Vocabulary:
    """All answers that are allowed, such as those of the training questions.

    Args:
        answers: in English.
    """

    def __init__(self, answers: Iterable[str]) -> None:
        self._answers = {_plain(answer): answer for answer in answers}
        self.snap = lru_cache(maxsize=None)(self._snap)

    def _snap(self, answer: str) -> str:
        """Return the same answer as the list writes it, else the most alike, else what was given.

        Case, articles and signs at the ends make no difference.
        """
        plain = _plain(answer)
        if plain in self._answers:
            return self._answers[plain]
        close = get_close_matches(plain, self._answers, n=1, cutoff=CLOSE)
        return self._answers[close[0]] if close else answer


def _plain(text: str) -> str:
    words = re.findall(r"[\w'-]+", text.casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def read_vocabulary(path: Path) -> Vocabulary:
    """Read one answer per line.

    Raises:
        SettingError: the file is missing or empty.
    """
    if not path.is_file():
        raise SettingError(f"--vocabulary: the file {str(path)!r} does not exist")
    answers = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    if not any(answers):
        raise SettingError(f"--vocabulary: {path} is empty, expected one answer per line")
    return Vocabulary(filter(None, answers))
