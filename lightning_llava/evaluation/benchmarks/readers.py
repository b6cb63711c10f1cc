"""Published files to questions, one reader per kind of benchmark."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lightning_llava.data.converters.ocr import (
    WHAT_IS_WRITTEN,
    ocr_line,
    read_ocr_tokens,
)
from lightning_llava.data.converters.reading import stable_hash
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.boxes import read_regions
from lightning_llava.evaluation.benchmarks.mt_bench import read_mt_bench
from lightning_llava.evaluation.benchmarks.question import Question
from lightning_llava.evaluation.benchmarks.source import Source
from lightning_llava.evaluation.benchmarks.truth import Truth, read_truth, read_vqa_questions
from lightning_llava.evaluation.json_files import read_json


def read_questions(source: Source) -> list[Question]:
    """Read a split, in the order of its file.

    Raises:
        SettingError: a file is missing or malformed, or holds an id twice.
    """
    return list(_READERS[source.spec.kind](source))


def _read_pope(source: Source) -> Iterator[Question]:
    truths = read_truth("pope", source.file, source.setting)
    for truth, image, text in source.published(truths):
        yield source.question(truth, text, image)


def _read_vqav2(source: Source) -> Iterator[Question]:
    asked = read_vqa_questions(source.file, source.setting)
    name = _coco_names(source)
    answered = _annotations(source, asked)
    for truth, image, text in source.published(asked):
        if not image.isdecimal():
            raise SettingError(
                f"{source.file}, question {truth.id}: image_id is {image!r}, expected COCO's number"
            )
        # Annotations know nothing of translations.
        known = replace(answered.get(truth.id, truth), source=truth.source)
        yield source.question(known, text, name.format(int(image)))


def _coco_names(source: Source) -> str:
    """Go by `data_subtype`; test-dev's images are test's."""
    content = read_json(source.file, source.setting)
    subset = re.sub("^test-(dev|standard)", "test", str(content.get("data_subtype", "val2014")))
    return f"COCO_{subset}_{{:012d}}.jpg"


def _annotations(source: Source, asked: list[Truth]) -> dict[str, Truth]:
    file = source.spec.annotations.get(source.split)
    if file is None:
        return {}
    setting = source.setting_of("annotations")
    answered = {truth.id: truth for truth in read_truth("vqav2", Path(file), setting)}
    differing = answered.keys() ^ {truth.id for truth in asked}
    if differing:
        raise SettingError(
            f"{setting}: {len(differing):,} questions are in only one of {file} and {source.file}, "
            f"such as {min(differing)}; give both files of the same split"
        )
    for truth in asked:
        if answered[truth.id].image != truth.image:
            raise SettingError(
                f"{setting}: question {truth.id} is about image {truth.image}, but annotated for "
                f"{answered[truth.id].image}; give both files of the same split"
            )
    return answered


def _read_gqa(source: Source) -> Iterator[Question]:
    truths = read_truth(source.spec.kind, source.file, source.setting)
    for truth, image, text in source.published(truths):
        if truth.counts:
            yield source.question(truth, text, f"{image}.jpg")


def _read_textvqa(source: Source) -> Iterator[Question]:
    file = source.spec.ocr_tokens.get(source.split)
    tokens = read_ocr_tokens(None if file is None else Path(file))
    truths = read_truth("textvqa", source.file, source.setting)
    for truth, image, text in source.published(truths):
        yield source.question(truth, text, f"{image}.jpg", ocr_line(tokens, image))


def _read_ocr(source: Source) -> Iterator[Question]:
    for truth in read_truth("ocr", source.file, source.setting):
        text = truth.question
        if text is None:
            _check_russian(source)
            text = WHAT_IS_WRITTEN[stable_hash(truth.id) % len(WHAT_IS_WRITTEN)]
        yield source.question(truth, text, truth.image)


def _check_russian(source: Source) -> None:
    if source.spec.language != "ru":
        raise SettingError(
            f"data.benchmarks.{source.benchmark}.language is {source.spec.language!r}, but texts "
            "are asked for in the words that training has, which are Russian; set language: ru, or "
            f'give every line of {source.file} a "question"'
        )


_READERS: dict[str, Callable[[Source], Iterator[Question]]] = {
    "pope": _read_pope,
    "vqav2": _read_vqav2,
    "gqa": _read_gqa,
    "gqa_ru": _read_gqa,
    "textvqa": _read_textvqa,
    "ocr": _read_ocr,
    "regions": read_regions,
    "mt_bench": read_mt_bench,
}
