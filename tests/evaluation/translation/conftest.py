import os
from importlib import import_module

import pytest

from ledgers import asked_in_russian
from lightning_llava.evaluation.translation.cache import CachedTranslator, TranslationCache


@pytest.fixture(scope="session")
def pymorphy3():
    """Skip without it, but never in CI."""
    return import_module("pymorphy3") if os.environ.get("CI") else pytest.importorskip("pymorphy3")


@pytest.fixture
def row():
    """Make a row asked in Russian, but for changes."""
    return asked_in_russian


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
