"""Another number of processes: the same micro-batches a step, and Lightning's counters to match."""

from types import SimpleNamespace

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.layout import (
    check_batch_complete,
    check_length,
    check_step_complete,
    check_steps_left,
    keep_step_size,
    rescale_progress,
    step_size,
)


def trainer(world, accumulate):
    return SimpleNamespace(world_size=world, accumulate_grad_batches=accumulate)


@pytest.mark.parametrize(
    ("world", "configured", "expected"),
    [(1, 12, 12), (2, 12, 6), (4, 12, 3), (12, 12, 1), (2, 6, 6), (3, 4, 4)],
)
def test_a_step_stays_what_it_was(world, configured, expected):
    """12 micro-batches a step on one process; as configured then, or set to what it takes now."""
    now = trainer(world, configured)
    keep_step_size(now, {"step_size": 12, "accumulate_grad_batches": 12})
    assert now.accumulate_grad_batches == expected
    assert step_size(now) == 12


def test_adjusted_once_and_again():
    """Two GPUs x 6, then one, then four; the configuration says 6 all the time."""
    saved = {"step_size": 12, "accumulate_grad_batches": 6}
    for world, expected in ((1, 12), (4, 3), (2, 6)):
        now = trainer(world, 6)
        keep_step_size(now, saved)
        assert now.accumulate_grad_batches == expected


def test_processes_that_cannot_share_a_step():
    with pytest.raises(SettingError, match=r"12 micro-batches a step, which 5 processes cannot"):
        keep_step_size(trainer(5, 12), {"step_size": 12, "accumulate_grad_batches": 12})


def test_another_accumulation_is_refused():
    message = (
        r"trainer\.accumulate_grad_batches is 5 but the checkpoint has 12, and 2 processes with it "
        r"would take 10 micro-batches a step instead of 12.*model\.init_from"
    )
    with pytest.raises(SettingError, match=message):
        keep_step_size(trainer(2, 5), {"step_size": 12, "accumulate_grad_batches": 12})


def test_a_checkpoint_within_a_step_is_refused():
    check_step_complete(24, 12)
    with pytest.raises(SettingError, match=r"after 29 micro-batches, 5 into an optimizer step of"):
        check_step_complete(29, 12)


def test_counters_are_those_of_a_run_in_the_new_layout():
    # Six steps of 2 x 2 micro-batches; the last of each rank is not yet counted as completed.
    counters = {"ready": 12, "started": 12, "processed": 12, "completed": 11}
    progress = {"current": dict(counters), "total": dict(counters), "is_last_batch": False}
    rescale_progress(progress, consumed=24, world=1)
    expected = {"ready": 24, "started": 24, "processed": 24, "completed": 23}
    assert progress["current"] == progress["total"] == expected
    rescale_progress(progress, consumed=24, world=4)
    expected = {"ready": 6, "started": 6, "processed": 6, "completed": 5}
    assert progress["current"] == progress["total"] == expected


def test_a_checkpoint_within_a_micro_batch_is_refused():
    check_batch_complete({"current": {"ready": 3, "processed": 3, "completed": 2}})
    with pytest.raises(SettingError, match=r"in the middle of a micro-batch.*step-\*\.ckpt"):
        check_batch_complete({"current": {"ready": 3, "processed": 2, "completed": 2}})


def test_streaming_validates_after_a_share_of_its_steps():
    """Lightning takes a share only of a loader that has a length."""
    run = SimpleNamespace(
        max_epochs=1, max_steps=30, accumulate_grad_batches=4, val_check_interval=0.25
    )
    check_length(run, "streaming", 1)
    assert run.val_check_interval == 30


def test_a_run_that_is_over_is_not_continued():
    check_steps_left(30, 30)
    check_steps_left(30, -1)
    with pytest.raises(SettingError, match=r"after step 30, but trainer\.max_steps is 20"):
        check_steps_left(30, 20)


def test_no_epochs_are_no_run():
    with pytest.raises(SettingError, match=r"data\.epochs is 0, expected 1 or more"):
        check_length(SimpleNamespace(max_epochs=1, max_steps=-1), "planned", 0)
