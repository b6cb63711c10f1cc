"""What a training step takes of a GPU, part by part: computed from configs, before anything loads.

The sum is that of `activation_checkpointing: auto`: weights, gradients and Adam of parts on the
meta device; what one decoder layer keeps, counted on a real one on the CPU with few tokens.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from lightning_llava.models.activation_memory import (
    GRADIENT_BYTES,
    counted_saved_bytes,
    logit_bytes,
    measure_layer,
    moment_bytes,
)
from lightning_llava.models.activations import INTERVALS, Demand, LayerBytes, Policy, needed_bytes
from lightning_llava.models.build import named_parts, set_trainable
from lightning_llava.models.lora import add_lora, lora_targets
from lightning_llava.models.precision import drop_adapter_casts, frozen_type
from lightning_llava.models.projector import build_projector
from lightning_llava.models.quantization import quantized_bytes
from lightning_llava.models.tiles import build_newline
from lightning_llava.models.vision import VisionTower
from lightning_llava.specs import (
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerName,
    ProjectorSpec,
    VisionSpec,
)

FEW, MANY = 32, 64
"""Tokens that are run; what a pack keeps is on the line through both."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class StepSettings:
    """The settings that decide what a step takes."""

    vision: VisionSpec
    projector: ProjectorSpec
    language: LanguageSpec
    lora: LoraSpec | None
    learning_rate: LearningRates
    optimizer: OptimizerName
    pack_tokens: int
    compute: torch.dtype
    """Type that matrices are multiplied in."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes at the peak of a step."""

    fixed: dict[str, int]
    """By part, whatever is recomputed."""
    activations: dict[Policy, int]
    """What the decoder layers keep, by policy."""

    def total(self, policy: Policy) -> int:
        """Return the peak under a policy."""
        return sum(self.fixed.values()) + self.activations[policy]


def step_memory(
    vision: PretrainedConfig, language: PretrainedConfig, settings: StepSettings
) -> StepMemory:
    """Add up the peak of a training step.

    Args:
        vision: config of the tower.
        language: config of the LLM.
        settings: of the run.
    """
    tokens, quantization = settings.pack_tokens, settings.language.quantization
    with torch.device("meta"):
        model, linears = _parts(vision, language, settings)
    fixed = fixed_bytes(model, settings.optimizer)
    if quantization is not None:
        saved = sum(
            linear.weight.nbytes - quantized_bytes(linear, quantization) for linear in linears
        )
        fixed["LLM"] -= int(saved)
        largest = max(linear.weight.numel() for linear in linears)
        fixed["one layer unpacked"] = largest * settings.compute.itemsize
    text = language.get_text_config()
    fixed["projector"] = _line(lambda n: _projector_kept(model, settings, n), tokens)
    fixed["logits"] = logit_bytes(tokens, text.vocab_size)
    layer = layer_bytes(language, settings)
    demand = Demand(free=0, static=0, logits=0, layers=text.num_hidden_layers, tokens=tokens)
    activations: dict[Policy, int] = {
        policy: needed_bytes(policy, layer, demand) for policy in INTERVALS
    }
    return StepMemory(fixed, activations)


def fixed_bytes(model: nn.Module, optimizer: OptimizerName) -> dict[str, int]:
    """Split what `static_bytes` adds up: weights by part, gradients, Adam's moments."""
    found: dict[str, int] = {"LLM": 0, "tower": 0, "trained": 0, "gradients": 0, "Adam": 0}
    for part, _, parameter in named_parts(model):
        frozen = "tower" if part == "vision" else "LLM"
        found["trained" if parameter.requires_grad else frozen] += parameter.nbytes
        if parameter.requires_grad:
            found["gradients"] += parameter.numel() * GRADIENT_BYTES
            found["Adam"] += moment_bytes(parameter, optimizer)
    return found


def layer_bytes(config: PretrainedConfig, settings: StepSettings) -> LayerBytes:
    """Count what a decoder layer keeps with a whole pack in it, as a GPU would keep it."""
    language = _one_layer(config, settings)
    measured = [measure_layer(language, n, CPU, settings.compute) for n in (FEW, MANY)]
    kept, recomputed = (
        _extrapolate([getattr(one, name) for one in measured], settings.pack_tokens)
        for name in ("kept", "recomputed")
    )
    return LayerBytes(kept - _wide_masks(language, settings) * settings.pack_tokens, recomputed)


def _parts(
    vision: PretrainedConfig, language: PretrainedConfig, settings: StepSettings
) -> tuple[nn.Module, list[nn.Linear]]:
    """Compose the parts, and list the layers that quantization is for."""
    base = frozen_type(settings.compute)
    encoder = AutoModel.from_config(vision, dtype=base)
    tower = VisionTower(encoder, settings.vision, [0.5] * 3, [0.5] * 3)
    decoder = AutoModelForCausalLM.from_config(language, dtype=base)
    linears: Any = [decoder.get_submodule(name) for name in lora_targets(decoder)]
    if settings.lora is not None:
        add_lora(decoder, settings.lora)
    width: Any = decoder.get_input_embeddings().weight.shape[1]
    projector = build_projector(settings.projector.type, tower.width, width)
    parts = {"vision_tower": tower, "projector": projector, "language": decoder}
    model = nn.ModuleDict(parts)
    model.register_parameter("image_newline", build_newline(tower.geometry.tiling, width))
    set_trainable(model, settings.learning_rate)
    return model, linears


def _one_layer(config: PretrainedConfig, settings: StepSettings) -> PreTrainedModel:
    """Make a decoder of one layer with whatever numbers, for they do not change what is kept."""
    config = deepcopy(config)
    text: Any = config.get_text_config()
    text.num_hidden_layers, text.vocab_size, text.pad_token_id = 1, 8, None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    if getattr(text, "attn_logit_softcapping", None):
        text.attn_logit_softcapping = None  # flash-attn caps scores, and keeps nothing for it
    with torch.device("meta"):
        language = AutoModelForCausalLM.from_config(config, dtype=frozen_type(settings.compute))
        if settings.lora is not None:
            add_lora(language, settings.lora)
        set_trainable(nn.ModuleDict({"language": language}), settings.learning_rate)
    language.to_empty(device=CPU)
    language.set_attn_implementation("segments")
    if settings.compute != torch.float32:
        drop_adapter_casts(language)
    return language


def _wide_masks(language: nn.Module, settings: StepSettings) -> int:
    """Count, per token, what a CPU keeps of dropout and a GPU does not.

    A CPU keeps the mask in the type of the input, a GPU one byte each.
    """
    if settings.lora is None or settings.lora.dropout == 0:
        return 0
    inputs = sum(
        module.in_features
        for name, module in language.named_modules()
        if isinstance(module, nn.Linear) and ".lora_A." in name
    )
    return inputs * (settings.compute.itemsize - 1)


def _projector_kept(model: Any, settings: StepSettings, tokens: int) -> int:
    """Count what the projector keeps of so many image features."""
    projector = deepcopy(model["projector"]).to_empty(device=CPU)
    features = torch.zeros(tokens, model["vision_tower"].width)
    autocast = settings.compute != torch.float32
    with (
        torch.autocast("cpu", settings.compute, enabled=autocast),
        counted_saved_bytes(projector) as count,
    ):
        projector(features)
    return count.total


def _line(measure: Callable[[int], int], tokens: int) -> int:
    return _extrapolate([measure(n) for n in (FEW, MANY)], tokens)


def _extrapolate(measured: list[int], tokens: int) -> int:
    few, many = measured
    return few + (many - few) * (tokens - FEW) // (MANY - FEW)
