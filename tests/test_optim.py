"""Parameter groups, and the schedule against transformers' own."""

import bitsandbytes as bnb
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from transformers import get_scheduler

from lightning_llava import optim
from lightning_llava.errors import SettingError
from lightning_llava.models import quantization
from lightning_llava.models.activation_memory import moment_bytes
from lightning_llava.optim import StepSums, build_optimizer, build_schedule
from lightning_llava.specs import LearningRates, LoraSpec, OptimizerSpec
from runs import make_data, make_module, make_trainer, random_decoder
from tiny import build


def test_each_part_has_its_rate_and_biases_and_norms_no_decay(clip, mistral):
    rates = LearningRates(projector=2e-5, lora=2e-4, vision=1e-6)
    model = build(clip, mistral, LoraSpec(r=2, alpha=4), rates)
    groups = build_optimizer(model, rates, OptimizerSpec(weight_decay=0.1)).param_groups
    found = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert found == {
        "projector": (2e-5, 0.1),
        "projector_no_decay": (2e-5, 0.0),
        "lora": (2e-4, 0.1),
        "vision": (1e-6, 0.1),
        "vision_no_decay": (1e-6, 0.0),
    }
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_8_bit_adam_has_the_same_groups_and_takes_the_same_steps(clip, mistral):
    """Tensors below 4096 elements keep fp32 moments, so that their steps are torch's own."""
    rates, spec = LearningRates(projector=2e-3, lora=2e-4), {"weight_decay": 0.1}
    models = [build(clip, mistral, LoraSpec(r=2, alpha=4), rates) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [
        build_optimizer(model, rates, OptimizerSpec(name=name, **spec))
        for model, name in zip(models, ("adamw", "adamw_8bit"), strict=True)
    ]
    assert type(optimizers[1]) is bnb.optim.AdamW8bit
    keys = ("name", "lr", "weight_decay", "betas", "eps")
    groups = [[[g[key] for key in keys] for g in o.param_groups] for o in optimizers]
    assert groups[0] == groups[1]
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            torch.manual_seed(step)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    trained = [[p for p in model.parameters() if p.requires_grad] for model in models]
    assert max(p.numel() for p in trained[0]) < 4096
    for ours, theirs in zip(*trained, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize(("elements", "kind"), [(4095, torch.float32), (4096, torch.uint8)])
def test_the_moments_take_the_bytes_that_the_memory_estimate_says(elements, kind):
    parameter = torch.nn.Parameter(torch.zeros(elements))
    parameter.grad = torch.ones(elements)
    optimizer = bnb.optim.AdamW8bit([parameter])
    optimizer.step()
    state = optimizer.state[parameter]
    assert state["state1"].dtype == kind
    names = [name for name in state if name.startswith(("state", "absmax"))]
    assert sum(state[name].nbytes for name in names) == moment_bytes(parameter, "adamw_8bit")
    assert moment_bytes(parameter, "adamw") == 8 * elements


def test_scaled_losses_leave_loss_and_gradients_true_to_size(demo_world, tmp_path, monkeypatch):
    """As on a GPU without bf16, where torch's fused AdamW would unscale only in its step."""
    monkeypatch.setattr(optim, "_on_gpu", lambda model: True)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    found, decoder = [], random_decoder(demo_world, tmp_path / "decoder")
    for settings in ({}, {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}):
        trainer = make_trainer(tmp_path, max_steps=1, **settings)
        torch.manual_seed(0)
        module = make_module(demo_world, language=decoder)
        trainer.fit(module, make_data(demo_world, language=decoder, pack_tokens=300))
        metrics = trainer.callback_metrics
        found.append([float(metrics[f"learning/{name}"]) for name in ("loss", "grad_norm")])
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_8_bit_adam_without_bitsandbytes_is_refused(clip, mistral, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    rates = LearningRates(projector=2e-3, lora=None)
    with pytest.raises(
        SettingError, match=r"model\.optimizer\.name: adamw_8bit needs .* or set it to adamw"
    ):
        build_optimizer(build(clip, mistral), rates, OptimizerSpec(name="adamw_8bit"))


def test_a_run_in_which_nothing_trains_is_refused(clip, mistral):
    rates = LearningRates(projector=None, lora=None)
    with pytest.raises(SettingError, match=r"every entry of model\.learning_rate is null"):
        build_optimizer(build(clip, mistral, None, rates), rates, OptimizerSpec())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("cosine", "cosine"), ("linear", "linear"), ("constant", "constant_with_warmup")],
)
@pytest.mark.parametrize("total", [1, 2, 40, 101])
def test_the_schedule_is_that_of_transformers(ours, theirs, total):
    def rates(make):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
        scheduler, found = make(optimizer), []
        for _ in range(total):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    spec = OptimizerSpec(schedule=ours, warmup_ratio=0.03)
    warmup = {1: 1, 2: 1, 40: 2, 101: 4}[total]  # 3 %, rounded up
    assert rates(lambda optimizer: build_schedule(optimizer, spec, total)) == pytest.approx(
        rates(lambda optimizer: get_scheduler(theirs, optimizer, warmup, total))
    )


def test_a_step_adds_up_its_own_micro_batches_only():
    step = StepSums()
    for loss, supervised in ((1.5, 3), (2.25, 4), (0.5, 0)):
        step.add(torch.tensor(loss), torch.tensor(supervised))
    assert [float(total) for total in step.take(1)] == [4.25, 7]
    step.add(torch.tensor(0.25), torch.tensor(1))
    assert [float(total) for total in step.take(1)] == [0.25, 1]
