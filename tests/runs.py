"""Runs on the embedded world: module, data and trainer with few words."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning import Callback, Trainer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightning_llava.batch import Batch
from lightning_llava.cli import main
from lightning_llava.datamodule import ShardDataModule
from lightning_llava.module import LlavaModule
from lightning_llava.specs import (
    GenerationSpec,
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    ProjectorSpec,
    SourceSpec,
    VisionSpec,
)


def lay_out_checkout(world: Path, folder: Path) -> None:
    """Copy the configs and a small world into a folder, as a user's checkout has them."""
    shutil.copytree(Path(__file__).parents[1] / "configs", folder / "configs")
    demo, scenes = folder / "configs/demo.yaml", "train_scenes: 40, validation_scenes: 8"
    settings = demo.read_text().replace("{folder: data/demo}", f"{{folder: data/demo, {scenes}}}")
    demo.write_text(settings)
    shutil.copytree(world, folder / "data/demo")


def language(world: Path, name: str = "mini_saiga", **settings: Any) -> LanguageSpec:
    settings = {"template": "mistral_instruct", "max_length": 512} | settings
    return LanguageSpec(name=str(world / name), **settings)


def random_decoder(world: Path, folder: Path, spread: float = 0.1) -> LanguageSpec:
    """The mini decoder with random weights.

    A trained one is hard to talk out of what it knows, and its sharp attention makes ten times more
    of a rounding.
    """
    config = AutoConfig.from_pretrained(world / "mini_saiga", initializer_range=spread)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(world / "mini_saiga").save_pretrained(folder)
    return language(folder.parent, folder.name)


def make_module(world: Path, **settings: Any) -> LlavaModule:
    defaults = {
        "vision": VisionSpec(name=str(world / "mini_clip")),
        "projector": ProjectorSpec(),
        "language": language(world),
        "learning_rate": LearningRates(projector=2e-3, lora=2e-3),
        "optimizer": OptimizerSpec(),
        "generation": GenerationSpec(max_new_tokens=4),
        "lora": LoraSpec(r=8, alpha=16, dropout=0.05),
    }
    return LlavaModule(**defaults | settings)


def make_data(world: Path, shards: str | Path = "train/*.tar", **settings: Any) -> ShardDataModule:
    defaults = {
        "language": language(world),
        "vision": VisionSpec(name=str(world / "mini_clip")),
        "sources": {"demo": SourceSpec(shards=str(world / shards))},
        "pack_tokens": 768,
        "num_workers": 0,
    }
    return ShardDataModule(**defaults | settings)


def make_trainer(folder: Path, max_steps: int, **settings: Any) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "max_steps": max_steps,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": folder,
    }
    return Trainer(**defaults | settings)


class Losses(Callback):
    """Remember the loss of every optimizer step and the samples of every micro-batch."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.samples: list[list[str]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.samples.append(batch.sample_ids)
        if (loss := trainer.callback_metrics.get("learning/loss")) is not None:
            self.losses[trainer.global_step] = float(loss)


@torch.no_grad()
def mean_loss(module: LlavaModule, batch: Batch) -> float:
    result = module.llava.eval()(batch)
    return float(result.loss / result.supervised)


def command_line(*arguments: object) -> None:
    """Run `python -m lightning_llava` with these arguments, inside this process."""
    with patch("sys.argv", ["lightning_llava", *map(str, arguments)]):
        main()
