import pytest

from lightning_llava.evaluation.translation.context import as_written, extract, in_context


@pytest.mark.parametrize(
    ("question", "answer", "together"),
    [
        ("Что в небе?", "змей", "Что в небе? Змей."),
        ("Назови  цвет.", "Белый.", "Назови цвет? Белый."),
        ("Что это?", "кот!", "Что это? Кот!"),
    ],
)
def test_in_context(question, answer, together):
    assert in_context(question, answer) == together


@pytest.mark.parametrize(
    ("translation", "question", "answer", "cut_out"),
    [
        ("What is in the sky? A kite.", "Что в небе?", "змей", "A kite."),
        ("This? Or that? That.", "Это? Или то?", "то", "That."),
        ("What? Who? Me.", "Кто это?", "я", ""),  # one question mark too many
        ("A kite.", "Что в небе?", "змей", ""),
        ("Who? Me?", "Кто?", "я?", "Me?"),
    ],
)
def test_extract(translation, question, answer, cut_out):
    assert extract(translation, question, answer) == cut_out


@pytest.mark.parametrize(
    ("english", "answer", "written"),
    [
        ("White.", "белый", "white"),
        ("white", "Белый.", "White."),
        ("White", "Белый", "White"),
        ("TV.", "телевизор", "TV"),
        ("Well...", "ну...", "well..."),
        ("2", "Два", "2"),
    ],
)
def test_as_written(english, answer, written):
    assert as_written(english, answer) == written
