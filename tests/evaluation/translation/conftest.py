import os
from dataclasses import replace
from importlib import import_module

import pytest

from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.translation.cache import CachedTranslator, TranslationCache


@pytest.fixture(scope="session")
def pymorphy3():
    """Skip without it, but never in CI."""
    return import_module("pymorphy3") if os.environ.get("CI") else pytest.importorskip("pymorphy3")


@pytest.fixture
def row():
    """A VQA-like row asked in Russian, to change."""
    plain = LedgerRow(
        benchmark="gqa",
        split="testdev",
        question_id="1",
        image="1.jpg",
        language="ru",
        question="Какого цвета кошка?",
        prompt="Какого цвета кошка?\nОтветь одним словом.",
        raw_answer="белый",
        label="white",
        parsed=None,
        correct=None,
        kind="gqa",
        answers=["white"],
        types={},
        source="What color is the cat?",
        english=None,
        route=None,
    )
    return lambda **changes: replace(plain, **changes)


class Recorder:
    """A translator that counts what it is asked, and says what it is told to."""

    name = "recorder"

    def __init__(self, said):
        self.said = said
        self.asked = []

    def translate(self, texts, source, target, context=()):
        pairs = list(zip(texts, context or [None] * len(texts), strict=True))
        self.asked += pairs
        return [
            self.said(text, around) if callable(self.said) else self.said.get(text, "")
            for text, around in pairs
        ]


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def cached():
    def wrap(translator, source, target, path=None):
        return CachedTranslator(lambda: translator, TranslationCache(path), source, target)

    return wrap
