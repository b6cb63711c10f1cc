"""What the meter counts."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback

from lightning_llava.callbacks.meter import Meter, peak_memory_gb, sample_counts
from lightning_llava.data.collate import Row, collate_packed, collate_padded
from lightning_llava.devices import Peak
from lightning_llava.models.flops import flop_coefficients, micro_batch_flops
from lightning_llava.specs import LoraSpec
from runs import make_data, make_module, make_trainer
from tiny import IMAGE_SIZE, build, row, tiled_row

CPU = torch.device("cpu")
ROWS = [row("a", 12, 1, 4, 1), row("b", 20, 0, 9, 2)]
LENGTHS = [12 - 1 + 16, 20]
"""Tokens with the image's 16 features in the place of its placeholder."""
REAL = sum(LENGTHS)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


class Run:
    """A trainer, a module and a meter, on a clock."""

    def __init__(self, model, monkeypatch, every=1, world=1, total=100):
        self.logged, self.clock = {}, Clock()
        self.trainer = SimpleNamespace(
            global_step=0,
            log_every_n_steps=every,
            world_size=world,
            precision="32-true",
            estimated_stepping_batches=total,
            strategy=self,
        )
        self.module = SimpleNamespace(device=CPU, llava=model, log=self.log)
        name = "lightning_llava.callbacks.meter"
        monkeypatch.setattr(f"{name}.time.perf_counter", self.clock.perf_counter)
        monkeypatch.setattr(f"{name}.device_peak", lambda *_: Peak(0.5, "CPU", True))
        self.meter = Meter()
        self.meter.on_train_start(self.trainer, self.module)

    def log(self, name, value, **_):
        self.logged[name] = value

    def reduce(self, values, reduce_op):
        """The other rank had twice as much of everything."""
        assert reduce_op == "sum"
        return 3 * values

    def micro_batch(self, batch, wait, work, step):
        self.clock.now += wait
        self.meter.on_train_batch_start(self.trainer, self.module, batch, 0)
        self.clock.now += work
        self.trainer.global_step = step
        self.meter.on_train_batch_end(self.trainer, self.module, None, batch, 0)


@pytest.fixture(scope="module")
def model(clip, mistral):
    return build(clip, mistral, LoraSpec(r=4))


@pytest.fixture
def run(model, monkeypatch):
    return Run(model, monkeypatch)


@pytest.mark.parametrize("collate", [collate_packed, collate_padded])
def test_a_step_in_numbers_that_leave_padding_out(run, model, collate):
    batch = collate(ROWS, 16, IMAGE_SIZE)
    run.micro_batch(batch, wait=1, work=3, step=0)
    run.micro_batch(batch, wait=2, work=2, step=1)
    logged = run.logged
    assert logged["speed/tokens_per_second"] == 2 * REAL / 8
    assert logged["speed/samples_per_second"] == 2 * 2 / 8
    flops = 2 * micro_batch_flops(flop_coefficients(model), LENGTHS, 1, 4 + 9)
    assert logged["speed/tflops"] == pytest.approx(flops / 8 / 1e12, rel=1e-12)
    assert logged["speed/mfu"] == pytest.approx(flops / 8 / 0.5e12, rel=1e-12)
    assert logged["speed/data_wait"] == 3 / 8
    assert logged["speed/data_wait_seconds"] == 3
    assert logged["speed/hours_left"] == 99 * 8 / 3600
    assert 0.1 < logged["speed/peak_memory_gb"] <= peak_memory_gb(CPU)


def test_blanks_are_no_samples(run, model):
    """As the packs have them: ids of any value, nothing supervised."""
    real = row("a", 30, 0, 8, 1)
    blank = Row("b", real.input_ids * 0, real.labels * 0 - 100, [])
    batch = replace(collate_packed([real, blank], 16, IMAGE_SIZE), substituted=["unreadable"])
    run.micro_batch(batch, wait=0, work=2, step=1)
    assert run.logged["speed/tokens_per_second"] == 30 / 2
    assert run.logged["speed/samples_per_second"] == 1 / 2
    flops = micro_batch_flops(flop_coefficients(model), [30], 0, 8)
    assert run.logged["speed/tflops"] == pytest.approx(flops / 2 / 1e12, rel=1e-12)


def test_of_tiles_only_what_is_no_padding_reaches_the_projector(clip, mistral, monkeypatch):
    model = build(clip, mistral, LoraSpec(r=4), any_resolution=True)
    # The overview and three tiles side by side, of which two rows of four are no padding.
    wide = tiled_row("a", 12, [(200, 30)], 4, model.vision_tower.geometry.tiling)
    run = Run(model, monkeypatch)
    run.micro_batch(collate_packed([wide, ROWS[1]], 16, IMAGE_SIZE), wait=0, work=2, step=1)
    tokens = 12 - 1 + 16 + 2 * (12 + 1)
    assert run.logged["speed/tokens_per_second"] == (tokens + 20) / 2
    coefficients = flop_coefficients(model)
    flops = micro_batch_flops(coefficients, [tokens, 20], 4, 4 + 9, projected=1 + 2 * 12 / 16)
    assert run.logged["speed/tflops"] == pytest.approx(flops / 2 / 1e12, rel=1e-12)


def test_every_sample_is_counted_alone():
    rows = [row("a", 12, 1, 4, 1), row("b", 20, 0, 20, 2), row("c", 9, 0, 1, 3)]
    packed, padded = (collate(rows, 16, IMAGE_SIZE) for collate in (collate_packed, collate_padded))
    # The first token of a sample follows nothing that it could be predicted from.
    expected = [[27, 20, 9], [4, 19, 1]]
    assert sample_counts(packed).tolist() == expected
    padded_counts = sample_counts(padded).tolist()
    assert padded_counts[0] == expected[0]
    assert padded_counts[1] == expected[1]


def test_ranks_are_added_up_and_the_use_of_devices_is_averaged(run, model, monkeypatch):
    batch = collate_packed(ROWS, 16, IMAGE_SIZE)
    run.micro_batch(batch, wait=1, work=3, step=1)
    both = Run(model, monkeypatch, world=2)
    both.micro_batch(batch, wait=1, work=3, step=1)
    # Three times the tokens in three times the seconds, on two ranks.
    per_second = run.logged["speed/tokens_per_second"]
    assert both.logged["speed/tokens_per_second"] == 2 * per_second
    assert both.logged["speed/samples_per_second"] == 2 * run.logged["speed/samples_per_second"]
    for name in ("tflops", "data_wait"):
        assert both.logged[f"speed/{name}"] == pytest.approx(run.logged[f"speed/{name}"])
    # Peaks, too, come three times, which is one and a half per rank.
    assert both.logged["speed/mfu"] == pytest.approx(run.logged["speed/mfu"] / 1.5)


def test_nothing_is_logged_or_asked_of_the_device_between_two_logged_steps(model, monkeypatch):
    """Tensors of the meta device have no values: whoever wants one fails."""
    run = Run(model, monkeypatch, every=2)
    packed = collate_packed(ROWS, 16, IMAGE_SIZE)
    far = {k: v.to("meta") for k, v in vars(packed).items() if isinstance(v, torch.Tensor)}
    for step in (0, 0, 1):  # accumulation; then step 1 of every 2
        run.micro_batch(replace(packed, **far), wait=0, work=1, step=step)
    assert not run.logged
    with pytest.raises(NotImplementedError, match="meta"):
        run.micro_batch(replace(packed, **far), wait=0, work=1, step=2)


def test_validation_and_saving_are_no_waiting(run):
    batch = collate_packed(ROWS, 16, IMAGE_SIZE)
    run.micro_batch(batch, wait=0, work=2, step=1)
    run.clock.now += 50
    run.meter.on_validation_end(run.trainer, run.module)
    run.micro_batch(batch, wait=1, work=3, step=2)
    assert run.logged["speed/data_wait"] == 1 / 4
    assert run.logged["speed/tokens_per_second"] == REAL / 4
    run.meter.on_save_checkpoint(run.trainer, run.module, {})
    run.micro_batch(batch, wait=12, work=4, step=3)
    assert run.logged["speed/data_wait"] == 0
    assert run.logged["speed/tokens_per_second"] == REAL / 16


def test_the_end_is_told_from_all_steps_but_the_slow_first(run):
    batch = collate_packed(ROWS, 16, IMAGE_SIZE)
    run.micro_batch(batch, wait=0, work=90, step=1)
    assert run.logged["speed/hours_left"] == 99 * 90 / 3600
    run.micro_batch(batch, wait=1, work=3, step=2)
    run.clock.now += 10
    run.meter.on_validation_end(run.trainer, run.module)
    run.micro_batch(batch, wait=1, work=5, step=3)
    assert run.logged["speed/hours_left"] == 97 * (4 + 10 + 6) / 2 / 3600


def test_no_end_is_told_where_there_is_none(model, monkeypatch):
    run = Run(model, monkeypatch, total=float("inf"))
    run.micro_batch(collate_packed(ROWS, 16, IMAGE_SIZE), wait=0, work=1, step=1)
    assert "speed/tflops" in run.logged
    assert "speed/hours_left" not in run.logged


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", "bfloat16"), ("16-mixed", "float16"), ("32-true", "float32")],
)
def test_the_peak_is_that_of_the_precision(model, monkeypatch, precision, dtype):
    run = Run(model, monkeypatch)
    asked = []
    monkeypatch.setattr(
        "lightning_llava.callbacks.meter.device_peak", lambda *given: asked.append(given)
    )
    run.trainer.precision = precision
    run.meter.on_train_start(run.trainer, run.module)
    assert asked == [(CPU, getattr(torch, dtype))]


def test_a_run_logs_all_of_it_and_knows_a_slow_loader(demo_world, tmp_path):
    class Slow(Callback):
        def on_train_batch_end(self, *_):  # stands for a loader: it is later than the meter
            time.sleep(0.2)

    trainer = make_trainer(tmp_path, 3, callbacks=[Meter(), Slow()])
    trainer.fit(make_module(demo_world), make_data(demo_world))
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("speed/")}
    assert metrics.keys() == {
        f"speed/{name}"
        for name in (
            *("tokens_per_second", "samples_per_second", "tflops", "mfu", "peak_memory_gb"),
            *("data_wait", "data_wait_seconds", "hours_left"),
        )
    }
    assert all(value > 0 for name, value in metrics.items() if name != "speed/hours_left")
    assert 0.2 <= metrics["speed/data_wait_seconds"] < 2
    assert metrics["speed/hours_left"] == 0
    assert metrics["speed/mfu"] < 1.5  # of a peak that other work on the machine may have lowered
