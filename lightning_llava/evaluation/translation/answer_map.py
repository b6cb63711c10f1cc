"""Short Russian answers that have one English each: yes and no, numbers, colours, left and right.

All of it is by tables of word forms, so that it says the same on every machine, whatever is
installed. An answer is in the map as a whole or not at all: «да» is not looked for in «вода».
"""

from lightning_llava.evaluation.russian import normalise

_HARD = ["ый", "ой", "ого", "ому", "ым", "ом", "ая", "ую", "ою", "ое", "ые", "ых", "ыми"]
_SOFT = ["ий", "его", "ему", "им", "ем", "яя", "ей", "юю", "ею", "ее", "ие", "их", "ими"]
"""Endings of adjectives in every gender, number and case.

Each stem has its own: with the other's, «голубой» would take in «голубей», which are pigeons.
"""
_COLOUR_STEMS = {
    "красн": "red",
    "голуб": "blue",
    "зелен": "green",
    "желт": "yellow",
    "черн": "black",
    "бел": "white",
    "сер": "gray",
    "коричнев": "brown",
    "оранжев": "orange",
    "розов": "pink",
    "фиолетов": "purple",
    "пурпурн": "purple",
    "бежев": "beige",
    "золотист": "gold",
    "золот": "gold",
    "серебрист": "silver",
    "серебрян": "silver",
    "бордов": "maroon",
    "бирюзов": "turquoise",
    "кремов": "cream",
}
_SIDE_STEMS = {"лев": "left", "прав": "right"}
_SIDES = {
    "слева": "left",
    "влево": "left",
    "налево": "left",
    "лево": "left",
    "справа": "right",
    "вправо": "right",
    "направо": "right",
    "право": "right",
}
_OBLIQUE = {
    "0": "ноля нолю нолем нуля нулю нулем",
    "1": "одного одному одним одном одну одной одною одни одних одними",
    "2": "двух двум двумя",
    "3": "трех трем тремя",
    "4": "четырех четырем четырьмя",
    "5": "пяти пятью",
    "6": "шести шестью",
    "7": "семи семью",
    "8": "восьми восемью восьмью",
    "9": "девяти девятью",
    "10": "десяти десятью",
}
"""Numerals that `russian.normalise` does not turn into digits, for it reads nominatives only."""


def _forms(stems: dict[str, str], endings: list[str]) -> dict[str, str]:
    return {stem + ending: word for stem, word in stems.items() for ending in endings}


_COLOURS = _forms(_COLOUR_STEMS, _HARD) | _forms({"син": "blue"}, _SOFT)
_SIDES |= _forms(_SIDE_STEMS, _HARD)
_PLAIN = {"да": "yes", "нет": "no"} | {
    form: digits for digits, forms in _OBLIQUE.items() for form in forms.split()
}
_PARTS = {"сторона", "стороны", "стороне", "сторону", "часть", "части"}
"""May stand behind left or right, as may «в», «на» or «с» in front."""
_BEFORE_HYPHEN = {"светло": "light", "темно": "dark", "черно": "black and", "бело": "white and"}


def map_answer(answer: str) -> str | None:
    """Return the English of an answer that the map has; None for any other."""
    words = normalise(answer).split()
    if len(words) == 1:
        (word,) = words
        if word.replace(".", "", 1).isdecimal():
            return word
        if word in _PLAIN:
            return _PLAIN[word]
    return _side(words) or _colours(words)


def _side(words: list[str]) -> str | None:
    if len(words) > 1 and words[0] in ("в", "на", "с"):
        words = words[1:]
    if len(words) == 2 and words[1] in _PARTS:
        words = words[:1]
    return _SIDES.get(words[0]) if len(words) == 1 else None


def _colours(words: list[str]) -> str | None:
    """Read `белый`, `тёмно-синего цвета`, `чёрно-белая` and `красный и белый`."""
    if words and words[-1] in ("цвет", "цвета"):
        words = words[:-1]
    names = [_colour(name.split()) for name in " ".join(words).split(" и ")]
    found = [name for name in names if name]
    return " and ".join(found) if len(found) == len(names) else None


def _colour(words: list[str]) -> str | None:
    name = _COLOURS.get(words[-1]) if words else None
    if name is None or len(words) == 1:
        return name
    first = _BEFORE_HYPHEN.get(words[0]) if len(words) == 2 else None
    return f"{first} {name}" if first else None
