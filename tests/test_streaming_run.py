"""A run that reads shards one after another: what it logs, and what its checkpoint is worth."""

import json

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_llava.callbacks import Checkpoint, SampleLog
from lightning_llava.errors import SettingError
from runs import Losses, make_data, make_module, make_trainer


def run(world, folder, steps, ckpt_path=None, **settings):
    losses = Losses()
    trainer = make_trainer(
        folder,
        max_steps=steps,
        accumulate_grad_batches=2,
        callbacks=[losses, SampleLog(), Checkpoint(1, dirpath=str(folder))],
        enable_checkpointing=True,
        logger=TensorBoardLogger(folder, name="", version=0),
    )
    data = make_data(world, **{"mode": "streaming", "sample_log": True} | settings)
    torch.manual_seed(0)
    trainer.fit(make_module(world), data, ckpt_path=ckpt_path)
    return losses


def test_it_trains_and_goes_on_with_other_samples(demo_world, tmp_path):
    begun = run(demo_world, tmp_path, steps=2, num_workers=1)
    assert len(begun.samples) == 4
    resumed = run(demo_world, tmp_path, 4, ckpt_path=str(tmp_path / "step-000002.ckpt"))
    assert list(resumed.losses) == [3, 4]
    assert resumed.samples[0] not in begun.samples
    log = (tmp_path / "version_0/samples.rank0.jsonl").read_text(encoding="utf-8")
    logged = [json.loads(line) for line in log.splitlines()]
    assert [line["sample_ids"] for line in logged] == begun.samples + resumed.samples
    assert [line["step"] for line in logged] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {line["micro_batch"] for line in logged} == {None}


def test_what_a_resumed_run_does_again_is_logged_once(demo_world, tmp_path):
    begun = run(demo_world, tmp_path, steps=2)
    resumed = run(demo_world, tmp_path, 2, ckpt_path=str(tmp_path / "step-000001.ckpt"))
    log = (tmp_path / "version_0/samples.rank0.jsonl").read_text(encoding="utf-8")
    logged = [json.loads(line) for line in log.splitlines()]
    assert [line["sample_ids"] for line in logged] == begun.samples[:2] + resumed.samples


def test_it_cannot_become_a_planned_run(demo_world, tmp_path):
    run(demo_world, tmp_path, steps=1)
    with pytest.raises(SettingError, match=r"data\.mode is 'planned' .* has 'streaming'"):
        run(demo_world, tmp_path, 2, ckpt_path=str(tmp_path / "step-000001.ckpt"), mode="planned")


def test_its_end_must_be_said(demo_world, tmp_path):
    with pytest.raises(SettingError, match=r"no end of its own; set trainer\.max_steps"):
        run(demo_world, tmp_path, steps=-1)
