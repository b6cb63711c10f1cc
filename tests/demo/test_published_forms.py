"""The benchmark files: in the published forms, with right labels, and alike in both languages."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import understanding

from lightning_llava.demo.scenes import generate
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.evaluation.configured import read_benchmarks
from lightning_llava.evaluation.report import score_rows
from lightning_llava.evaluation.translation.cache import CachedTranslator, TranslationCache
from lightning_llava.evaluation.translation.protocol import RussianProtocol
from lightning_llava.evaluation.translation.translator import TableTranslator, read_table

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"
KINDS = ("vqav2", "gqa", "pope", "ocr")


def moved(spec, folder):
    """Name the files of another world."""

    def move(path):
        return path.replace("data/demo", str(folder))

    files, annotations = (
        {split: move(file) for split, file in found.items()}
        for found in (spec.files, spec.annotations)
    )
    return replace(spec, files=files, annotations=annotations, images=move(spec.images))


@pytest.fixture(scope="module")
def questions(folder):
    """All questions of the configured benchmarks, as the evaluation reads them."""
    files = [CONFIGS / f"{name}.yaml" for name in ("benchmarks", "translated")]
    specs = read_benchmarks(files, "test")
    return {name: load_benchmark(name, moved(spec, folder)) for name, spec in specs.items()}


def scene_of(question, world):
    return generate(world.seed, int(question.image.stem.split("_")[-1]), "validation")


def in_words(topic, answer):
    """Say an answer as published files do, by other tables than the package's."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    if topic == "where":
        rows, columns = ("top", "", "bottom"), ("left", "", "right")
        return " ".join(filter(None, (rows[answer // 3], columns[answer % 3]))) or "middle"
    return str(answer)


def test_the_configs_have_every_benchmark_in_both_languages(questions):
    assert questions.keys() == {*KINDS, *(f"{kind}_ru" for kind in KINDS)}
    for name, asked in questions.items():
        assert {question.language for question in asked} == {"ru" if "_ru" in name else "en"}


@pytest.mark.parametrize("name", ["vqav2", "gqa", "vqav2_ru", "gqa_ru"])
def test_every_label_is_right(questions, world, name):
    assert len(questions[name]) >= 30
    for question in questions[name]:
        meant = understanding.understand(question.text, question.language)
        truth = understanding.truth(scene_of(question, world), meant)
        assert question.label == in_words(meant.topic, truth)
        if name == "vqav2":
            assert dict(question.types)["question_type"] == meant.topic
            assert question.answers == (question.label,) * 10


def test_words_are_those_of_the_pictures(questions, world):
    for name, ask in (("ocr", "What word is written"), ("ocr_ru", "Какое слово написано")):
        assert len(questions[name]) == world.validation_scenes
        for question in questions[name]:
            assert scene_of(question, world).word.text == question.label
            assert question.text.startswith(ask)
            assert question.text.endswith(understanding.SHORT[question.language])


@pytest.mark.parametrize("kind", KINDS)
def test_both_languages_ask_the_same(questions, kind):
    def meaning(question):
        text = question.text.removesuffix(understanding.SHORT[question.language])
        return *question.key[1:], question.image, understanding.understand(text, question.language)

    in_english, in_russian = questions[kind], questions[f"{kind}_ru"]
    assert list(map(meaning, in_english)) == list(map(meaning, in_russian))
    if kind in ("vqav2", "gqa"):
        assert [q.source for q in in_russian] == [q.text for q in in_english]


def test_types_are_those_of_the_published_sets(questions):
    found = [dict(question.types) for question in questions["gqa"]]
    assert Counter(types["structural"] for types in found).keys() == {"verify", "query"}
    assert {types["semantic"] for types in found} == {"obj", "attr", "cat"}
    assert {types["answer_type"] for types in found} == {"binary", "open"}
    assert {dict(question.types)["answer_type"] for question in questions["vqav2"]} == {
        *("yes/no", "number", "other"),
    }


def test_files_have_the_keys_of_the_published_sets(folder, shared_data):
    (published,) = shared_data("vqav2/annotations_1500.json")
    (theirs, *_) = json.loads(published.read_text())["annotations"]
    ours = json.loads((folder / "vqav2/demo_seen_annotations.json").read_text())
    assert {"info", "license", "data_type", "data_subtype", "annotations"} <= ours.keys()
    assert ours["annotations"][0].keys() == theirs.keys()
    assert ours["annotations"][0]["answers"][0].keys() == theirs["answers"][0].keys()


def right_answer(question, world):
    """Answer in the language of the question, as the training records do, by stems alone."""
    meant = understanding.understand(question.text, question.language)
    truth = understanding.truth(scene_of(question, world), meant)
    if isinstance(truth, bool):
        return {"en": ("No", "Yes"), "ru": ("Нет", "Да")}[question.language][truth]
    if question.language == "en":
        return in_words(meant.topic, truth).capitalize()
    if meant.topic == "where":
        across = ("Слева", "", "Справа")[truth % 3]
        along = ("вверху", "", "внизу")[truth // 3]
        return " ".join(filter(None, (across, along))).capitalize() or "В центре"
    names = {"red": "Красный", "blue": "Синий", "green": "Зелёный", "yellow": "Жёлтый"} | {
        "purple": "Фиолетовый",
        "orange": "Оранжевый",
        "black": "Чёрный",
        "circle": "Круг",
        "square": "Квадрат",
        "triangle": "Треугольник",
        "star": "Звезда",
        "heart": "Сердце",
        "cross": "Крест",
    }
    return names.get(truth, str(truth))


def test_right_answers_in_russian_score_all_points(questions, world, folder):
    table = TableTranslator(read_table(folder / "russian.tsv", "test"), "russian.tsv")
    cache = TranslationCache(None)
    directions = [
        CachedTranslator(lambda: table, cache, *way) for way in (("en", "ru"), ("ru", "en"))
    ]
    protocol = RussianProtocol(*directions)
    asked = [q for name in ("vqav2", "gqa", "vqav2_ru", "gqa_ru") for q in questions[name]]
    rows = [row for q in asked for row in make_rows([q], q.text, right_answer(q, world))]
    assert protocol.before(questions["gqa"]) == [
        replace(question, benchmark="gqa") for question in questions["gqa_ru"]
    ]
    scores = score_rows(protocol.after(rows))
    for name, splits in scores.items():
        for split, numbers in splits.items():
            assert numbers["accuracy"] == 1, (name, split)
            assert "not_in_english" not in numbers
    for name, numbers in protocol.splits.items():
        assert numbers["ceiling"] == numbers["gold"] == 1, name
    assert protocol.questions["accuracy"] == 1
