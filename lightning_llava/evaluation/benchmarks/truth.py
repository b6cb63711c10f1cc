"""Ground truth as published, one row per question."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_llava.data.converters.published import is_parquet, parquet_rows
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_files import (
    check_exists,
    identifier,
    read_json,
    read_records,
    text,
)
from lightning_llava.evaluation.scorers.pope import LABELS


@dataclass(frozen=True)
class Truth:
    """A question and its right answers."""

    id: str
    answers: tuple[str, ...]
    """One, or ten humans' (VQAv2, TextVQA); none where they are not published."""
    image: str | None = None
    question: str | None = None
    types: dict[str, str] = field(default_factory=dict)
    """Ways to group the questions → the group of this one."""
    source: str | None = None
    """The published question, where `question` is its translation (`tools/translate.py`)."""
    counts: bool = True
    """False where an answer is allowed but not scored: GQA's questions that are not balanced."""


def read_truth(benchmark: str, path: Path, setting: str = "--ground-truth") -> list[Truth]:
    """Read a benchmark's published file.

    Args:
        benchmark: pope, vqav2 (its annotations), textvqa, gqa, gqa_ru or ocr.
        path: the file.
        setting: what names the file, for errors.

    Raises:
        SettingError: the file does not exist, holds nothing, has another form, or an id twice.
    """
    return _checked(path, setting, _READERS[benchmark](path, setting))


def read_vqa_questions(path: Path, setting: str) -> list[Truth]:
    """Read VQAv2's questions, which are published apart from their answers.

    Raises:
        SettingError: as `read_truth`.
    """
    rows = (
        Truth(
            identifier(record, "question_id", where),
            (),
            identifier(record, "image_id", where),
            text(record, "question", where),
            source=_optional(record, "source"),
        )
        for where, record in _entries(path, "questions", setting)
    )
    return _checked(path, setting, rows)


def _checked(path: Path, setting: str, read: Iterator[Truth]) -> list[Truth]:
    if not is_parquet(path):
        check_exists(path, setting)
    rows = list(read)
    if not rows:
        raise SettingError(f"{setting}: {path} holds no questions")
    repeated = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if repeated:
        raise SettingError(
            f"{setting}: ids that occur more than once in {path}: {len(repeated):,} "
            f"({', '.join(repeated[:3])}{', …' * (len(repeated) > 3)}); give every question its own"
        )
    return rows


def _read_pope(path: Path, setting: str) -> Iterator[Truth]:
    wrong: list[str] = []
    for where, record in read_records(path, setting):
        label = text(record, "label", where)
        if label not in LABELS:
            wrong.append(f"{where}: {label!r}")
        yield Truth(
            identifier(record, "question_id", where),
            (label,),
            text(record, "image", where),
            text(record, "text", where),
            source=_optional(record, "source"),
        )
    if wrong:
        raise SettingError(
            f"{setting}: labels that are neither yes nor no: {len(wrong):,}, the first in "
            f"{wrong[0]}; POPE's labels stay as published, also for translated questions; give a "
            "file with those"
        )


def _read_vqav2(path: Path, setting: str) -> Iterator[Truth]:
    for where, record in _entries(path, "annotations", setting):
        kinds = ("answer_type", "question_type")
        types = {kind: text(record, kind, where) for kind in kinds if kind in record}
        humans = _objects(_list(record, "answers", where), f"{where}, answer")
        answers = tuple(text(answer, "answer", place) for place, answer in humans)
        image = identifier(record, "image_id", where)
        yield Truth(identifier(record, "question_id", where), answers, image, types=types)


def _read_textvqa(path: Path, setting: str) -> Iterator[Truth]:
    for where, record in _entries(path, "data", setting):
        # The test file has none.
        answers = tuple(_list(record, "answers", where)) if "answers" in record else ()
        if not all(isinstance(answer, str) for answer in answers):
            raise SettingError(f"{where}: answers are {answers!r:.60}, expected texts")
        yield Truth(
            identifier(record, "question_id", where),
            answers,
            identifier(record, "image_id", where),
            text(record, "question", where),
            source=_optional(record, "source"),
        )


def _read_gqa(path: Path, setting: str) -> Iterator[Truth]:
    content = read_json(path, setting)
    if not isinstance(content, dict):
        raise SettingError(
            f"{setting}: {path} is no JSON object keyed by question id, as GQA's are"
        )
    for name, record in content.items():
        where = f"{path}, question {name}"
        if not isinstance(record, dict) or not isinstance(record.get("isBalanced"), bool):
            raise SettingError(
                f"{where}: no true or false under 'isBalanced', expected one: GQA is scored on "
                "balanced questions only"
            )
        yield Truth(
            name,
            (text(record, "answer", where),),
            _optional(record, "imageId"),
            _optional(record, "question"),
            _gqa_types(record, where),
            source=_optional(record, "source"),
            counts=record["isBalanced"],
        )


def _gqa_types(record: dict[str, Any], where: str) -> dict[str, str]:
    """Return what GQA's own script (eval.py) divides its accuracy by, as far as it is there."""
    if (published := record.get("types")) is None:
        return {}  # xGQA's files have none
    if not isinstance(published, dict):
        raise SettingError(f"{where}: types are {published!r:.60}, expected an object")
    types = {
        way: text(published, way, where) for way in ("structural", "semantic") if way in published
    }
    if "structural" in types:
        types["answer_type"] = "open" if types["structural"] == "query" else "binary"
    return types


def _read_gqa_ru(path: Path, setting: str) -> Iterator[Truth]:
    if not is_parquet(path):
        yield from _read_gqa(path, setting)
        return
    columns = ("id", "imageId", "question", "answer")
    expected = f"deepvk/GQA-ru's *_balanced_instructions under {setting}"
    for row in parquet_rows(path, columns, expected):
        where = f"{path}, question {row['id']}"
        image, question = text(row, "imageId", where), text(row, "question", where)
        yield Truth(str(row["id"]), (text(row, "answer", where).strip(),), image, question)


def _read_ocr(path: Path, setting: str) -> Iterator[Truth]:
    with path.open("rb") as handle:
        is_json = next((line.lstrip()[:1] == b"{" for line in handle if line.strip()), False)
    read = _ocr_json if is_json else _ocr_lines
    for where, name, image, reading, question in read(path, setting):
        if not reading.strip():
            raise SettingError(f"{where}: no text to be read; leave the line out")
        yield Truth(name, (reading,), image, question)


def _ocr_json(path: Path, setting: str) -> Iterator[tuple[str, str, str, str, str | None]]:
    """Yield place, id, image, text and perhaps a question; where there is one name, it is both."""
    for where, record in read_records(path, setting):
        keys = [key for key in ("question_id", "image", "path") if key in record] or ["question_id"]
        name = identifier(record, keys[0], where)
        image = text(record, keys[1], where) if keys[1:] else name
        yield where, name, image, text(record, "text", where), _optional(record, "question")


def _ocr_lines(path: Path, setting: str) -> Iterator[tuple[str, str, str, str, None]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SettingError(f"{setting}: {path} is not UTF-8 ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        name, tab, reading = line.rstrip("\r").partition("\t")
        if not tab:
            raise SettingError(f"{where}: no tab, expected path<TAB>text, or JSON lines")
        yield where, name, name, reading, None


_READERS: dict[str, Callable[[Path, str], Iterator[Truth]]] = {
    "pope": _read_pope,
    "vqav2": _read_vqav2,
    "textvqa": _read_textvqa,
    "gqa": _read_gqa,
    "gqa_ru": _read_gqa_ru,
    "ocr": _read_ocr,
}


def _entries(path: Path, key: str, setting: str) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(path, setting)
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise SettingError(
            f"{setting}: {path} has no list under {key!r}, as the published file has"
        )
    yield from _objects(entries, f"{path}, {key} entry")


def _objects(entries: list[Any], what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise SettingError(f"{what} {number}: {entry!r:.60}, expected an object")
        yield f"{what} {number}", entry


def _list(record: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(found := record.get(key), list):
        raise SettingError(f"{where}: {key} is {found!r:.60}, expected a list")
    return found


def _optional(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None
