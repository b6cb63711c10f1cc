"""What the meter counts."""

from types import SimpleNamespace

import pytest
import torch

from lightning_llava.callbacks.meter import Meter, peak_memory_gb
from lightning_llava.data.collate import collate_packed, collate_padded
from tiny import IMAGE_SIZE, row

ROWS = [row("a", 12, 1, 4, 1), row("b", 20, 0, 9, 2)]
REAL = 12 - 1 + 16 + 20
"""Tokens with the image's 16 features in the place of its placeholder."""


@pytest.mark.parametrize("collate", [collate_packed, collate_padded])
def test_tokens_and_samples_per_second_leave_padding_out(monkeypatch, collate):
    now = iter([100.0, 104.0, 104.0])
    monkeypatch.setattr("lightning_llava.callbacks.meter.time.perf_counter", lambda: next(now))
    meter, logged = Meter(), {}
    trainer = SimpleNamespace(global_step=1, log_every_n_steps=1, world_size=2)
    module = SimpleNamespace(
        device=torch.device("cpu"), log=lambda name, value, **_: logged.update({name: value})
    )
    batch = collate(ROWS, 16, IMAGE_SIZE)
    meter.on_train_batch_end(trainer, module, None, batch, 0)
    assert logged["speed/tokens_per_second"] == REAL * 2 / 4
    assert logged["speed/samples_per_second"] == 2 * 2 / 4
    assert logged["speed/peak_memory_gb"] == peak_memory_gb(torch.device("cpu")) > 0.1


def test_nothing_is_logged_within_a_step_or_between_two_logged_ones():
    meter, logged = Meter(), []
    module = SimpleNamespace(device=torch.device("cpu"), log=lambda *a, **_: logged.append(a))
    batch = collate_packed(ROWS, 16, IMAGE_SIZE)
    for step in (0, 0, 1):  # accumulation; then step 1 of every 2
        trainer = SimpleNamespace(global_step=step, log_every_n_steps=2, world_size=1)
        meter.on_train_batch_end(trainer, module, None, batch, 0)
    assert not logged
    assert meter.tokens == 3 * REAL
