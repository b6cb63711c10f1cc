"""Read the questions that a run asks, and refuse what is missing before a model is loaded."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_llava.data.converters.language import spoken_language
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.pope_version import OLD_TYPING_ERROR, version
from lightning_llava.evaluation.benchmarks.question import Question
from lightning_llava.evaluation.benchmarks.readers import read_questions
from lightning_llava.evaluation.benchmarks.source import Source
from lightning_llava.evaluation.benchmarks.subset import subset
from lightning_llava.evaluation.json_files import identifier, text
from lightning_llava.evaluation.json_lines import read_json_lines
from lightning_llava.specs import BenchmarkSpec, PredictSpec
from lightning_llava.text.turns import Turn

RESERVED_SPLIT = "mean"
"""The report keeps the mean over the splits beside them under this name."""
_KIND_OF = {"annotations": "vqav2", "submission": "vqav2", "ocr_tokens": "textvqa"}
"""Further files per split, and whose they are."""


def load_benchmark(name: str, spec: BenchmarkSpec) -> list[Question]:
    """Read all questions of a benchmark, split by split, in the order of its files.

    Args:
        name: what the user calls it: the key under `data.benchmarks`.
        spec: its files, as published.

    Raises:
        SettingError: a file or image is missing, a row is malformed, a question id occurs twice in
            a split, or the files do not belong together.
    """
    setting = f"data.benchmarks.{name}"
    _check_spec(spec, setting)
    questions: list[Question] = []
    for split, file in spec.files.items():
        source = Source(name, split, spec)
        found = read_questions(source)
        if not found:
            raise SettingError(f"{source.setting}: {file} holds no questions that count")
        _check_ids(found, file, source.setting)
        _check_labels(found, file, source.setting)
        questions += found
    if spec.kind == "pope":
        questions = _of_one_version(questions)
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
            image = Path(spec.images) / text(record, "image", where)
        name, asked = identifier(record, "question_id", where), text(record, "text", where)
        if not asked.strip():
            raise SettingError(f"{where}: the text is empty, expected a question; mend the file")
        language = spec.language
        if language == "auto":
            language = spoken_language([Turn("user", asked)])
        questions.append(
            Question("predict", "predict", name, asked, image, None, language, "predict")
        )
    if not questions:
        raise SettingError(f"{setting}: the file {spec.questions!r} holds no questions")
    _check_ids(questions, spec.questions, setting)
    _check_images(questions, spec.images, "data.predict.images")
    return questions


def _check_spec(spec: BenchmarkSpec, setting: str) -> None:
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
    for field, kind in _KIND_OF.items():
        files = getattr(spec, field)
        if files and spec.kind != kind:
            raise SettingError(
                f"{setting}.{field} is given, but kind is {spec.kind}; it is for {kind} only"
            )
        if unknown := sorted(files.keys() - spec.files.keys()):
            raise SettingError(
                f"{setting}.{field}: {unknown[0]!r} is no split; {setting}.files has "
                f"{', '.join(spec.files)}"
            )


def _of_one_version(questions: Sequence[Question]) -> list[Question]:
    """Check POPE's version, and ask as LLaVA does where one of them has a typing error."""
    splits: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        splits[question.split].append(question.text)
    version(splits)
    return [replace(each, text=each.text.replace(*OLD_TYPING_ERROR)) for each in questions]


def _check_labels(questions: Sequence[Question], file: str, setting: str) -> None:
    without = [question.question_id for question in questions if question.label is None]
    if without and len(without) < len(questions):
        raise SettingError(
            f"{setting}: {len(without):,} of {len(questions):,} questions of {file!r} have no "
            f"answer, the first is {without[0]!r}; mend the file: a part would not be comparable"
        )


def _check_ids(questions: Sequence[Question], file: str, setting: str) -> None:
    counts = Counter(question.question_id for question in questions)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise SettingError(
            f"{setting}: question_id {repeated[0]!r} occurs twice in {file!r}; answers could not "
            "be told apart; give every question of the file its own"
        )


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
