"""The embedded world in Russian: colours agree with the shapes in gender, number and case."""

from typing import Literal, NamedTuple

from lightning_llava.demo.questions import Question, Topic
from lightning_llava.demo.scenes import Colour, Kind, Scene, SceneObject, Shape, Size
from lightning_llava.demo.wording import capitalised

Gender = Literal["m", "f", "n"]


class Noun(NamedTuple):
    """The forms of a noun that the templates need."""

    gender: Gender
    one: str
    """Nominative singular: есть круг."""
    of_one: str
    """Genitive singular: круга нет, два круга."""
    of_many: str
    """Genitive plural: нет кругов, сколько кругов."""


class Adjective(NamedTuple):
    """The forms of an adjective that the templates need."""

    one: dict[Gender, str]
    """Nominative singular."""
    of_one: dict[Gender, str]
    """Genitive singular."""
    many: str
    """Nominative plural."""
    of_many: str
    """Genitive plural."""


def _hard(stem: str) -> Adjective:
    return Adjective(
        one={"m": f"{stem}ый", "f": f"{stem}ая", "n": f"{stem}ое"},
        of_one={"m": f"{stem}ого", "f": f"{stem}ой", "n": f"{stem}ого"},
        many=f"{stem}ые",
        of_many=f"{stem}ых",
    )


CODE = "ru"
DESCRIBE = "Кратко опиши изображение."
IN_WORDS = "Изображение словами: {caption}"
OPPOSITES = (
    ("большой", "маленький"),
    ("верх", "низ"),
    ("левый", "правый"),
    ("да", "нет"),
    ("день", "ночь"),
    ("открытый", "закрытый"),
    ("горячий", "холодный"),
    ("старый", "новый"),
)

NOUNS: dict[Shape, Noun] = {
    "circle": Noun("m", "круг", "круга", "кругов"),
    "square": Noun("m", "квадрат", "квадрата", "квадратов"),
    "triangle": Noun("m", "треугольник", "треугольника", "треугольников"),
    "star": Noun("f", "звезда", "звезды", "звёзд"),
    "heart": Noun("n", "сердце", "сердца", "сердец"),
    "cross": Noun("m", "крест", "креста", "крестов"),
}
FIGURE = Noun("f", "фигура", "фигуры", "фигур")
ADJECTIVES: dict[Colour, Adjective] = {
    "red": _hard("красн"),
    "blue": Adjective(
        one={"m": "синий", "f": "синяя", "n": "синее"},
        of_one={"m": "синего", "f": "синей", "n": "синего"},
        many="синие",
        of_many="синих",
    ),
    "green": _hard("зелён"),
    "yellow": _hard("жёлт"),
    "purple": _hard("фиолетов"),
    "orange": _hard("оранжев"),
    "black": _hard("чёрн"),
}
SIZES: dict[Size, dict[Gender, str]] = {
    "large": {"m": "большой", "f": "большая", "n": "большое"},
    "small": {"m": "маленький", "f": "маленькая", "n": "маленькое"},
}
PRONOUNS: dict[Gender, str] = {"m": "он", "f": "она", "n": "оно"}
PLACES = (
    *("слева вверху", "вверху", "справа вверху"),
    *("слева", "в центре", "справа"),
    *("слева внизу", "внизу", "справа внизу"),
)
"""Cells of the grid, row by row."""
NUMBERS: tuple[dict[Gender, str], ...] = (
    {"m": "нет", "f": "нет", "n": "нет"},
    {"m": "один", "f": "одна", "n": "одно"},
    {"m": "два", "f": "две", "n": "два"},
    {"m": "три", "f": "три", "n": "три"},
    {"m": "четыре", "f": "четыре", "n": "четыре"},
)
QUESTIONS: dict[Topic, str] = {
    "exists": "Есть ли на изображении {kind}?",
    "is_colour": "{Shape} {colour}?",
    "colour_of": "Какого цвета {shape}?",
    "colour_at": "Какого цвета фигура {place}?",
    "shape_at": "Какая фигура находится {place}?",
    "count_all": "Сколько фигур на изображении?",
    "count_shape": "Сколько {shapes} на изображении?",
    "count_colour": "Сколько {colours} фигур на изображении?",
    "where": "Где находится {kind}?",
    "where_it": "Где {it} находится?",
    "has_word": "Есть ли на изображении слово?",
    "read": "Какое слово написано на изображении?",
}
REPLIES: dict[Topic, str] = {
    "colour_of": "{Shape} {answer}.",
    "colour_at": "Фигура {place} {answer}.",
    "shape_at": "{Place} находится {answer}.",
    "count_all": "На изображении {counted}.",
    "count_shape": "На изображении {counted}.",
    "count_colour": "На изображении {counted}.",
    "where": "{Kind} находится {answer_place}.",
    "where_it": "{It} находится {answer_place}.",
    "read": "На изображении написано слово «{answer}».",
}
DENIABLE_REPLIES: dict[Topic, tuple[str, str]] = {
    "exists": ("Нет, на изображении нет {of_kind}.", "Да, на изображении есть {kind}."),
    "is_colour": ("Нет, {shape} не {colour}.", "Да, {shape} {colour}."),
    "has_word": ("Нет, на изображении нет слова.", "Да, на изображении есть слово."),
}
"""Where the answer is no, and where it is yes."""


def ask(question: Question) -> str:
    """Ask."""
    return QUESTIONS[question.topic].format(**_forms(question))


def answer(question: Question) -> str:
    """Answer in a word or phrase."""
    if isinstance(question.answer, bool):
        return "Да" if question.answer else "Нет"
    if isinstance(question.answer, int):
        places = question.topic in ("where", "where_it")
        return capitalised(PLACES[question.answer]) if places else str(question.answer)
    return question.answer if question.topic == "read" else capitalised(_named(question, "m"))


def reply(question: Question) -> str:
    """Answer in a sentence."""
    if isinstance(question.answer, bool):
        template = DENIABLE_REPLIES[question.topic][question.answer]
    else:
        template = REPLIES[question.topic]
    return template.format(**_forms(question))


def describe(thing: SceneObject) -> str:
    """Name an object by size, colour and shape."""
    return f"{SIZES[thing.size][NOUNS[thing.kind.shape].gender]} {name(thing.kind)}"


def place(cell: int) -> str:
    """Name a cell of the grid."""
    return PLACES[cell]


def printed(word: str) -> str:
    """Name a printed word as a part of the picture."""
    return f"слово «{word}»"


def caption(scene: Scene) -> str:
    """Describe a scene in reading order."""
    parts = [f"{describe(thing)} {PLACES[thing.cell]}" for thing in scene.objects]
    text = " и ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    if scene.word is not None:
        place = PLACES[3 * scene.word.row + 1]
        text += f". {capitalised(place)} написано {printed(scene.word.text)}"
    return capitalised(text) + "."


def ask_phrase(box: str) -> str:
    """Ask what is in a box."""
    return f"Опиши область {box}."


def ask_box(phrase: str) -> str:
    """Ask for the box of what a phrase names."""
    return f"Укажи рамку области: {phrase}."


def ask_sum(first: int, second: int) -> str:
    """Ask for a sum."""
    return f"Сколько будет {first} плюс {second}?"


def ask_opposite(word: str) -> str:
    """Ask for the opposite of a word."""
    return f"Какое слово противоположно слову «{word}»?"


def ask_letter(word: str, last: bool) -> str:
    """Ask for the first or last letter of a word."""
    return f"Какая {'последняя' if last else 'первая'} буква в слове «{word}»?"


def name(kind: Kind) -> str:
    """Name a kind of object: красный круг, красная звезда, красное сердце."""
    noun = NOUNS[kind.shape]
    return f"{ADJECTIVES[kind.colour].one[noun.gender]} {noun.one}"


def count(number: int, noun: Noun, colour: Colour | None = None) -> str:
    """Count: три круга, одна звезда, нет красных фигур, две красные фигуры."""
    words = [NUMBERS[number][noun.gender]]
    if colour is not None:
        forms = ADJECTIVES[colour]
        # After 2 to 4: две красные фигуры, but два красных круга.
        many = forms.many if noun.gender == "f" else forms.of_many
        words.append((forms.of_many, forms.one[noun.gender], *3 * (many,))[number])
    return " ".join([*words, (noun.of_many, noun.one, *3 * (noun.of_one,))[number]])


def _named(question: Question, gender: Gender) -> str:
    """Name an answer that is a colour or a shape."""
    for colour, adjective in ADJECTIVES.items():
        if colour == question.answer:
            return adjective.one[gender]
    for shape, noun in NOUNS.items():
        if shape == question.answer:
            return noun.one
    return str(question.answer)


def _forms(question: Question) -> dict[str, str]:
    noun = FIGURE if question.shape is None else NOUNS[question.shape]
    forms = {
        "answer": _named(question, noun.gender),
        "shape": noun.one,
        "shapes": noun.of_many,
        "it": PRONOUNS[noun.gender],
    }
    if question.colour is not None:
        adjective = ADJECTIVES[question.colour]
        forms |= {"colour": adjective.one[noun.gender], "colours": adjective.of_many}
        forms["kind"] = f"{adjective.one[noun.gender]} {noun.one}"
        forms["of_kind"] = f"{adjective.of_one[noun.gender]} {noun.of_one}"
    if question.cell is not None:
        forms["place"] = PLACES[question.cell]
    if question.topic in ("where", "where_it"):
        forms["answer_place"] = PLACES[int(question.answer)]
    if question.topic.startswith("count"):
        forms["counted"] = count(int(question.answer), noun, question.colour)
    return forms | {capitalised(key): capitalised(text) for key, text in forms.items()}
