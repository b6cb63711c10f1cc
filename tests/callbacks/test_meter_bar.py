"""What of the meter the progress bar shows, and that one line of a terminal holds it."""

import io
import re
from types import SimpleNamespace

import pytest
import rich
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_llava.callbacks.meter import Meter
from lightning_llava.callbacks.progress import Progress
from runs import make_data, make_module, make_trainer

LARGE = {
    "learning/loss": 12.3456,
    "speed/tokens_per_second": 98_765.4,
    "speed/mfu": 0.583,
    "speed/data_wait": 0.021,
    "speed/hours_left": 99.7,
    "learning/lr/projector": 2e-5,
    "learning/lr/lora": 2e-4,
}


@pytest.fixture
def terminal():
    """Make bars for a terminal of some columns; what they draw is in `drawn`."""
    console, drawn = rich.get_console(), io.StringIO()
    before = dict(vars(console))

    def make(width):
        bar = Progress()
        size = {"width": width, "height": 25}
        bar._console_kwargs = {"file": drawn, "force_terminal": True, "color_system": None} | size
        return bar

    yield make, drawn
    vars(console).clear()
    vars(console).update(before)


def lines(drawn):
    """Split at line ends and where the bar is drawn anew; drop the codes that move the cursor."""
    found = re.split(r"[\r\n]", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", drawn.getvalue()))
    return [line.rstrip() for line in found if line.strip()]


def draw(bar, metrics, done, total):
    trainer = SimpleNamespace(
        num_training_batches=total,
        max_epochs=1,
        max_steps=-1,
        current_epoch=0,
        global_step=done,
        log_every_n_steps=1,
        progress_bar_metrics=metrics,
        loggers=[],
        state=SimpleNamespace(fn="fit"),
        training=True,
        sanity_checking=False,
        progress_bar_callback=bar,
    )
    bar._trainer = trainer
    bar.on_train_start(trainer, None)
    bar.on_train_epoch_start(trainer, None)
    bar.on_train_batch_end(trainer, SimpleNamespace(trainer=trainer), None, None, done - 1)
    bar.teardown(trainer, None, "fit")


def test_80_columns_hold_large_numbers_in_one_line(terminal):
    make, drawn = terminal
    draw(make(80), LARGE, 62_399, 62_400)
    last = lines(drawn)[-1]
    assert len(last) <= 80
    start, numbers = last.split(" ", 1)
    assert start == "train"
    assert numbers.endswith(
        "62399/62400 loss: 12.346 tokens/s: 98.8k mfu: 58% wait: 2% left: 99.7h"
    )


def test_a_wide_terminal_shows_the_learning_rates_too(terminal):
    make, drawn = terminal
    draw(make(120), LARGE, 8, 300)
    assert lines(drawn)[-1].endswith("left: 99.7h lr: 2e-05 2e-04")


@pytest.mark.parametrize(
    ("hours", "text"), [(9.71, "9.7h"), (0.5, "30min"), (0.011, "40s"), (0.0, "0s")]
)
def test_the_time_left_is_in_hours_minutes_or_seconds(terminal, hours, text):
    make, drawn = terminal
    draw(make(80), LARGE | {"speed/hours_left": hours}, 8, 300)
    assert lines(drawn)[-1].endswith(f"left: {text}")


def test_streaming_shows_where_the_run_ends(terminal, demo_world, tmp_path):
    make, drawn = terminal
    trainer = make_trainer(
        tmp_path,
        max_steps=2,
        accumulate_grad_batches=2,
        enable_progress_bar=True,
        callbacks=[Meter(), make(80)],
    )
    trainer.fit(make_module(demo_world), make_data(demo_world, mode="streaming"))
    shown = lines(drawn)
    assert all(len(line) <= 80 for line in shown)
    assert re.fullmatch(
        r"train .*4/4 loss: [\d.]+ tokens/s: [\d.,]+k? mfu: \d+% wait: \d+% left: 0s", shown[-1]
    )


@pytest.mark.parametrize("what", ["validate", "test"])
@pytest.mark.parametrize(("every", "shown"), [(0.0, [1, 2, 3]), (3600.0, [])])
def test_without_a_terminal_questions_write_a_line_now_and_then(
    what, every, shown, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("lightning_llava.callbacks.progress.LOG_EVERY_S", every)
    trainer = make_trainer(
        tmp_path,
        max_steps=1,
        limit_val_batches=3,
        limit_test_batches=3,
        enable_progress_bar=True,
        callbacks=[Progress()],
    )
    getattr(trainer, what)(BoringModel(), verbose=False)
    written = re.findall(r"^check: .*$", capsys.readouterr().err, re.MULTILINE)
    assert written == [f"check: {n} of 3 batches of questions" for n in shown]
