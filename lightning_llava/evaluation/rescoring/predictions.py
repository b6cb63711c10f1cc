"""Answers to score: this project's ledger, LLaVA's answer files, VQA results, GQA predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_files import identifier, read_records, text
from lightning_llava.evaluation.kinds import headline_dialect, scored_answer
from lightning_llava.evaluation.ledger import read_ledger

OPTION = "--predictions"
_IDS = ("question_id", "questionId")
_ANSWERS = ("prediction", "text", "answer")
"""In this order: where there is a `prediction`, `text` is the question and `answer` the right one.
"""

_QUESTION_KEYS = {"label", "category"}
"""Where the `text` of a row is a question, not an answer."""


@dataclass(frozen=True)
class Prediction:
    """An answer, and what its file says of the question."""

    id: str
    answer: str
    where: str
    """File and line, for errors."""
    split: str | None = None
    benchmark: str | None = None
    kind: str | None = None
    """`BenchmarkSpec.kind`, in a ledger."""
    dialect: str | None = None
    """The headline's, in a ledger."""
    image: str | None = None
    question: str | None = None
    """As published, where the file also has what it was translated to."""
    prompt: str | None = None


def read_predictions(path: Path, split: str | None) -> list[Prediction]:
    """Read a file of answers in any of the four forms.

    Args:
        path: a JSON array or JSON lines.
        split: of all rows, if the user named it.

    Raises:
        SettingError: the file does not exist, holds nothing, or has another form.
    """
    records = list(read_records(path, OPTION))
    if not records:
        raise SettingError(f"{OPTION}: {path} holds no answers")
    if "raw_answer" in records[0][1]:
        return [
            Prediction(
                row.question_id,
                scored_answer(row),
                f"{path}, question {row.question_id}",
                split or row.split,
                row.benchmark,
                row.kind,
                headline_dialect(row),
                row.image,
                row.source or row.question,
                row.prompt,
            )
            for row in read_ledger(path)
        ]
    return [_read(record, where, split) for where, record in records]


def _read(record: dict[str, Any], where: str, split: str | None) -> Prediction:
    id_key = _first(record, _IDS, where)
    answer_key = _first(record, _ANSWERS, where)
    if answer_key == "text" and not _QUESTION_KEYS.isdisjoint(record):
        raise SettingError(
            f"{where}: a question with {', '.join(sorted(_QUESTION_KEYS & record.keys()))} and no "
            "answer; this looks like a file of ground truth or questions, give one of answers"
        )
    question_key = "text" if answer_key == "prediction" and "text" in record else "question"
    return Prediction(
        identifier(record, id_key, where),
        text(record, answer_key, where),
        where,
        split,
        image=_optional(record, "image"),
        question=_optional(record, question_key),
        prompt=_optional(record, "prompt"),
    )


def _first(record: dict[str, Any], keys: Sequence[str], where: str) -> str:
    for key in keys:
        if key in record:
            return key
    raise SettingError(
        f"{where}: none of {', '.join(keys)} among the keys {list(record)}; expected a ledger, "
        "LLaVA's answers (question_id, text), VQA results (question_id, answer) or GQA predictions "
        "(questionId, prediction)"
    )


def _optional(record: dict[str, Any], key: str) -> str | None:
    value = record.get(key)
    return value if isinstance(value, str) else None
