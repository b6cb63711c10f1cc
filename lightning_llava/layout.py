"""A run's length, processes and accumulation; another number of processes continues the same run.

An optimizer step takes `processes x accumulate_grad_batches` micro-batches, and that product is
what a run keeps: on half the GPUs, each takes twice as many.
"""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_llava.errors import SettingError

PROGRESS = ("ready", "started", "processed", "completed")
"""Lightning's counters of a rank's micro-batches."""


def check_length(trainer: Any, mode: str, data_epochs: int) -> None:
    """Refuse a run whose end is not said, or said in Lightning's epochs; mend when it validates.

    Raises:
        SettingError: `trainer.max_epochs` above one, streaming (`data.mode`) without
            `trainer.max_steps`, or `data.epochs` below one.
    """
    if data_epochs < 1:
        raise SettingError(f"data.epochs is {data_epochs}, expected 1 or more")
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs not in (None, 1) and not (epochs == -1 and steps > 0):
        raise SettingError(
            f"trainer.max_epochs is {epochs}, expected 1: the whole run is one Lightning epoch "
            f"(so that it can resume anywhere); set data.epochs: {epochs} instead"
        )
    if mode == "streaming" and steps <= 0:
        raise SettingError(
            "data.mode is streaming, which has no end of its own; set trainer.max_steps"
        )
    if mode == "streaming" and isinstance(share := trainer.val_check_interval, float):
        # Lightning takes a share of the run only where the loader has a length.
        batches = steps * trainer.accumulate_grad_batches
        trainer.val_check_interval = max(1, int(share * batches))


def step_size(trainer: Any) -> int:
    """Count the micro-batches of an optimizer step, on all processes."""
    return trainer.world_size * trainer.accumulate_grad_batches


def keep_step_size(trainer: Any, saved: Mapping[str, int]) -> None:
    """Set the accumulation so that a step stays what it was in the checkpoint's run.

    Args:
        trainer: of the run that continues, as configured.
        saved: `step_size`, and the configured `accumulate_grad_batches`, of the checkpoint's run.

    Raises:
        SettingError: the accumulation was set to something else, or the processes cannot share a
            step evenly.
    """
    world, size = trainer.world_size, saved["step_size"]
    if step_size(trainer) == size:
        return
    if trainer.accumulate_grad_batches != saved["accumulate_grad_batches"]:
        raise SettingError(
            "--ckpt_path continues a run as it was: trainer.accumulate_grad_batches is "
            f"{trainer.accumulate_grad_batches} but the checkpoint has "
            f"{saved['accumulate_grad_batches']}, and {world} processes with it would take "
            f"{step_size(trainer)} micro-batches a step instead of {size}. Restore the "
            "checkpoint's value, or start a new stage from its weights with model.init_from"
        )
    if size % world:
        raise SettingError(
            f"--ckpt_path continues a run of {size} micro-batches a step, which {world} processes "
            "cannot share evenly; set trainer.devices x trainer.num_nodes to "
            f"{'1' if size == 1 else f'a divisor of {size}'}, or start a new stage from its "
            "weights with model.init_from"
        )
    trainer.accumulate_grad_batches = size // world
    rank_zero_info(
        f"data: each of {world} processes takes {size // world} of a step's {size} micro-batches, "
        "so that the run goes on as it was"
    )


def check_step_complete(consumed: int, size: int) -> None:
    """Refuse a checkpoint from the middle of an optimizer step.

    Args:
        consumed: micro-batches so far, on all processes.
        size: micro-batches of a step, on all processes.

    Raises:
        SettingError: the gradients that the step had accumulated are in no checkpoint.
    """
    if consumed % size:
        raise SettingError(
            f"--ckpt_path was written after {consumed} micro-batches, {consumed % size} into an "
            f"optimizer step of {size}, and their gradients are not in it; continue from one that "
            "`checkpoint` wrote (step-*.ckpt)"
        )


def check_steps_left(done: int, max_steps: int) -> None:
    """Refuse to continue a run that is over already.

    Args:
        done: optimizer steps of the checkpoint.
        max_steps: `trainer.max_steps`; -1 where epochs decide.

    Raises:
        SettingError: fewer steps are asked for than there have been.
    """
    if 0 < max_steps < done:
        raise SettingError(
            f"--ckpt_path continues a run after step {done}, but trainer.max_steps is {max_steps}; "
            "raise it, or take an earlier checkpoint"
        )


def check_batch_complete(progress: Mapping[str, Any]) -> None:
    """Refuse a checkpoint from the middle of a micro-batch, which counts as consumed already.

    Args:
        progress: the checkpoint's `epoch_loop.batch_progress`.

    Raises:
        SettingError: it was not trained on when the checkpoint was written.
    """
    if progress["current"]["ready"] != progress["current"]["processed"]:
        raise SettingError(
            "--ckpt_path was written in the middle of a micro-batch (as by SLURM's requeueing), "
            "which a resumed run would pass over; continue from a checkpoint that "
            "`checkpoint` wrote (step-*.ckpt)"
        )


def rescale_progress(progress: Mapping[str, Any], consumed: int, world: int) -> None:
    """Write Lightning's counters as if this many processes had run from the start.

    Args:
        progress: the checkpoint's `epoch_loop.batch_progress`; changed in place.
        consumed: micro-batches so far, on all processes.
        world: processes now.
    """
    for counters in (progress["current"], progress["total"]):
        ready = counters["ready"]
        for name in PROGRESS:
            # A checkpoint is written before its own batch counts as completed: the lag stays.
            counters[name] = consumed // world - (ready - counters[name])
