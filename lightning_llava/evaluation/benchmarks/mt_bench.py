"""MT-Bench: eighty questions of two turns without a picture, and the answers as its judge reads."""

from collections.abc import Iterator
from dataclasses import replace

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.question import Question
from lightning_llava.evaluation.benchmarks.source import Source
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.json_files import identifier, read_records


def read_mt_bench(source: Source) -> Iterator[Question]:
    """Read FastChat's question.jsonl: `question_id`, `category` and `turns`.

    Raises:
        SettingError: the file is missing, or a row has not one or two turns of text.
    """
    for where, record in read_records(source.file, source.setting):
        turns = record.get("turns")
        if not (
            isinstance(turns, list)
            and len(turns) in (1, 2)
            and all(isinstance(turn, str) and turn.strip() for turn in turns)
        ):
            raise SettingError(f"{where}: turns are {turns!r:.60}, expected one or two texts")
        types = {"category": str(record.get("category", "none"))}
        truth = Truth(identifier(record, "question_id", where), (), types=types)
        question = source.question(truth, turns[0], None)
        yield replace(question, follow_up=turns[1] if len(turns) == 2 else None)
