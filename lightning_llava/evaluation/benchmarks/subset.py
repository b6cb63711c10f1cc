"""Fixed subsets of a benchmark's questions."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.question import Question


def subset(questions: Sequence[Question], n: int | None, seed: int) -> list[Question]:
    """Choose n questions of every split, order kept; POPE's balanced as far as the labels last.

    The choice depends on (seed, split, question id) alone: not on Python's hash seed, the order of
    the file or the machine. A larger n adds questions to those of a smaller one. An odd n gives
    POPE's spare question to the label that sorts first.

    Args:
        questions: of any number of benchmarks and splits, with or without labels.
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
        # Of a thousand different answers, one each would be another benchmark.
        stratum = (question.label or "") if question.kind == "pope" else ""
        strata[question.benchmark, question.split][stratum].append(question)
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
