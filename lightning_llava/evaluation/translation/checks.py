"""Tell a translation from what translation models say when they are lost."""

import math
import re
from typing import Literal

from lightning_llava.evaluation.scorers.language import SCRIPTS, script_share
from lightning_llava.evaluation.translation.translator import Language

Problem = Literal["empty", "script", "repetition"]

MOST_REPEATS = 2
"""More of the same words in a row, unless the source repeats as much, is a loop."""
_LONGEST = 8
_STUTTER = re.compile(r"(\S{1,4}?)\1{7,}")
"""Eight times the same letters in one word."""


def find_problem(text: str, translation: str, target: Language) -> Problem | None:
    """Look for what makes a translation unusable.

    Args:
        text: what was translated; it has letters.
        translation: what came of it.
        target: the language it should be in.

    Returns:
        `empty`: nothing, or signs only; `script`: letters, but not mostly the language's (figures
        instead of words are fine); `repetition`: the same again and again; None: none of these.
    """
    if not any(map(str.isalnum, translation)):
        return "empty"
    share = script_share(translation, SCRIPTS[target])
    if not math.isnan(share) and share <= 0.5:
        return "script"
    if repeats(translation) > max(MOST_REPEATS, repeats(text)):
        return "repetition"
    if _STUTTER.search(translation) and not _STUTTER.search(text):
        return "repetition"
    return None


def repeats(text: str) -> int:
    """Count how often in a row the most repeated run of up to eight words stands."""
    words = re.findall(r"\w+", text.casefold())
    most = min(1, len(words))
    for size in range(1, min(_LONGEST, len(words)) + 1):
        in_a_row = 0  # words that equal the one `size` before them
        for place in range(size, len(words)):
            in_a_row = in_a_row + 1 if words[place] == words[place - size] else 0
            most = max(most, 1 + in_a_row // size)
    return most
