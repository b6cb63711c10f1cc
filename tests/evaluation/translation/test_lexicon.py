import json
from collections import Counter

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation import russian
from lightning_llava.evaluation.translation.lexicon import (
    Lexicon,
    build_lexicon,
    read_lexicon,
    write_lexicon,
)


def gqa(path, *answers):
    """GQA's form: an object by id."""
    content = {
        str(place): {"question": f"{path.stem} {place}?", "answer": answer}
        for place, answer in enumerate(answers)
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def built(tmp_path):
    english = gqa(tmp_path / "en.json", "bowl", "bowl", "kite", "snake", "cup", "cup", "cup")
    russian = gqa(
        tmp_path / "ru.json", "Миска", "миска.", "змей", "змей", "чашка", "чашка", "миска"
    )
    return build_lexicon(english, russian)


def test_pairs_are_counted_by_id(built):
    assert built.counts == {
        "миска": Counter(bowl=2, cup=1),
        "змей": Counter(kite=1, snake=1),
        "чашка": Counter(cup=2),
    }


def test_gqa_ru_is_read_from_its_parquet_and_vqa_from_its_annotations(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "train").mkdir()
    rows = [{"id": "7", "imageId": "n1", "question": "Что это?", "answer": "миска"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train" / "0.parquet")
    annotations = {"annotations": [{"question_id": 7, "multiple_choice_answer": "bowl"}]}
    (tmp_path / "vqa.json").write_text(json.dumps(annotations), encoding="utf-8")
    built = build_lexicon(tmp_path / "vqa.json", tmp_path / "train")
    assert built.counts == {"миска": Counter(bowl=1)}


def test_it_is_read_as_it_was_written(built, tmp_path):
    write_lexicon(built, tmp_path / "lexicon.json")
    assert read_lexicon(tmp_path / "lexicon.json", lemmas=False) == built


def test_lemmas_are_never_left_out_silently(built, tmp_path, monkeypatch):
    monkeypatch.setattr(russian, "find_spec", lambda name: None)
    russian._analyser.cache_clear()
    russian._readings.cache_clear()
    write_lexicon(built, tmp_path / "lexicon.json")
    with pytest.raises(SettingError, match="pymorphy3 is not installed"):
        read_lexicon(tmp_path / "lexicon.json")


def test_only_what_stands_out_is_used():
    lexicon = Lexicon(
        {
            "миска": Counter(bowl=2, cup=1),
            "ковш": Counter(ladle=1),
            "змей": Counter(kite=2, snake=2),
            "ваза": Counter(vase=2, bowl=2, cup=2),
        },
        lemmas=False,
    )
    words = ("Миска.", "ковш", "змей", "ваза", "миски")
    assert [lexicon.find(word) for word in words] == ["bowl", None, "kite", None, None]


def test_other_forms_are_found_by_lemmas(pymorphy3):
    counts = {"миска": Counter(bowl=2), "стоять": Counter(stand=2), "стоить": Counter(cost=2)}
    lexicon = Lexicon(counts)
    assert lexicon.find("в миске") == "bowl"
    assert lexicon.find("стоит") is None  # either


def test_what_is_scored_must_not_have_been_counted(built, row):
    built.check_unseen([row(question_id="0"), row(question_id="9", source="en 0?")])
    for known in ({"source": "en 0?"}, {"source": None, "question": "ru  0?"}):
        with pytest.raises(SettingError, match=r"1 of the questions .* training splits only"):
            built.check_unseen([row(question_id="0", **known)])


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    english = gqa(tmp_path / "en.json", "bowl")
    russian = tmp_path / "ru.jsonl"
    russian.write_text('{"id": "a7", "question": "?", "answer": "миска"}\n', encoding="utf-8")
    with pytest.raises(SettingError, match=r"none of the question ids of .*ru\.jsonl"):
        build_lexicon(english, russian)
    russian.write_text('{"id": "0", "question": "?", "answer": "bowl"}\n', encoding="utf-8")
    with pytest.raises(SettingError, match=r"none of the question ids .* has Russian answers"):
        build_lexicon(english, russian)
    russian.write_text('{"id": "0", "question": "?"}\n', encoding="utf-8")
    with pytest.raises(SettingError, match=r"ru\.jsonl, question 0: no text under answer"):
        build_lexicon(english, russian)
    russian.write_text("[]", encoding="utf-8")
    with pytest.raises(SettingError, match=r"--lexicon: .* is no lexicon"):
        read_lexicon(russian)
