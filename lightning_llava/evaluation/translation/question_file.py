"""Files of questions as published: read, translated in place, and written in the same form."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_files import (
    check_exists,
    identifier,
    read_records,
    text,
)
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.evaluation.translation.questions import Rendered

_IDS = ("question_id", "questionId", "id")
_TEXTS = ("text", "question")
_LINES = ("pope", "predict")
_LISTS = ("questions", "annotations", "data")
"""Where VQAv2 and TextVQA keep what they publish."""


@dataclass
class QuestionFile:
    """POPE's JSON lines, VQAv2's and TextVQA's objects with a list, or GQA's object by id."""

    path: Path
    content: Any
    is_lines: bool
    records: list[dict[str, Any]]
    """Parts of the content: what changes in them changes in what is written."""
    ids: list[str]

    def text_key(self, place: int) -> str:
        """Name what holds the question of a record.

        Raises:
            SettingError: nothing does.
        """
        record, where = self.records[place], f"{self.path}, question {self.ids[place]}"
        for key in _TEXTS:
            if key in record:
                text(record, key, where)
                return key
        raise SettingError(f"{where}: none of {', '.join(_TEXTS)} among {list(record)}")

    def texts(self) -> list[str]:
        """Return all questions.

        Raises:
            SettingError: as `text_key`.
        """
        return [record[self.text_key(place)] for place, record in enumerate(self.records)]

    def translate(self, russian: Mapping[str, Rendered]) -> None:
        """Put the Russian in place of every question, and keep what was published as `source`.

        Raises:
            SettingError: a question has a `source` already.
        """
        for place, record in enumerate(self.records):
            if "source" in record:
                raise SettingError(
                    f"{self.path}, question {self.ids[place]}: has a 'source', so it is translated "
                    "already; give the published file"
                )
            key = self.text_key(place)
            found = russian[record[key]]
            record |= {key: found.text, "source": record[key]}
            if found.problem:
                record["problem"] = found.problem

    def write(self, path: Path) -> None:
        """Write the content in the form it was read in."""
        if self.is_lines:
            lines = [json.dumps(record, ensure_ascii=False) for record in self.records]
            write_atomically(path, "".join(line + "\n" for line in lines))
        else:
            write_atomically(path, json.dumps(self.content, ensure_ascii=False) + "\n")


def question_files(path: Path) -> list[QuestionFile]:
    """Read what `read_question_file` reads, or the questions of a ledger: a file per split.

    Raises:
        SettingError: as there, or a ledger of a benchmark whose form it does not hold.
    """
    file = read_question_file(path, "FILE")
    if "raw_answer" not in file.records[0]:
        return [file]
    splits: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in read_ledger(path):
        if row.kind not in _LINES:
            raise SettingError(
                f"{path}: questions of kind {row.kind!r}, which are not published as lines; give "
                "the published file"
            )
        record = {"question_id": row.question_id, "image": row.image, "text": row.question}
        splits[row.benchmark, row.split].append(record | {"label": row.label})
    return [
        QuestionFile(path.with_name("_".join(split) + ".jsonl"), records, True, records, ids)
        for split, records in splits.items()
        if (ids := [record["question_id"] for record in records])
    ]


def read_question_file(path: Path, option: str) -> QuestionFile:
    """Read a file of questions in any of the published forms.

    Args:
        path: JSON lines, or JSON.
        option: what named it, for errors.

    Raises:
        SettingError: the file is missing, empty or has another form.
    """
    content, is_lines = _read(path, option)
    records, ids = [], []
    for question_id, record in _records(content, f"{option}: {path}"):
        records.append(record)
        ids.append(question_id)
    if not records:
        raise SettingError(f"{option}: {path} holds no questions")
    return QuestionFile(path, content, is_lines, records, ids)


def _read(path: Path, option: str) -> tuple[Any, bool]:
    """Read the content, and tell whether it is lines: POPE's files end in `.json`, and are."""
    check_exists(path, option)
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    is_line = isinstance(content, dict) and not content.keys().isdisjoint({*_IDS, *_TEXTS})
    if content is None or is_line:
        return [record for _, record in read_records(path, option)], True
    return content, False


def _records(content: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(content, dict):
        for name in _LISTS:
            if isinstance(content.get(name), list):
                content = content[name]
                break
    if isinstance(content, dict):
        items = [(str(key), record) for key, record in content.items()]
    elif isinstance(content, list):
        items = [(None, record) for record in content]
    else:
        items = [(None, content)]
    for place, (key, record) in enumerate(items):
        if not isinstance(record, dict):
            raise SettingError(
                f"{where}: entry {key or place} is {record!r:.60}, expected an object"
            )
        yield key or _id(record, f"{where}, entry {place}"), record


def _id(record: dict[str, Any], where: str) -> str:
    for key in _IDS:
        if key in record:
            return identifier(record, key, where)
    raise SettingError(f"{where}: none of {', '.join(_IDS)} among {list(record)}; mend the file")
