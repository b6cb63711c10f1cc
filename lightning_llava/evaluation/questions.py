"""Which questions a run asks, and which of them each of its processes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info

from lightning_llava.evaluation.answering import group_identical, share
from lightning_llava.evaluation.benchmarks import (
    Question,
    load_benchmarks,
    load_predict_questions,
)
from lightning_llava.specs import BenchmarkSpec, PredictSpec


def read_questions(
    trainer: Any,
    stage: str,
    benchmarks: Mapping[str, BenchmarkSpec],
    predict: PredictSpec | None,
    seed: int,
) -> Sequence[Question]:
    """Read the questions of benchmarks or of a prediction; `test` asks benchmarks in full."""
    if stage == "predict":
        return load_predict_questions(predict or PredictSpec())
    if stage == "fit" and not benchmarks:
        rank_zero_info("data: no benchmarks are configured, so nothing is validated")
        trainer.limit_val_batches = 0
    if stage == "fit" and trainer.limit_val_batches == 0:
        return ()
    return load_benchmarks(benchmarks, stage == "test", seed)


def share_questions(
    trainer: Any, asked: Sequence[Question], at_once: int
) -> tuple[list[list[list[Question]]], int | None]:
    """Choose what this process asks, image by image.

    Returns:
        The questions, and how many batches they must make; None: as many as they are.
    """
    groups, world = group_identical(asked), trainer.world_size
    # Where the weights are split, no rank can answer alone: as many prompts for each.
    in_step = isinstance(trainer.strategy, ModelParallelStrategy)
    mine = share(groups, trainer.global_rank, world, at_once, in_step)
    return mine, math.ceil(len(groups) / world) if in_step else None
