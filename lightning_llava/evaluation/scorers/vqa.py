"""VQAv2 and TextVQA: a soft score against ten human answers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio
from lightning_llava.evaluation.scorers.dialects import require
from lightning_llava.evaluation.scorers.vqa_text import (
    clean_spaces,
    process,
    process_m4c,
    process_vlmevalkit,
)

VqaBenchmark = Literal["vqav2", "textvqa"]
HUMANS = 10
ANSWER_TYPES = ("yes/no", "number", "other")
_TENTHS = (0, 3, 6, 9, 10)
"""Score in tenths by number of humans who gave the answer, four and more being ten.

It is the mean of min(1, matches / 3) over the ten ways to leave one human out; with m matches, m
of them leave m - 1 and the others m.
"""


def _official(prediction: str, answers: Sequence[str]) -> int:
    prediction, answers = clean_spaces(prediction), [clean_spaces(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = process(prediction), [process(answer) for answer in answers]
    return answers.count(prediction)


def _m4c_then_official(prediction: str, answers: Sequence[str]) -> int:
    return _official(process_m4c(prediction), answers)


def _on_both_sides(processor: Callable[[str], str]) -> Callable[[str, Sequence[str]], int]:
    def matches(prediction: str, answers: Sequence[str]) -> int:
        return [processor(answer) for answer in answers].count(processor(prediction))

    return matches


_MATCHES: dict[tuple[str, str], Callable[[str, Sequence[str]], int]] = {
    ("vqav2", "official"): _official,
    ("vqav2", "llava"): _m4c_then_official,
    ("vqav2", "lmms-eval"): _on_both_sides(lambda text: process(clean_spaces(text))),
    ("textvqa", "llava"): _on_both_sides(process_m4c),
    ("textvqa", "lmms-eval"): _on_both_sides(process_m4c),
    ("textvqa", "vlmevalkit"): _on_both_sides(process_vlmevalkit),
}


class VqaCounts(NamedTuple):
    """What the accuracy is made of; the counts of parts add up element by element."""

    tenths: int
    """Scores in tenths, so that sums are exact."""
    total: int


def vqa_tenths(
    prediction: str, answers: Sequence[str], dialect: str, benchmark: VqaBenchmark = "vqav2"
) -> int:
    """Score one answer: 0, 3, 6, 9 or 10 tenths.

    Args:
        prediction: the model's raw answer.
        answers: of ten humans.
        dialect: see `dialects.DIALECTS`.
        benchmark: the same name means different rules on VQAv2 and on TextVQA.

    Raises:
        SettingError: the benchmark does not define the dialect, or there are not ten answers.
    """
    require(benchmark, dialect)
    if len(answers) != HUMANS:
        raise SettingError(
            f"{len(answers)} human answers, expected {HUMANS}: the score is defined on ten; mend "
            "the ground truth"
        )
    matches = _MATCHES[benchmark, dialect](prediction, answers)
    return _TENTHS[min(matches, len(_TENTHS) - 1)]


def vqa_update(
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    dialect: str,
    benchmark: VqaBenchmark = "vqav2",
) -> VqaCounts:
    """Score raw answers, each against ten human ones.

    Raises:
        SettingError: as `vqa_tenths`, or the columns differ in length.
    """
    require(benchmark, dialect)
    check_lengths(predictions=predictions, answers=answers)
    pairs = zip(predictions, answers, strict=True)
    tenths = [vqa_tenths(prediction, humans, dialect, benchmark) for prediction, humans in pairs]
    return VqaCounts(sum(tenths), len(tenths))


def vqa_compute(counts: VqaCounts) -> dict[str, float]:
    """Turn counts into `accuracy` (an unrounded fraction), `correct` (summed scores), `total`."""
    correct = counts.tenths / 10
    return {
        "accuracy": ratio(correct, counts.total),
        "correct": correct,
        "total": counts.total,
    }


class Vqa(CountingMetric):
    """VQAv2's or TextVQA's accuracy over batches and processes, also by type of answer."""

    def __init__(self, dialect: str, benchmark: VqaBenchmark = "vqav2", **kwargs: Any) -> None:
        require(benchmark, dialect)
        super().__init__(len(VqaCounts._fields) * (1 + len(ANSWER_TYPES)), **kwargs)
        self.dialect = dialect
        self.benchmark: VqaBenchmark = benchmark

    def update(
        self,
        predictions: Sequence[str],
        answers: Sequence[Sequence[str]],
        answer_types: Sequence[str] = (),
    ) -> None:
        """Add raw answers, ten human ones to each, and perhaps the published type of each."""
        rows = [(list(predictions), list(answers))]
        if answer_types:
            check_lengths(predictions=predictions, answer_types=answer_types)
            if unknown := set(answer_types).difference(ANSWER_TYPES):
                raise SettingError(
                    f"answer types {sorted(unknown)}, expected {', '.join(ANSWER_TYPES)}"
                )
        for kind in ANSWER_TYPES:
            places = [place for place, found in enumerate(answer_types) if found == kind]
            rows.append(([predictions[place] for place in places], [answers[p] for p in places]))
        self.add(
            count for given in rows for count in vqa_update(*given, self.dialect, self.benchmark)
        )

    def compute(self) -> dict[str, float]:
        """Return `vqa_compute` over everything seen, by all processes, and `accuracy/TYPE`."""
        overall, *kinds = [VqaCounts(*row) for row in self.counts.view(-1, 2).tolist()]
        by_type = {
            f"accuracy/{kind}": vqa_compute(counts)["accuracy"]
            for kind, counts in zip(ANSWER_TYPES, kinds, strict=True)
            if counts.total
        }
        return {**vqa_compute(overall), **by_type}
