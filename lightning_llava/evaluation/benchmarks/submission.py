"""Answers for judges elsewhere: VQAv2's server, and the LLM that MT-Bench asks."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.truth import read_vqa_questions
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.kinds import scored_answer
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.scorers.vqa_text import process_m4c
from lightning_llava.specs import BenchmarkSpec


def write_submissions(
    folder: Path, rows: Sequence[LedgerRow], benchmarks: Mapping[str, BenchmarkSpec]
) -> list[Path]:
    """Write what has no published answers in the form in which its judge reads it.

    Args:
        folder: where the report lies.
        rows: the ledger.
        benchmarks: the settings by name.

    Returns:
        The files: `BENCHMARK_SPLIT_results.json` for VQAv2, `BENCHMARK_SPLIT_answers.jsonl` for
        MT-Bench.

    Raises:
        SettingError: an answer is to a question that `submission` does not hold.
    """
    splits: dict[tuple[str, str], list[LedgerRow]] = defaultdict(list)
    for row in rows:
        if row.label is None:
            splits[row.benchmark, row.split].append(row)
    written = []
    for name, spec in benchmarks.items():
        for split in spec.files:
            first, second = splits[name, split], splits[name, f"{split}_turn_2"]
            if first and spec.kind == "vqav2":
                written.append(folder / f"{name}_{split}_results.json")
                content = json.dumps(vqa_results(first, name, split, spec), ensure_ascii=False)
                write_atomically(written[-1], content + "\n")
            elif first and spec.kind == "mt_bench":
                written.append(folder / f"{name}_{split}_answers.jsonl")
                lines = (
                    json.dumps(record, ensure_ascii=False)
                    for record in fastchat(first, second, name)
                )
                write_atomically(written[-1], "".join(f"{line}\n" for line in lines))
    return written


def vqa_results(
    rows: Sequence[LedgerRow], name: str, split: str, spec: BenchmarkSpec
) -> list[dict[str, Any]]:
    """Write `[{question_id, answer}]`, as LLaVA submits them: through the m4c processor.

    The server compares raw texts, and takes `Yes` for wrong where all ten people said `yes`.

    Raises:
        SettingError: see `write_submissions`.
    """
    answers = {row.question_id: process_m4c(scored_answer(row)) for row in rows}
    ids = list(answers)
    if file := spec.submission.get(split):
        setting = f"data.benchmarks.{name}.submission.{split}"
        ids = [truth.id for truth in read_vqa_questions(Path(file), setting)]
        if foreign := answers.keys() - set(ids):
            raise SettingError(
                f"{setting}: {file} lacks {len(foreign):,} of the questions that were asked, such "
                f"as {min(foreign)}; give the file of the whole test split"
            )
    return [{"question_id": _number(i), "answer": answers.get(i, "")} for i in ids]


def fastchat(
    first: Sequence[LedgerRow], second: Sequence[LedgerRow], model: str
) -> list[dict[str, Any]]:
    """Write answers as FastChat's `model_answer/MODEL.jsonl` has them.

    Args:
        first: answers to the first turns.
        second: answers to the second, of questions that have one.
        model: what the judge's tables shall call the model.
    """
    after = {row.question_id: row.raw_answer for row in second}
    return [
        {
            "question_id": _number(row.question_id),
            "answer_id": f"{model}-{row.question_id}",
            "model_id": model,
            "choices": [
                {
                    "index": 0,
                    "turns": [
                        row.raw_answer,
                        *([after[row.question_id]] if row.question_id in after else []),
                    ],
                }
            ],
            "tstamp": time.time(),
        }
        for row in first
    ]


def _number(question_id: str) -> int | str:
    return int(question_id) if question_id.isdecimal() else question_id
