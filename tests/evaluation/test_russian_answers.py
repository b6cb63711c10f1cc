import os

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation import russian
from lightning_llava.evaluation.russian import (
    RussianCounts,
    RussianMatch,
    has_lemmas,
    lemma_sets,
    lemmas_match,
    normalise,
    russian_compute,
    russian_update,
)


@pytest.fixture
def lemmas():
    if not has_lemmas():
        if os.environ.get("CI"):
            pytest.fail("pymorphy3 is not installed, and CI must not skip lemmas", pytrace=False)
        pytest.skip("pymorphy3 is not installed")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("«Ёлка» — и…", "елка и"),
        ("и\u0306од", "йод"),
        ("№ 5", "5"),
        ("две", "2"),
        ("Двадцать две кошки!", "22 кошки"),
        ("тридцать, десять", "30 10"),
        ("два три", "2 3"),
        ("2,5 м.", "2.5 м"),
        ("Нет.", "нет"),
        ("не стол", "не стол"),
        ("сто", "100"),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("красный", "Красная."),
        ("две", "2"),
        ("на столе", "стол"),
        ("стоит", "стоять"),
        ("стоит", "стоить"),
        ("ели", "ель"),
        ("ели", "есть"),
        ("двадцати двух кошек", "22 кошки"),
        ("ёлка", "елка"),
        ("и кот, и пёс", "коты псы"),
        ("сороки", "сорока"),  # birds, not forty
    ],
)
def test_lemmas_match(lemmas, found, expected):
    assert lemmas_match(found, expected)
    assert lemmas_match(expected, found)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("да", "нет"),
        ("не стол", "стол"),
        ("кот да", "кот"),
        ("вода", "да"),
        ("планета", "нет"),
        ("с", "у"),
        ("", ""),
        ("белый кот", "кот белый"),
        ("3", "2"),
    ],
)
def test_lemmas_differ(lemmas, found, expected):
    assert not lemmas_match(found, expected)


def test_unlikely_readings_are_left_out(lemmas):
    assert lemma_sets("все") == [frozenset({"все"})]  # «весь» has 0.01
    assert lemma_sets("стоит") == [frozenset({"стоить", "стоять"})]


def test_columns_grow_more_lenient(lemmas):
    answers = ["кот", " Кот.", "коты", "пёс", "на столе"]
    references = ["кот", "кот", "кот", "кот", "стол"]
    counts = russian_update(answers, references)
    assert counts == RussianCounts(strict=1, normalised=2, lemma=4, total=5)
    assert russian_compute(counts) == {"strict": 0.2, "normalised": 0.4, "lemma": 0.8, "total": 5}


def test_without_pymorphy3_two_columns_remain(monkeypatch):
    monkeypatch.setattr(russian, "find_spec", lambda name: None)
    russian._analyser.cache_clear()
    with pytest.raises(SettingError, match=r"pip install 'lightning-llava\[russian\]'"):
        RussianMatch()
    metric = RussianMatch(lemmas=False)
    metric.update(["Кот"], ["кот"])
    assert metric.compute() == {"strict": 0.0, "normalised": 1.0, "total": 1}
