"""Strategies: FSDP2 on two processes is one process, and what would be wrong is refused."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

import sharded_run
from lightning_llava.errors import SettingError
from lightning_llava.strategies import (
    FullyShardedStrategy,
    check_strategy,
    check_strategy_setting,
)
from runs import command_line, make_trainer, random_decoder
from sharded_run import CASES, DECODER, take_steps

ROUNDING = 2e-5
"""Of fp32 sums in another order, after four steps."""


@pytest.fixture
def decoder(demo_world, tmp_path):
    """Where the runs look for it."""
    return random_decoder(demo_world, tmp_path / DECODER)


def on_two_ranks(world, folder, case, *resume):
    command = [sys.executable, "-W", "ignore", sharded_run.__file__, world, folder, case, *resume]
    subprocess.run(list(map(str, command)), check=True, timeout=300, capture_output=True)
    return result(folder)


def result(folder):
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def checkpoint(folder, step=4):
    return torch.load(folder / f"step-{step:06d}.ckpt", weights_only=True)


def assert_same_training(found: Path, expected: Path, tolerance: float) -> None:
    """Compare losses, answers, and the checkpoint of the last step: weights and moments."""
    one, two = result(expected), result(found)
    assert two["losses"] == pytest.approx(one["losses"], rel=tolerance)
    saved, wanted = checkpoint(found), checkpoint(expected)
    assert list(saved["state_dict"]) == list(wanted["state_dict"])
    for name, weight in wanted["state_dict"].items():
        torch.testing.assert_close(saved["state_dict"][name], weight, atol=tolerance, rtol=0.0)
    (moments,), (wanted_moments,) = saved["optimizer_states"], wanted["optimizer_states"]
    assert moments["param_groups"] == wanted_moments["param_groups"]
    torch.testing.assert_close(
        moments["state"], wanted_moments["state"], atol=tolerance, rtol=tolerance
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("decoder")
@pytest.mark.filterwarnings("ignore:`Trainer.*limit_val_batches")
def test_two_sharded_ranks_train_and_answer_as_one_process(demo_world, tmp_path, case):
    one, two = tmp_path / "one", tmp_path / "two"
    take_steps(demo_world, one, case)
    found = on_two_ranks(demo_world, two, case)
    # In bf16 a last digit of a weight decides how an activation is rounded.
    assert_same_training(two, one, tolerance=1e-3 if "bf16" in case else ROUNDING)
    assert found["answers"] == result(one)["answers"]
    assert len(found["answers"]) == 9
    assert 0.45 < found["share"] < 0.55, "each rank holds its half"


@pytest.mark.slow
@pytest.mark.usefixtures("decoder")
def test_checkpoints_go_from_any_number_of_ranks_to_any(demo_world, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    take_steps(demo_world, one, "lora")
    whole = on_two_ranks(demo_world, two, "lora")
    resumed = on_two_ranks(demo_world, tmp_path / "again", "lora", two / "step-000002.ckpt")
    assert resumed["losses"] == {step: whole["losses"][step] for step in ("3", "4")}
    assert resumed["answers"] == whole["answers"]
    for name, weight in checkpoint(two)["state_dict"].items():
        assert torch.equal(checkpoint(tmp_path / "again")["state_dict"][name], weight), name
    take_steps(demo_world, tmp_path / "alone", "lora", two / "step-000002.ckpt")
    on_two_ranks(demo_world, tmp_path / "joined", "lora", one / "step-000002.ckpt")
    for name in ("alone", "joined"):
        assert list(result(tmp_path / name)["losses"]) == ["3", "4"]
        assert_same_training(tmp_path / name, tmp_path / "again", tolerance=ROUNDING)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("deepspeed_stage_2", "DeepSpeedStrategy is refused: .*gradients to itself.* set ddp, or"),
        ("fsdp", "FSDPStrategy is refused: FSDP1"),
        ("ddp_spawn", "DDPStrategy is refused: start_method spawn"),
        ("xla", "XLAStrategy is refused: nobody has tested it"),
        (
            {"class_path": "lightning.pytorch.strategies.ModelParallelStrategy", "init_args": {}},
            "ModelParallelStrategy is refused: .*frozen base",
        ),
    ],
)
def test_strategies_that_would_be_wrong_are_refused(strategy, message):
    with pytest.raises(SettingError, match=rf"trainer\.strategy: {message}"):
        check_strategy_setting(strategy)


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp2"])
def test_strategies_that_are_right_pass(strategy):
    check_strategy_setting(strategy)


def test_the_command_line_refuses_before_it_asks_for_packages(demo_world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command_line(
            *("fit", "-c", Path(__file__).parents[1] / "configs/demo.yaml"),
            *("--trainer.strategy", "deepspeed", "--trainer.default_root_dir", tmp_path),
        )
    assert "error: trainer.strategy: DeepSpeedStrategy is refused" in capsys.readouterr().err


PLAIN = {
    "activation_checkpointing": "none",
    "language": {"quantization": None},
    "optimizer": {"name": "adamw"},
    "compile": "none",
}


@pytest.mark.parametrize(
    ("strategy", "model", "message"),
    [
        (DDPStrategy(start_method="spawn"), {}, "start_method spawn"),
        (DDPStrategy(ddp_comm_hook=print), {}, "ddp_comm_hook"),
        (ModelParallelStrategy(), {}, "ModelParallelStrategy is refused"),
        (
            FullyShardedStrategy(),
            {"activation_checkpointing": "auto"},
            r"model\.activation_checkpointing: auto",
        ),
        (
            FullyShardedStrategy(),
            {"language": {"quantization": "nf4"}},
            r"model\.language\.quantization is nf4.* set model\.language\.quantization: null",
        ),
        (
            FullyShardedStrategy(),
            {"optimizer": {"name": "adamw_8bit"}},
            r"model\.optimizer\.name is adamw_8bit.* set model\.optimizer\.name: adamw",
        ),
        (FullyShardedStrategy(), {"compile": "layers"}, r"model\.compile is layers"),
    ],
)
def test_objects_that_would_be_wrong_are_refused(tmp_path, strategy, model, message):
    trainer = make_trainer(tmp_path, max_steps=1, devices=2, strategy=strategy)
    with pytest.raises(SettingError, match=message):
        check_strategy(trainer, PLAIN | model)


def test_loss_scaling_is_refused_on_shards():
    trainer = SimpleNamespace(strategy=FullyShardedStrategy(), precision="16-mixed")
    with pytest.raises(SettingError, match=r"trainer\.precision is 16-mixed.* set bf16-mixed"):
        check_strategy(trainer, PLAIN)
