"""What small cards train with, an NF4 base and 8-bit Adam: a run of it, stopped and resumed."""

import pytest
import torch

from lightning_llava.callbacks import Checkpoint
from lightning_llava.errors import SettingError
from lightning_llava.specs import LoraSpec, OptimizerSpec
from runs import Losses, language, make_data, make_module, make_trainer

STEPS = 3


def run(world, folder, steps=STEPS, ckpt_path=None, quantization="nf4", optimizer="adamw_8bit"):
    losses = Losses()
    spec = language(world, quantization=quantization)
    module = make_module(
        world,
        language=spec,
        # 32 x 128 elements: what bitsandbytes keeps in 8 bits begins there.
        lora=LoraSpec(r=32, alpha=64, dropout=0.05),
        optimizer=OptimizerSpec(name=optimizer, schedule="constant", warmup_ratio=0.0),
    )
    trainer = make_trainer(
        folder,
        max_steps=steps,
        callbacks=[losses, Checkpoint(every_n_train_steps=1, keep=-1, dirpath=str(folder))],
        enable_checkpointing=True,
    )
    torch.manual_seed(0)
    trainer.fit(module, make_data(world, language=spec, pack_tokens=600), ckpt_path=ckpt_path)
    return losses.losses


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_resumed_run_is_the_uninterrupted_run_bit_by_bit(demo_world, tmp_path, quantization):
    whole = run(demo_world, tmp_path / "whole", quantization=quantization)
    assert list(whole) == [1, 2, 3]
    assert len(set(whole.values())) == 3
    torch.manual_seed(1234)
    first = str(tmp_path / "whole/step-000001.ckpt")
    resumed = run(demo_world, tmp_path / "resumed", ckpt_path=first, quantization=quantization)
    assert resumed == {step: whole[step] for step in (2, 3)}

    checkpoint = torch.load(first, weights_only=True)
    kept = {name.split(".")[1] for name in checkpoint["state_dict"]}
    assert kept == {"projector", "language"}
    assert all(".lora_" in n or ".projector." in n for n in checkpoint["state_dict"])
    assert {weight.dtype for weight in checkpoint["state_dict"].values()} == {torch.float32}
    states = checkpoint["optimizer_states"][0]["state"].values()
    moments = [state["__bnb_optimizer_quant_state__"]["state1"] for state in states]
    for moment in moments:
        assert moment.dtype == (torch.uint8 if moment.numel() >= 4096 else torch.float32)
    assert {moment.dtype for moment in moments} == {torch.uint8, torch.float32}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"quantization": None}, r"model\.language\.quantization is None but .* 'nf4'"),
        ({"optimizer": "adamw"}, r"model\.optimizer\.name is 'adamw' but .* 'adamw_8bit'"),
    ],
)
def test_resuming_on_another_base_or_optimizer_is_refused(demo_world, tmp_path, changed, message):
    run(demo_world, tmp_path, steps=1)
    with pytest.raises(SettingError, match=message + r".*model\.init_from"):
        run(demo_world, tmp_path, ckpt_path=str(tmp_path / "step-000001.ckpt"), **changed)
