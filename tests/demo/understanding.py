"""The demo's sentences read back: a second way from words to meaning, written apart from the first.

It knows stems and patterns only, none of the package's tables, so it can tell whether what the
package says about a scene is so.
"""

import re
from functools import cache
from typing import NamedTuple

COLOUR_STEMS = {
    "en": {word: word for word in ["red", "blue", "green", "yellow", "purple", "orange", "black"]},
    "ru": {
        "красн": "red",
        "син": "blue",
        "зелён": "green",
        "жёлт": "yellow",
        "фиолетов": "purple",
        "оранжев": "orange",
        "чёрн": "black",
    },
}
SHAPE_STEMS = {
    "en": {word: word for word in ["circle", "square", "triangle", "star", "heart", "cross"]},
    "ru": {
        "круг": "circle",
        "квадрат": "square",
        "треугольник": "triangle",
        "звезд": "star",
        "звёзд": "star",
        "серд": "heart",
        "крест": "cross",
    },
}
SIZE_STEMS = {
    "en": {"large": "large", "small": "small"},
    "ru": {"больш": "large", "маленьк": "small"},
}
STEMS = {"colour": COLOUR_STEMS, "shape": SHAPE_STEMS, "size": SIZE_STEMS}
NUMBERS = {
    "en": {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4},
    "ru": {"нет": 0, "один": 1, "одна": 1, "одно": 1, "два": 2, "две": 2, "три": 3, "четыре": 4},
}
COUNTS = {"count_all", "count_shape", "count_colour"}
SHORT = {
    "en": "\nAnswer the question using a single word or phrase.",
    "ru": "\nОтветь одним словом.",
}
VERDICTS = {"Yes": True, "No": False, "Да": True, "Нет": False}
QUESTIONS = {
    "en": {
        "exists": r"Is there an? (?P<colour>\w+) (?P<shape>\w+) in the image\?",
        "is_colour": r"Is the (?P<shape>\w+) (?P<colour>\w+)\?",
        "colour_of": r"What color is the (?P<shape>\w+)\?",
        "colour_at": r"What color is the object (?P<place>(on|in|at) the [\w ]+)\?",
        "shape_at": r"What shape is the object (?P<place>(on|in|at) the [\w ]+)\?",
        "count_all": r"How many objects are in the image\?",
        "count_colour": r"How many (?P<colour>\w+) objects are in the image\?",
        "count_shape": r"How many (?P<shape>\w+) are in the image\?",
        "where": r"Where is the (?P<colour>\w+) (?P<shape>\w+)\?",
        "where_it": r"Where is it\?",
        "has_word": r"Is there a word in the image\?",
        "read": r"What word is written in the image\?",
    },
    "ru": {
        "has_word": r"Есть ли на изображении слово\?",
        "exists": r"Есть ли на изображении (?P<colour>\w+) (?P<shape>\w+)\?",
        "colour_at": r"Какого цвета фигура (?P<place>[\w ]+)\?",
        "colour_of": r"Какого цвета (?P<shape>\w+)\?",
        "shape_at": r"Какая фигура находится (?P<place>[\w ]+)\?",
        "count_all": r"Сколько фигур на изображении\?",
        "count_colour": r"Сколько (?P<colour>\w+) фигур на изображении\?",
        "count_shape": r"Сколько (?P<shape>\w+) на изображении\?",
        "where_it": r"Где (он|она|оно) находится\?",
        "where": r"Где находится (?P<colour>\w+) (?P<shape>\w+)\?",
        "read": r"Какое слово написано на изображении\?",
        "is_colour": r"(?P<shape>\w+) (?P<colour>\w+)\?",
    },
}
"""The first that matches is meant."""


class Asked(NamedTuple):
    topic: str
    colour: str | None = None
    shape: str | None = None
    cell: int | None = None


def exchanges(sample):
    """Pair up questions and answers, without what marks the picture and the short answer."""
    turns = iter(sample.turns)
    for question, answer in zip(turns, turns, strict=True):
        text = question.text.removeprefix("<image>\n").removesuffix(SHORT[sample.language])
        yield text, answer.text


def understand(question, language):
    """Say what is asked, or None where it is no question about a picture's contents."""
    for topic, pattern in QUESTIONS[language].items():
        if match := re.fullmatch(pattern, question):
            found = match.groupdict()
            place = found.get("place")
            return Asked(
                topic,
                colour=_only(colours(found.get("colour") or "", language)),
                shape=_only(shapes(found.get("shape") or "", language)),
                cell=None if place is None else cell(place),
            )
    return None


def truth(scene, asked):
    """Look the answer up in the scene."""
    same = [
        thing
        for thing in scene.objects
        if asked.colour in (None, thing.kind.colour)
        and asked.shape in (None, thing.kind.shape)
        and asked.cell in (None, thing.cell)
    ]
    if asked.topic == "exists":
        return bool(same)
    if asked.topic in COUNTS:
        return len(same)
    if asked.topic == "has_word":
        return scene.word is not None
    if asked.topic == "read":
        return scene.word.text
    if asked.topic == "is_colour":
        (only,) = [thing for thing in scene.objects if thing.kind.shape == asked.shape]
        return only.kind.colour == asked.colour
    # The rest is about one thing: a question that could mean two has no right answer.
    (only,) = same
    answers = {"where": only.cell, "where_it": only.cell, "shape_at": only.kind.shape}
    return answers.get(asked.topic, only.kind.colour)


def said(topic, answer, language):
    """Read an answer of either form, the short and the long one."""
    words = re.findall(r"\w+", answer)
    if topic in ("exists", "is_colour", "has_word"):
        return VERDICTS[words[0]]
    if topic in COUNTS:
        numbers = [NUMBERS[language].get(w, int(w) if w.isdecimal() else None) for w in words]
        return _only([number for number in numbers if number is not None])
    if topic in ("where", "where_it"):
        return cell(answer)
    if topic == "read":
        return _only(re.findall(r"[A-ZА-ЯЁ]{2,}", answer))
    return _only((shapes if topic == "shape_at" else colours)(answer, language))


def caption(text, language):
    """Read a caption: (size, colour, shape, cell) in its order, and (word, row) or None."""
    first, _, second = text.removesuffix(".").partition(". ")
    things = [
        (
            _only(_meanings(part, language, "size")),
            _only(colours(part, language)),
            _only(shapes(part, language)),
            cell(part),
        )
        for part in re.split(r", | and | и ", first)
    ]
    return things, (said("read", second, language), cell(second) // 3) if second else None


def cell(text):
    """Find the place that a text names, on the grid."""
    words = set(re.findall(r"\w+", text.lower()))
    up, down = words & {"top", "вверху"}, words & {"bottom", "внизу"}
    left, right = words & {"left", "слева"}, words & {"right", "справа"}
    assert up or down or left or right or words & {"middle", "центре"}, text
    row = 0 if up else 2 if down else 1
    return 3 * row + (0 if left else 2 if right else 1)


def colours(text, language):
    return _meanings(text, language, "colour")


def shapes(text, language):
    return _meanings(text, language, "shape")


def mentioned_kinds(text, language):
    """Find every colour that is said of a shape: a red star, the star is (not) red."""
    linking = {"is", "not", "не"}
    words = [word for word in re.findall(r"\w+|[.,;:!?]", text.lower()) if word not in linking]
    as_colours = [_meaning(word, language, "colour") for word in words]
    as_shapes = [_meaning(word, language, "shape") for word in words]
    pairs = [*zip(as_colours, as_shapes[1:]), *zip(as_colours[1:], as_shapes)]  # noqa: B905
    return {(colour, shape) for colour, shape in pairs if colour and shape}


def _meanings(text, language, sort):
    words = re.findall(r"\w+", text.lower())
    return [meaning for word in words if (meaning := _meaning(word, language, sort))]


@cache
def _meaning(word, language, sort):
    return _only(
        [meaning for stem, meaning in STEMS[sort][language].items() if word.startswith(stem)]
    )


def _only(found):
    assert len(found) <= 1, found
    return found[0] if found else None
