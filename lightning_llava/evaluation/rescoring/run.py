"""Files in, scores out."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.pope_version import version
from lightning_llava.evaluation.benchmarks.truth import Truth, read_truth, read_vqa_questions
from lightning_llava.evaluation.rescoring.join import (
    Pair,
    by_id,
    by_image_and_prompt,
    check_same,
)
from lightning_llava.evaluation.rescoring.pope import join_by_rows, version_hint
from lightning_llava.evaluation.rescoring.predictions import Prediction, read_predictions
from lightning_llava.evaluation.rescoring.scores import score
from lightning_llava.evaluation.scorers.dialects import DIALECTS, require
from lightning_llava.evaluation.scorers.language import language_update
from lightning_llava.evaluation.scorers.pope import dialect_for

ALL = "all"
_KINDS = {"gqa": ("gqa", "gqa_ru")}
"""Of a ledger's rows, where they are not called as the benchmark is."""


@dataclass(frozen=True)
class Named:
    """`[SPLIT=]FILE` of the command line."""

    split: str | None
    path: Path


@dataclass
class Rescored:
    """What `tools/score.py` prints."""

    benchmark: str
    dialects: dict[str, dict[str, Any]]
    """Dialect → numbers, as `scores.score` gives them."""
    notes: list[str] = field(default_factory=list)
    version: str | None = None
    """POPE's."""


def named(argument: str) -> Named:
    """Read `[SPLIT=]FILE`; an existing file is a file, whatever its name."""
    split, equals, path = argument.partition("=")
    if equals and re.fullmatch(r"[\w-]+", split) and not Path(argument).exists():
        return Named(split, Path(path))
    return Named(None, Path(argument))


def rescore(
    benchmark: str,
    ground_truth: Sequence[Named],
    predictions: Sequence[Named],
    questions: Path | None = None,
    dialect: str | None = None,
) -> Rescored:
    """Score files of answers against files of ground truth.

    Args:
        benchmark: a key of `DIALECTS`.
        ground_truth: a published file per split.
        predictions: files of answers; several are put together.
        questions: POPE, LLaVA's question file, through which its one answer file for all splits
            joins; VQAv2, the published questions, which must be those of the annotations.
        dialect: a name, `all`, or None: the headline's of a ledger, else the first of `DIALECTS`
            (POPE: `strict` where the answers are in Russian).

    Raises:
        SettingError: files or rows do not fit together, or the dialect is not defined.
    """
    if dialect not in (None, ALL):
        require(benchmark, dialect)
    truths = _read_splits(benchmark, ground_truth)
    asked = {split: [row.question or "" for row in rows] for split, rows in truths.items()}
    pope_version = version(asked) if benchmark == "pope" else None
    answers = [row for file in predictions for row in read_predictions(file.path, file.split)]
    answers = _of_one_benchmark(answers, benchmark)
    if questions and benchmark == "vqav2":
        _check_questions(questions, truths)
    elif questions and benchmark != "pope":
        raise SettingError(f"--questions: {benchmark} needs none; leave it out")
    is_named = any(file.split for file in ground_truth)
    splits = _join(benchmark, truths, answers, questions, is_named)
    pairs = [pair for split in splits.values() for pair in split]
    chosen = [dialect or _plain_dialect(benchmark, pairs)]
    if dialect == ALL:
        chosen = list(DIALECTS[benchmark])
    scores = {name: score(benchmark, splits, name) for name in chosen}
    return Rescored(benchmark, scores, _notes(pairs, answers), pope_version)


def _read_splits(benchmark: str, files: Sequence[Named]) -> dict[str, list[Truth]]:
    names = [file.split or _split_name(file.path) for file in files]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise SettingError(
            f"--ground-truth: more than one file for the split {repeated[0]!r}; name each: "
            "--ground-truth SPLIT=FILE …"
        )
    if benchmark != "pope" and len(files) > 1:
        raise SettingError(
            f"--ground-truth: {len(files)} files, but {benchmark} is scored as a whole; give one"
        )
    return {name: read_truth(benchmark, file.path) for name, file in zip(names, files, strict=True)}


def _split_name(path: Path) -> str:
    return re.sub(r"^(coco_)?pope_", "", path.stem)


def _of_one_benchmark(answers: list[Prediction], benchmark: str) -> list[Prediction]:
    kinds = (None, *_KINDS.get(benchmark, (benchmark,)))
    fitting = [answer for answer in answers if answer.kind in kinds]
    if not fitting:
        found = sorted({str(answer.kind) for answer in answers})
        raise SettingError(
            f"--predictions: a ledger of {', '.join(found)}, none of its rows is {benchmark}; "
            "score it as what it is, or give another"
        )
    found = sorted({answer.benchmark for answer in fitting if answer.benchmark is not None})
    if len(found) <= 1:
        return fitting
    if benchmark not in found:
        raise SettingError(
            f"--predictions: a ledger of the benchmarks {', '.join(found)}, none of them called "
            f"{benchmark!r}; give a ledger with the rows of one"
        )
    return [answer for answer in fitting if answer.benchmark in (None, benchmark)]


def _check_questions(questions: Path, truths: Mapping[str, Sequence[Truth]]) -> None:
    asked = [row.id for row in read_vqa_questions(questions, "--questions")]
    check_same(str(questions), [row.id for rows in truths.values() for row in rows], asked)


def _join(
    benchmark: str,
    truths: Mapping[str, Sequence[Truth]],
    answers: Sequence[Prediction],
    questions: Path | None,
    is_named: bool,
) -> dict[str, list[Pair]]:
    if benchmark == "pope" and questions:
        return join_by_rows(truths, answers, questions)
    if benchmark == "textvqa" and _are_images(truths, answers):
        return {name: by_image_and_prompt(rows, answers) for name, rows in truths.items()}
    by_split: dict[str, list[Prediction]] = {name: [] for name in truths}
    splits = {answer.split for answer in answers}
    only = next(iter(truths)) if len(truths) == 1 else None
    # One split on either side, and nobody called the ground truth's by a name: they are the same.
    is_same = only is not None and len(splits) == 1 and not is_named and benchmark != "pope"
    for answer in answers:
        split = only if is_same or answer.split is None else answer.split
        if split not in by_split:
            raise SettingError(_no_split(answer, truths))
        by_split[split].append(answer)
    return {
        name: by_id(name, rows, by_split[name], version_hint(rows, by_split[name]))
        for name, rows in truths.items()
    }


def _no_split(answer: Prediction, truths: Mapping[str, Sequence[Truth]]) -> str:
    listed = ", ".join(truths)
    if answer.split is not None:
        return (
            f"{answer.where}: is of the split {answer.split!r}, but --ground-truth gives {listed}; "
            f"add --ground-truth {answer.split}=FILE, or give predictions of these splits only"
        )
    return (
        f"{answer.where}: does not say of which split it is, and ids repeat in {listed}; name the "
        "split of each file (--predictions SPLIT=FILE …), or give LLaVA's question file with "
        "--questions"
    )


def _are_images(truths: Mapping[str, Sequence[Truth]], answers: Sequence[Prediction]) -> bool:
    rows = [row for split in truths.values() for row in split]
    ids, images = {row.id for row in rows}, {row.image for row in rows}
    return not any(answer.id in ids for answer in answers) and any(
        answer.id in images for answer in answers
    )


def _plain_dialect(benchmark: str, pairs: Sequence[Pair]) -> str:
    """Score a ledger as its report does, and other answers by the first dialect."""
    headline = {answer.dialect for _, answer in pairs}
    if len(headline) == 1 and (name := headline.pop()):
        return name
    if benchmark == "pope":
        return dialect_for("ru" if _mostly_russian(pairs) else "en")
    return next(iter(DIALECTS[benchmark]))


def _mostly_russian(pairs: Sequence[Pair]) -> bool:
    counts = language_update([answer.answer for _, answer in pairs], "ru")
    return counts.asked > counts.other


def _notes(pairs: Sequence[Pair], answers: Sequence[Prediction]) -> list[str]:
    texts = [answer.answer for _, answer in pairs]
    counts = {
        "empty answers": sum(not text.strip() for text in texts),
        "answers in Cyrillic letters": language_update(texts, "ru").asked,
        "answers to questions that are not balanced, not scored": len(answers) - len(pairs),
    }
    return [f"{what}: {count:,}" for what, count in counts.items() if count]
