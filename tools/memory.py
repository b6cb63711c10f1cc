"""What a run would take of a GPU, before anything loads: `python tools/memory.py --help`."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Column, Table
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from lightning_llava.cli import LlavaCLI
from lightning_llava.errors import explains_wrong_input
from lightning_llava.geometry import load_vision_config
from lightning_llava.models.activations import INTERVALS, MARGIN
from lightning_llava.models.language import load_language_config
from lightning_llava.models.memory import StepMemory, StepSettings, step_memory
from lightning_llava.models.precision import compute_type
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec

USAGE = """\
usage: python tools/memory.py -c FILE [-c FILE ...] [--any.setting VALUE ...]

Compute the peak memory of a training step on one GPU, in GB of 10^9 bytes, for every
model.activation_checkpointing. It takes what `python -m lightning_llava fit` takes. Names of
configs/model need neither hub nor weights; a folder needs its config.json alone.
"""

_LLAMA: dict[str, Any] = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_MISTRAL = MistralConfig(**_LLAMA, intermediate_size=14336, num_key_value_heads=8, vocab_size=32000)
_LLAMA_7B = LlamaConfig(**_LLAMA, intermediate_size=11008, vocab_size=32000)
_DINO: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 518,
    "patch_size": 14,
    "picture_size": 224,  # what its processor makes
}
_PHI: dict[str, Any] = {
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "intermediate_size": 8192,
}
SHAPES: dict[str, PretrainedConfig] = {
    "openai/clip-vit-large-patch14-336": CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ),
    "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL,
    "IlyaGusev/saiga_mistral_7b_merged": _MISTRAL,
    "lmsys/vicuna-7b-v1.5": _LLAMA_7B,
    "meta-llama/Llama-2-7b-chat-hf": _LLAMA_7B,
    "lmsys/vicuna-13b-v1.5": LlamaConfig(
        hidden_size=5120,
        num_hidden_layers=40,
        num_attention_heads=40,
        intermediate_size=13824,
        vocab_size=32000,
    ),
    "IlyaGusev/saiga_llama3_8b": LlamaConfig(
        **_LLAMA, intermediate_size=14336, num_key_value_heads=8, vocab_size=128256
    ),
    "Qwen/Qwen2.5-7B-Instruct": Qwen2Config(
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
    ),
    "Qwen/Qwen3-8B": Qwen3Config(
        hidden_size=4096,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=12288,
        vocab_size=151936,
    ),
    "google/gemma-1.1-7b-it": GemmaConfig(),
    "google/gemma-2-9b-it": Gemma2Config(
        hidden_size=3584,
        num_hidden_layers=42,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        intermediate_size=14336,
        vocab_size=256000,
    ),
    "google/gemma-3-4b-it": Gemma3TextConfig(
        hidden_size=2560,
        num_hidden_layers=34,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        intermediate_size=10240,
        vocab_size=262208,
        sliding_window=1024,
    ),
    "microsoft/Phi-3.5-mini-instruct": Phi3Config(
        **_PHI, num_attention_heads=32, num_key_value_heads=32, vocab_size=32064
    ),
    "microsoft/Phi-4-mini-instruct": Phi3Config(
        **_PHI,
        num_attention_heads=24,
        num_key_value_heads=8,
        vocab_size=200064,
        tie_word_embeddings=True,
    ),
    **dict.fromkeys(
        ("google/siglip-so400m-patch14-384", "google/siglip2-so400m-patch14-384"),
        SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        ),
    ),
    "facebook/dinov2-large": Dinov2Config(**_DINO),
}
"""Shapes of the parts that configs/model names, as their config.json files have them."""


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong setting."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"-h", "--help"} & set(given):
        print(USAGE, end="")
        return 0
    settings = _parse(given)
    step = step_settings(settings)
    memory = step_memory(_vision_config(step.vision), _language_config(step.language), step)
    chosen = settings["model"]["activation_checkpointing"]
    Console(width=None if sys.stdout.isatty() else 140).print(memory_table(memory, chosen, step))
    return 0


def step_settings(settings: dict[str, Any]) -> StepSettings:
    """Take from a run's settings what decides its memory.

    Raises:
        SettingError: a precision that `fit` refuses.
    """
    model, precision = settings["model"], str(settings["trainer"]["precision"] or "32-true")
    return StepSettings(
        vision=VisionSpec(**model["vision"]),
        projector=ProjectorSpec(**model["projector"]),
        language=LanguageSpec(**model["language"]),
        lora=model["lora"] and LoraSpec(**model["lora"]),
        learning_rate=LearningRates(**model["learning_rate"]),
        optimizer=model["optimizer"]["name"],
        pack_tokens=settings["data"]["pack_tokens"],
        compute=compute_type(precision),
    )


def memory_table(memory: StepMemory, chosen: str, step: StepSettings) -> Table:
    """Lay out GB by part, a row a policy; the configured one is marked."""
    names = [*memory.fixed, "layers", "peak", "with margin"]
    heads = [Column(textwrap.fill(name, 9), justify="right") for name in names]
    table = Table(
        "recomputed",
        *heads,
        title=f"GB of a step with a pack of {step.pack_tokens} tokens, computed and not measured",
        caption=f"*: as configured; with margin: peak / {1 - MARGIN:.2f}, for fragments and "
        "workspaces; the CUDA context, about 0.5 GB, comes on top; logits: with every token "
        "supervised",
    )
    for policy in INTERVALS:
        numbers = [*memory.fixed.values(), memory.activations[policy], memory.total(policy)]
        cells = [f"{n / 1e9:.2f}" for n in (*numbers, memory.total(policy) / (1 - MARGIN))]
        table.add_row(f"{policy} *" if policy == chosen else policy, *cells)
    return table


class _ParseOnly(LlavaCLI):
    def _set_seed(self) -> None: ...

    def before_instantiate_classes(self) -> None:
        """Check nothing: no folder is made and no checkpoint is read."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None: ...


def _parse(arguments: list[str]) -> dict[str, Any]:
    with patch.object(sys, "argv", [sys.argv[0], "fit", *arguments]):
        return _ParseOnly().config["fit"].as_dict()


def _vision_config(spec: VisionSpec) -> PretrainedConfig:
    if spec.name in SHAPES and not Path(spec.name).is_dir():
        return SHAPES[spec.name]
    return load_vision_config(spec)


def _language_config(spec: LanguageSpec) -> PretrainedConfig:
    if spec.name in SHAPES and not Path(spec.name).is_dir():
        return SHAPES[spec.name]
    return load_language_config(spec)


if __name__ == "__main__":
    sys.exit(main())
