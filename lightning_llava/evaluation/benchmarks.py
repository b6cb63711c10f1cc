"""Read benchmarks from their published files, and choose fixed subsets of them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_llava.data.converters.language import spoken_language
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import read_json_lines
from lightning_llava.specs import BenchmarkSpec, PredictSpec
from lightning_llava.text.turns import Turn

RESERVED_SPLIT = "mean"
"""The report keeps the mean over the splits beside them under this name."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark; (benchmark, split, question_id) is unique."""

    benchmark: str
    split: str
    question_id: str
    text: str
    """As published, without any prompt around it."""
    image: Path | None
    label: str | None
    """The right answer in the benchmark's own words (POPE: yes or no, in Russian, too)."""
    language: str
    """Of `text`."""
    kind: str = "pope"
    """Format and scorer: `BenchmarkSpec.kind`, or `predict`."""
    answers: tuple[str, ...] = ()
    """All right answers, ten for VQAv2; `label` is the first, or the commonest."""
    types: tuple[tuple[str, str], ...] = ()
    """Ways to group the questions, and the group of this one, such as VQAv2's answer_type."""
    source: str | None = None
    """The published text, where `text` is its translation."""


def load_benchmark(name: str, spec: BenchmarkSpec) -> list[Question]:
    """Read all questions of a benchmark, split by split, in the order of its files.

    Args:
        name: what the user calls it: the key under `data.benchmarks`.
        spec: its files, one per split. POPE's are JSON lines with `question_id`, `image`, `text`
            and `label` (https://github.com/AoiDragon/POPE).

    Raises:
        SettingError: a file or image is missing, a line is malformed or a question id occurs twice
            in a split.
    """
    setting = f"data.benchmarks.{name}"
    if not spec.files:
        raise SettingError(
            f"{setting}.files: no question file given, expected one per split, such as "
            f"{setting}.files.random: coco_pope_random.json"
        )
    if RESERVED_SPLIT in spec.files:
        raise SettingError(
            f"{setting}.files: a split is called {RESERVED_SPLIT!r}, which the report uses for the "
            "mean over the splits; give it another name"
        )
    questions: list[Question] = []
    for split, file in spec.files.items():
        questions += _read_pope_split(name, split, Path(file), spec)
    _check_images(questions, spec.images, f"{setting}.images")
    return questions


def load_benchmarks(specs: Mapping[str, BenchmarkSpec], whole: bool, seed: int) -> list[Question]:
    """Read every benchmark: the configured subset of it, or the whole.

    Raises:
        SettingError: none, or as `load_benchmark`.
    """
    if not specs:
        raise SettingError("data.benchmarks is empty; stack a file of configs/eval")
    return [
        question
        for name, spec in specs.items()
        for question in subset(load_benchmark(name, spec), None if whole else spec.subset, seed)
    ]


def load_predict_questions(spec: PredictSpec) -> list[Question]:
    """Read what `predict` answers: JSON lines with `question_id`, `text` and perhaps `image`.

    Raises:
        SettingError: as `load_benchmark`.
    """
    setting = "data.predict.questions"
    if not spec.questions:
        raise SettingError(
            f"{setting}: no question file given, expected JSON lines with question_id, text and, "
            "where there is one, image"
        )
    questions: list[Question] = []
    for number, record in read_json_lines(Path(spec.questions), setting):
        where = f"{spec.questions}, line {number}"
        image = None
        if record.get("image") is not None:
            image = Path(spec.images) / _text(record, "image", where)
        question_id, text = _question_id(record, where), _text(record, "text", where)
        language = spec.language
        if language == "auto":
            language = spoken_language([Turn("user", text)])
        questions.append(
            Question("predict", "predict", question_id, text, image, None, language, "predict")
        )
    _check_ids(questions, spec.questions, setting)
    _check_images(questions, spec.images, "data.predict.images")
    return questions


def subset(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """Choose n questions of every split, balanced over labels as far as they last, order kept.

    The choice depends on (seed, split, question id) alone: not on Python's hash seed, the order of
    the file or the machine. A larger n adds questions to those of a smaller one. An odd n gives the
    spare question to the label that sorts first.

    Args:
        questions: of any number of benchmarks and splits.
        n: questions per split; None, or more than there are, keeps all.
        seed: another seed, another choice.

    Raises:
        SettingError: n is less than 1.
    """
    if n is None:
        return list(questions)
    if n < 1:
        raise SettingError(
            f"data.benchmarks.*.subset: {n} questions per split, expected at least 1, or null for "
            "all"
        )
    strata: dict[tuple[str, str], dict[str, list[Question]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for question in questions:
        strata[question.benchmark, question.split][question.label or ""].append(question)
    chosen: set[Question] = set()
    for by_label in strata.values():
        columns = [
            sorted(by_label[label], key=lambda question: _rank(question, seed))
            for label in sorted(by_label)
        ]
        rounds = max(map(len, columns))
        dealt = [column[turn] for turn in range(rounds) for column in columns if turn < len(column)]
        chosen.update(dealt[:n])
    return [question for question in questions if question in chosen]


def _rank(question: Question, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{question.split}\n{question.question_id}".encode()).digest()


def _read_pope_split(name: str, split: str, file: Path, spec: BenchmarkSpec) -> list[Question]:
    setting = f"data.benchmarks.{name}.files.{split}"
    questions: list[Question] = []
    for number, record in read_json_lines(file, setting):
        where = f"{file}, line {number}"
        image = Path(spec.images) / _text(record, "image", where)
        question_id, text = _question_id(record, where), _text(record, "text", where)
        label = _text(record, "label", where)
        if label not in ("yes", "no"):
            raise SettingError(
                f"{where}: label {label!r}, expected yes or no: POPE's labels stay as published, "
                f"also for translated questions; mend the file or change {setting}"
            )
        questions.append(
            Question(name, split, question_id, text, image, label, spec.language, "pope", (label,))
        )
    _check_ids(questions, str(file), setting)
    return questions


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        found = (
            f"{key} is {value!r}"
            if key in record
            else f"no {key!r} among the keys {', '.join(record) or '(none)'}"
        )
        raise SettingError(f"{where}: {found}, expected a text that is not empty; mend the file")
    return value


def _question_id(record: dict[str, Any], where: str) -> str:
    value = record.get("question_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(record, "question_id", where)


def _check_ids(questions: Sequence[Question], file: str, setting: str) -> None:
    if not questions:
        raise SettingError(
            f"{setting}: the file {file!r} holds no questions, expected one JSON object per line"
        )
    seen: set[str] = set()
    for question in questions:
        if question.question_id in seen:
            raise SettingError(
                f"{setting}: question_id {question.question_id!r} occurs twice in {file!r}; "
                "answers could not be told apart; give every question of the file its own"
            )
        seen.add(question.question_id)


def _check_images(questions: Iterable[Question], folder: str, setting: str) -> None:
    images = list(dict.fromkeys(q.image for q in questions if q.image is not None))
    if not images:
        return
    if not folder or not Path(folder).is_dir():
        raise SettingError(
            f"{setting}: {folder!r} is not a folder, expected the one with the {len(images)} "
            "images asked about"
        )
    missing = [image for image in images if not image.is_file()]
    if missing:
        raise SettingError(
            f"{setting}: {len(missing)} of {len(images)} images are missing in {folder!r}, first "
            f"{str(missing[0])!r}; give the folder that holds them all"
        )
