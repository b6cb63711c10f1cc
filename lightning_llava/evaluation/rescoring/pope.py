"""POPE's three splits: which rows belong to which."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.pope_version import OLD_RANDOM_ROWS, SPLIT_ROWS
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.json_files import identifier, read_records, text
from lightning_llava.evaluation.rescoring.join import (
    Pair,
    check_image,
    check_question,
    check_same,
    plain_question,
)
from lightning_llava.evaluation.rescoring.predictions import Prediction


def version_hint(truths: Sequence[Truth], predictions: Sequence[Prediction]) -> str:
    """Say so where one side looks like one version of POPE and the other like the other."""
    if {len(truths), len(predictions)} == {SPLIT_ROWS, OLD_RANDOM_ROWS}:
        return " (POPE's random split has 3,000 rows at HEAD and 2,910 in the version e3e3926)"
    return ""


def join_by_rows(
    splits: Mapping[str, Sequence[Truth]], predictions: Sequence[Prediction], questions: Path
) -> dict[str, list[Pair]]:
    """Join LLaVA's one answer file for all splits through its question file.

    The ids are LLaVA's own; a category's rows stand in the order of the split's file. Each pair is
    checked by image and question.

    Args:
        splits: ground truth.
        predictions: answers to all questions of the file.
        questions: JSON lines with `question_id`, `image`, `text` and `category` (the split).

    Raises:
        SettingError: rows are missing, double or extra, or a pair does not fit.
    """
    answered = {prediction.id: prediction for prediction in predictions}
    rows = list(read_records(questions, "--questions"))
    ids = [identifier(record, "question_id", where) for where, record in rows]
    check_same(str(questions), ids, [prediction.id for prediction in predictions])
    asked: dict[str, list[Prediction]] = defaultdict(list)
    for (where, record), name in zip(rows, ids, strict=True):
        image, question = text(record, "image", where), text(record, "text", where)
        check_question(Truth(name, (), image, question), answered[name])
        asked[text(record, "category", where)].append(
            replace(answered[name], where=where, image=image, question=question)
        )
    if asked.keys() != splits.keys():
        raise SettingError(
            f"{questions} has the categories {', '.join(sorted(asked))}, but --ground-truth gives "
            f"{', '.join(sorted(splits))}; name the file of each: --ground-truth CATEGORY=FILE …"
        )
    return {name: _pair(name, truths, asked[name]) for name, truths in splits.items()}


def _pair(split: str, truths: Sequence[Truth], asked: Sequence[Prediction]) -> list[Pair]:
    if len(truths) != len(asked):
        raise SettingError(
            f"{split}: the ground truth has {len(truths):,} rows, the question file "
            f"{len(asked):,}; give both of the same version of POPE (e3e3926 has 2,910 random ones)"
        )
    pairs = list(zip(truths, asked, strict=True))
    for truth, prediction in pairs:
        check_image(truth.image or "", prediction.image or "", prediction.where)
        ours, theirs = (plain_question(row.question or "") for row in (truth, prediction))
        if ours != theirs:
            raise SettingError(
                f"{prediction.where}: asks {theirs!r}, but the ground truth {ours!r} in the same "
                f"row of {split}; give both of the same version of POPE"
            )
    return pairs
