"""Parameter groups, and the schedule against transformers' own."""

import pytest
import torch
from transformers import get_scheduler

from lightning_llava.errors import SettingError
from lightning_llava.optim import build_optimizer, build_schedule
from lightning_llava.specs import LearningRates, LoraSpec, OptimizerSpec
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
