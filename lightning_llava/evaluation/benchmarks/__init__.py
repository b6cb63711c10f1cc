"""Questions of benchmarks, read from the files that were published."""

from lightning_llava.evaluation.benchmarks.load import (
    RESERVED_SPLIT,
    load_benchmark,
    load_benchmarks,
    load_predict_questions,
)
from lightning_llava.evaluation.benchmarks.question import Question, with_follow_ups
from lightning_llava.evaluation.benchmarks.subset import subset

__all__ = [
    "RESERVED_SPLIT",
    "Question",
    "load_benchmark",
    "load_benchmarks",
    "load_predict_questions",
    "subset",
    "with_follow_ups",
]
