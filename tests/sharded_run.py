"""Four steps in this process or, under FSDP2, in two; for `test_strategies.py`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.distributed.tensor import DTensor

from lightning_llava.callbacks import Checkpoint
from lightning_llava.specs import (
    BenchmarkSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    SourceSpec,
    VisionSpec,
)
from runs import Losses, language, make_data, make_module, make_trainer

STEPS, MICRO_BATCHES = 4, 4
DECODER = "decoder"
LORA = {"lora": LoraSpec(r=8, alpha=16, dropout=0.05)}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Settings of the module, settings of the trainer.
    "lora": (LORA, {}),
    "lora_bf16": (LORA | {"activation_checkpointing": "every_2"}, {"precision": "bf16-mixed"}),
    "tiles": (LORA, {}),
    "align": ({"lora": None, "learning_rate": LearningRates(projector=2e-3, lora=None)}, {}),
    "full": (
        {
            "lora": None,
            "learning_rate": LearningRates(projector=2e-3, lora=None, language=1e-3, vision=1e-3),
            "activation_checkpointing": "full",
        },
        {"gradient_clip_val": 0.05},
    ),
}
SHARDED = {"strategy": "fsdp2", "devices": 2, "plugins": [LightningEnvironment()]}


def take_steps(
    world: Path, folder: Path, case: str, resume: Path | None = None, **settings: Any
) -> None:
    """Train, save every second step, validate at the end; leave losses, answers and sizes.

    The decoder lies beside the folder, as `random_decoder` writes it.
    """
    ranks, losses = settings.get("devices", 1), Losses()
    module_settings, trainer_settings = CASES[case]
    vision = VisionSpec(name=str(world / "mini_clip"), any_resolution=case == "tiles")
    decoder = language(folder.parent, DECODER)
    if "bf16" in case:  # a trained one: what a random one answers is up to a rounding
        decoder = language(world, template="saiga_mistral")
    trainer = make_trainer(
        folder,
        max_steps=STEPS,
        accumulate_grad_batches=MICRO_BATCHES // ranks,
        callbacks=[losses, Checkpoint(2, keep=-1, dirpath=str(folder))],
        enable_checkpointing=True,
        limit_val_batches=1.0,
        val_check_interval=STEPS * MICRO_BATCHES // ranks,
        **settings | trainer_settings,
    )
    files = {"random": str(world / "pope/en/demo_pope_random.json")}
    data = make_data(
        world,
        sources={n: SourceSpec(str(world / f"train/{n}-en-*.tar")) for n in ("regions", "ocr")},
        vision=vision,
        language=decoder,
        pack_tokens=900 if case == "tiles" else 300,
        # One rank has three batches to answer, the other two.
        eval_batch_size=2,
        benchmarks={"pope": BenchmarkSpec(files=files, images=str(world / "images"), subset=9)},
    )
    optimizer = OptimizerSpec(warmup_ratio=0.0)
    module = make_module(
        world, vision=vision, language=decoder, optimizer=optimizer, **module_settings
    )
    torch.manual_seed(0)
    trainer.fit(module, data, ckpt_path=resume)
    parameters = module.llava.state_dict().values()
    here = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters)
    if trainer.is_global_zero:
        found = {
            "losses": {str(step): loss for step, loss in losses.losses.items()},
            "answers": sorted((asdict(row) for row in module.rows), key=str),
            "share": here / sum(p.numel() for p in parameters),
        }
        (folder / "found.json").write_text(json.dumps(found, default=str), encoding="utf-8")


if __name__ == "__main__":
    world, folder, case, *resume = sys.argv[1:]
    take_steps(Path(world), Path(folder), case, *map(Path, resume), **SHARDED)
