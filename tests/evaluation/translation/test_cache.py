import json

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation import cache
from lightning_llava.evaluation.translation.cache import (
    CachedTranslator,
    Translation,
    TranslationCache,
)

RUSSIAN = {"dog": "собака", "cat": "кошка", "kite": "воздушный змей"}


def test_no_text_is_translated_twice(recorder, cached, tmp_path):
    path = tmp_path / "deep" / "cache.jsonl"
    first = recorder(RUSSIAN)
    said = cached(first, "en", "ru", path).translate(["dog", "cat", "dog", "cat"])
    assert [each.text for each in said] == ["собака", "кошка", "собака", "кошка"]
    assert sorted(first.asked) == [("cat", None), ("dog", None)]
    second = recorder(RUSSIAN)
    cached(second, "en", "ru", path).translate(["kite", "dog"])
    assert second.asked == [("kite", None)]


def test_context_direction_and_translator_are_told_apart(recorder, cached, tmp_path):
    path = tmp_path / "cache.jsonl"
    asked = recorder(lambda text, context: f"слово {context}")
    said = cached(asked, "en", "ru", path).translate(["kite"] * 3, ["What?", None, "What?"])
    assert [each.text for each in said] == ["слово What?", "слово None", "слово What?"]
    assert len(asked.asked) == 2
    back = recorder({"kite": "kite"})
    cached(back, "ru", "en", path).translate(["kite"])
    other = recorder({"kite": "змей"})
    other.name = "other"
    assert cached(other, "en", "ru", path).translate(["kite"]) == [Translation("змей", None)]
    assert len(back.asked) == len(other.asked) == 1


def test_a_kill_costs_the_batch_it_fell_into(recorder, cached, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "AT_ONCE", 2)
    path = tmp_path / "cache.jsonl"

    def dies_at_the_kite(text, context):
        if text == "kite":
            raise KeyboardInterrupt
        return RUSSIAN[text]

    with pytest.raises(KeyboardInterrupt):
        cached(recorder(dies_at_the_kite), "en", "ru", path).translate(["cat", "dog", "kite"])
    again = recorder(RUSSIAN)
    cached(again, "en", "ru", path).translate(["cat", "dog", "kite"])
    assert again.asked == [("kite", None)]


@pytest.mark.parametrize("torn_off", [1, 10])
def test_a_torn_last_line_is_translated_again(recorder, cached, tmp_path, torn_off):
    path = tmp_path / "cache.jsonl"
    for word in ("dog", "cat"):
        cached(recorder(RUSSIAN), "en", "ru", path).translate([word])
    path.write_bytes(path.read_bytes()[:-torn_off])
    again = recorder(RUSSIAN)
    cached(again, "en", "ru", path).translate(["kite", "cat", "dog"])
    # Only the end of the line is missing, or a part of it.
    assert sorted(again.asked) == ([] if torn_off == 1 else [("cat", None)]) + [("kite", None)]
    third = recorder({})
    said = cached(third, "en", "ru", path).translate(["dog", "cat", "kite"])
    assert [each.text for each in said] == list(RUSSIAN.values())
    assert third.asked == []


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({"question_id": "1"}) + "\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"ledger\.jsonl, line 1: not a translation"):
        TranslationCache(path)


def test_what_fails_its_checks_is_marked(recorder, cached):
    said = cached(recorder({"-x-": "No, no, no, no"}), "ru", "en").translate(["-x-", "кот"])
    assert said == [Translation("No, no, no, no", "repetition"), Translation("", "empty")]


def test_texts_without_letters_need_no_translator():
    def load():
        raise AssertionError

    translator = CachedTranslator(load, TranslationCache(None), "ru", "en")
    assert translator.translate(["-", "2", " "]) == [
        Translation("-", None),
        Translation("2", None),
        Translation(" ", "empty"),
    ]


def test_progress_is_told(recorder, monkeypatch):
    monkeypatch.setattr(cache, "AT_ONCE", 2)
    told = []
    translator = CachedTranslator(
        lambda: recorder(RUSSIAN),
        TranslationCache(None),
        "en",
        "ru",
        lambda done, total: told.append((done, total)),
    )
    translator.translate(["dog", "cat", "kite"])
    assert told == [(2, 3), (3, 3)]
