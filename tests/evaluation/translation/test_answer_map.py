import pytest

from lightning_llava.evaluation.translation.answer_map import map_answer


@pytest.mark.parametrize(
    ("answer", "english"),
    [
        ("Да.", "yes"),
        ("НЕТ!", "no"),
        ("2", "2"),
        ("2,5", "2.5"),
        ("Две", "2"),
        ("двадцать три", "23"),
        ("трёх", "3"),
        ("Красный", "red"),
        ("синяя", "blue"),
        ("синего", "blue"),
        ("голубыми", "blue"),
        ("жёлтого цвета", "yellow"),
        ("Тёмно-зелёная", "dark green"),
        ("светло-голубой", "light blue"),
        ("чёрно-белый", "black and white"),
        ("красный и белый", "red and white"),
        ("красный, белый и тёмно-синий", None),
        ("Слева", "left"),
        ("на правой стороне", "right"),
        ("в левой части", "left"),
        ("левую", "left"),
    ],
)
def test_what_the_map_has(answer, english):
    assert map_answer(answer) == english


@pytest.mark.parametrize(
    "answer",
    [
        "вода",  # ends in «да»
        "планета",  # holds «нет»
        "да нет",
        "не красный",
        "голубей",  # pigeons
        "сером море",
        "лев",
        "правда",
        "и",
        "цвета",
        "красный и",
        "тёмно",
        "№",
        "",
    ],
)
def test_what_the_map_leaves_alone(answer):
    assert map_answer(answer) is None
