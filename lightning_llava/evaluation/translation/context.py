"""Put an answer behind its question for translation, and cut its translation out again.

A single word has no one translation: «змей» is a kite after "What is in the sky?".
"""

import re

_END = re.compile(r"[.!?…]\s*$")


def in_context(question: str, answer: str) -> str:
    """Write question and answer as two sentences."""
    asked = " ".join(question.split())
    asked = asked if asked.endswith("?") else asked.rstrip(".!:… ") + "?"
    answer = " ".join(answer.split())
    return f"{asked} {answer[:1].upper()}{answer[1:]}" + ("" if _END.search(answer) else ".")


def extract(translation: str, question: str, answer: str) -> str:
    """Cut the answer out of what `in_context` was translated to.

    Returns:
        It, or nothing where the question marks do not tell where it begins.
    """
    expected = in_context(question, answer).count("?")
    marks = expected - answer.count("?")
    parts = translation.split("?")
    if len(parts) - 1 != expected:
        return ""
    return "?".join(parts[marks:]).strip()


def as_written(translation: str, answer: str) -> str:
    """Give a translation the case of the answer's first letter and its final period, or none.

    Scorers read `White.`, `White` and `white` differently, and an English model is scored by what
    it wrote: the Russian one must be, too.
    """
    translation, answer = translation.strip(), answer.strip()
    if answer.endswith("."):
        translation += "" if translation.endswith(".") else "."
    else:
        translation = re.sub(r"(?<!\.)\.$", "", translation)
    first = answer[:1]
    if first.isupper():
        return translation[:1].upper() + translation[1:]
    if first.islower() and not translation[1:2].isupper():  # TV stays TV
        return translation[:1].lower() + translation[1:]
    return translation
