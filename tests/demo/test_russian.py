import pytest

from lightning_llava.demo import russian
from lightning_llava.demo.questions import Question
from lightning_llava.demo.russian import FIGURE, NOUNS
from lightning_llava.demo.scenes import COLOURS, Kind, PrintedWord, Scene, SceneObject

STAR = SceneObject(Kind("blue", "star"), "large", 0)
HEART = SceneObject(Kind("green", "heart"), "small", 4)

AGREEMENT = {
    "red": ("красный круг", "красная звезда", "красное сердце"),
    "blue": ("синий круг", "синяя звезда", "синее сердце"),
    "green": ("зелёный круг", "зелёная звезда", "зелёное сердце"),
    "yellow": ("жёлтый круг", "жёлтая звезда", "жёлтое сердце"),
    "purple": ("фиолетовый круг", "фиолетовая звезда", "фиолетовое сердце"),
    "orange": ("оранжевый круг", "оранжевая звезда", "оранжевое сердце"),
    "black": ("чёрный круг", "чёрная звезда", "чёрное сердце"),
}
ABSENCE = {
    "red": ("красного круга", "красной звезды", "красного сердца"),
    "blue": ("синего круга", "синей звезды", "синего сердца"),
    "green": ("зелёного круга", "зелёной звезды", "зелёного сердца"),
    "yellow": ("жёлтого круга", "жёлтой звезды", "жёлтого сердца"),
    "purple": ("фиолетового круга", "фиолетовой звезды", "фиолетового сердца"),
    "orange": ("оранжевого круга", "оранжевой звезды", "оранжевого сердца"),
    "black": ("чёрного круга", "чёрной звезды", "чёрного сердца"),
}


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_agree_in_gender_and_case(colour):
    for position, shape in enumerate(("circle", "star", "heart")):
        assert russian.name(Kind(colour, shape)) == AGREEMENT[colour][position]
        denied = russian.reply(Question("exists", False, colour, shape))
        assert denied == f"Нет, на изображении нет {ABSENCE[colour][position]}."


def test_the_other_nouns_after_no():
    shapes = {"square": "квадрата", "triangle": "треугольника", "cross": "креста"}
    for shape, genitive in shapes.items():
        denied = russian.reply(Question("exists", False, "black", shape))
        assert denied == f"Нет, на изображении нет чёрного {genitive}."


COUNTED = {
    "circle": ("нет кругов", "один круг", "два круга", "три круга", "четыре круга"),
    "square": (
        "нет квадратов",
        "один квадрат",
        "два квадрата",
        "три квадрата",
        "четыре квадрата",
    ),
    "triangle": (
        "нет треугольников",
        "один треугольник",
        "два треугольника",
        "три треугольника",
        "четыре треугольника",
    ),
    "star": ("нет звёзд", "одна звезда", "две звезды", "три звезды", "четыре звезды"),
    "heart": ("нет сердец", "одно сердце", "два сердца", "три сердца", "четыре сердца"),
    "cross": ("нет крестов", "один крест", "два креста", "три креста", "четыре креста"),
}


@pytest.mark.parametrize("shape", COUNTED)
def test_numerals_govern_nouns(shape):
    for number, words in enumerate(COUNTED[shape]):
        assert russian.count(number, NOUNS[shape]) == words
        question = Question("count_shape", number, shape=shape)
        assert russian.reply(question) == f"На изображении {words}."


@pytest.mark.parametrize(
    ("number", "noun", "colour", "words"),
    [
        (0, FIGURE, "red", "нет красных фигур"),
        (1, FIGURE, "red", "одна красная фигура"),
        (2, FIGURE, "red", "две красные фигуры"),
        (3, FIGURE, "blue", "три синие фигуры"),
        (4, FIGURE, "yellow", "четыре жёлтые фигуры"),
        (0, FIGURE, "blue", "нет синих фигур"),
        (2, NOUNS["circle"], "red", "два красных круга"),
        (3, NOUNS["heart"], "blue", "три синих сердца"),
        (1, NOUNS["heart"], "blue", "одно синее сердце"),
        (2, NOUNS["star"], "black", "две чёрные звезды"),
    ],
)
def test_numerals_govern_colours(number, noun, colour, words):
    assert russian.count(number, noun, colour) == words


@pytest.mark.parametrize(
    ("question", "ask", "answer", "reply"),
    [
        (
            Question("exists", True, "red", "star"),
            "Есть ли на изображении красная звезда?",
            "Да",
            "Да, на изображении есть красная звезда.",
        ),
        (
            Question("is_colour", True, "blue", "star"),
            "Звезда синяя?",
            "Да",
            "Да, звезда синяя.",
        ),
        (
            Question("is_colour", False, "blue", "heart"),
            "Сердце синее?",
            "Нет",
            "Нет, сердце не синее.",
        ),
        (
            Question("colour_of", "blue", shape="star"),
            "Какого цвета звезда?",
            "Синий",  # names the colour, and so is masculine whatever has it
            "Звезда синяя.",
        ),
        (
            Question("colour_at", "red", cell=0),
            "Какого цвета фигура слева вверху?",
            "Красный",
            "Фигура слева вверху красная.",
        ),
        (
            Question("shape_at", "heart", cell=4),
            "Какая фигура находится в центре?",
            "Сердце",
            "В центре находится сердце.",
        ),
        (
            Question("count_all", 2),
            "Сколько фигур на изображении?",
            "2",
            "На изображении две фигуры.",
        ),
        (
            Question("count_shape", 0, shape="star"),
            "Сколько звёзд на изображении?",
            "0",
            "На изображении нет звёзд.",
        ),
        (
            Question("count_colour", 2, "red"),
            "Сколько красных фигур на изображении?",
            "2",
            "На изображении две красные фигуры.",
        ),
        (
            Question("where", 8, "black", "heart"),
            "Где находится чёрное сердце?",
            "Справа внизу",
            "Чёрное сердце находится справа внизу.",
        ),
        (
            Question("where_it", 3, shape="heart"),
            "Где оно находится?",
            "Слева",
            "Оно находится слева.",
        ),
        (
            Question("where_it", 1, shape="star"),
            "Где она находится?",
            "Вверху",
            "Она находится вверху.",
        ),
        (
            Question("where_it", 7, shape="cross"),
            "Где он находится?",
            "Внизу",
            "Он находится внизу.",
        ),
        (
            Question("has_word", False),
            "Есть ли на изображении слово?",
            "Нет",
            "Нет, на изображении нет слова.",
        ),
        (
            Question("read", "SUN"),
            "Какое слово написано на изображении?",
            "SUN",
            "На изображении написано слово «SUN».",
        ),
    ],
    ids=lambda value: value.topic if isinstance(value, Question) else "",
)
def test_questions_and_answers(question, ask, answer, reply):
    assert russian.ask(question) == ask
    assert russian.answer(question) == answer
    assert russian.reply(question) == reply


def test_captions():
    assert (
        russian.caption(Scene("train", 0, (STAR, HEART), PrintedWord("ЁЖИК", 2)))
        == "Большая синяя звезда слева вверху и маленькое зелёное сердце в центре. Внизу написано"
        " слово «ЁЖИК»."
    )
    last = SceneObject(Kind("black", "circle"), "large", 8)
    assert (
        russian.caption(Scene("train", 0, (STAR, HEART, last)))
        == "Большая синяя звезда слева вверху, маленькое зелёное сердце в центре и большой чёрный"
        " круг справа внизу."
    )


def test_other_phrases():
    assert russian.ask_box(russian.describe(HEART)) == (
        "Укажи рамку области: маленькое зелёное сердце."
    )
    assert russian.ask_sum(2, 3) == "Сколько будет 2 плюс 3?"
    assert russian.ask_letter("ДОМ", last=True) == "Какая последняя буква в слове «ДОМ»?"
    assert russian.ask_letter("ДОМ", last=False) == "Какая первая буква в слове «ДОМ»?"
    assert russian.ask_opposite("день") == "Какое слово противоположно слову «день»?"
