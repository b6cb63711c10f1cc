import pytest

from lightning_llava.evaluation.translation.checks import find_problem, repeats


@pytest.mark.parametrize(
    ("text", "translation", "target", "problem"),
    [
        ("yes", "да", "ru", None),
        ("two", "2", "ru", None),
        ("a Wii controller", "контроллер Wii", "ru", None),
        ("cat", "cat", "ru", "script"),
        ("кошка", "кошка", "en", "script"),
        ("cat", "", "ru", "empty"),
        ("cat", "- …", "ru", "empty"),
        ("нет", "No, no, no, no, no.", "en", "repetition"),
        ("нет нет нет", "No, no, no.", "en", None),
        ("кот", "the cat, the cat, the cat", "en", "repetition"),
        ("кот", "the cat and the cat", "en", None),
        ("кот", "caaaaaaaaaat", "en", "repetition"),
    ],
)
def test_find_problem(text, translation, target, problem):
    assert find_problem(text, translation, target) == problem


@pytest.mark.parametrize(
    ("text", "most"),
    [("", 0), ("a b a", 1), ("a a", 2), ("a b a b a b c", 3), ("a b c b c d", 2), ("A, a; a!", 3)],
)
def test_repeats(text, most):
    assert repeats(text) == most
