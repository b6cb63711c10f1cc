"""Tell the language of a conversation."""

from collections.abc import Sequence

from lightning_llava.text.turns import Turn


def spoken_language(turns: Sequence[Turn]) -> str:
    """Tell `ru` from `en` by the letters of the answers, or of all turns where those have none.

    `ru` when more than half of the letters are Cyrillic.
    """
    answers = "".join(turn.text for turn in turns if turn.role == "assistant")
    letters = [letter for letter in answers if letter.isalpha()]
    if not letters:  # `2` is an answer in both languages
        letters = [letter for turn in turns for letter in turn.text if letter.isalpha()]
    cyrillic = sum("\u0400" <= letter <= "\u04ff" for letter in letters)
    return "ru" if cyrillic * 2 > len(letters) else "en"
