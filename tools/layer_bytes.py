"""Bytes that a decoder layer of Mistral-7B keeps for its backward pass, per token."""

from dataclasses import dataclass
from typing import Any

import torch
from measuring import with_peft
from rich.table import Column, Table
from torch import nn
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedModel

from lightning_llava.models.activation_memory import counted_saved_bytes
from lightning_llava.models.activations import apply_policy, decoder_layers
from lightning_llava.models.compilation import uncompiled
from lightning_llava.models.packed_attention import packed_arguments
from lightning_llava.models.precision import drop_adapter_casts

TOKENS = (32, 64)
"""The difference between them is what a token costs; copies of weights cancel out."""
DROPOUT = 0.05
BACKEND = "aot_eager_decomp_partition"
"""What inductor keeps and recomputes, without its kernels, which count for nothing here."""
HEAD_SIZE = 128
REFERENCE = {
    "peft's defaults": 382,
    "input casts dropped": 306,
    "and no dropout": 198,
    "and recomputed": 8,
}
"""KiB that were measured elsewhere on this shape, at rank 128."""


@dataclass(frozen=True)
class LayerSettings:
    """Shape of the layer: at a width of 4096, Mistral-7B's (14336 in the MLP, 32 and 8 heads)."""

    width: int = 4096
    rank: int = 128


def layer_bytes(settings: LayerSettings, compiled: bool = True) -> dict[str, float]:
    """Count what a layer keeps per token, each row with what the rows before it have.

    The last row is not compiled: a layer that is recomputed keeps its input either way.

    Args:
        settings: shape of the layer.
        compiled: count that row too, which takes most of the time.
    """
    language = _one_layer(settings)
    found = {"peft's defaults": _slope(language)}
    drop_adapter_casts(language)
    found["input casts dropped"] = _slope(language)
    for module in language.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.ModuleDict) and "default" in module:
            part = module["default"]
            if isinstance(part, nn.Dropout):
                module["default"] = nn.Identity()  # as peft builds it at 0
    found["and no dropout"] = _slope(language)
    if compiled:
        language.set_attn_implementation("sdpa")
        for layer in decoder_layers(language):
            layer.compile(backend=BACKEND, dynamic=True)
        found["and compiled"] = _slope(language)
        language.set_attn_implementation("segments")
    apply_policy(language, "full")
    with uncompiled():
        found["and recomputed"] = _slope(language)
    return found


def bytes_table(settings: LayerSettings, found: dict[str, float]) -> Table:
    """Lay out what `layer_bytes` found, beside the reference."""
    table = Table(
        "",
        Column("KiB", justify="right"),
        Column("reference", justify="right"),
        title=f"kept for the backward pass, per layer and token: hidden {settings.width}, "
        f"LoRA rank {settings.rank}, dropout {DROPOUT}",
        caption="counted on the CPU: frozen base in bf16, adapters in fp32, bf16 autocast, "
        f"segments attention (compiled: sdpa), one layer, {TOKENS[1]} less {TOKENS[0]} tokens; "
        "the rotation's tables, which all layers share, are in; a CPU keeps dropout's mask in the "
        "type of its input, a GPU in one byte; reference: at width 4096, rank 128",
    )
    for name, value in found.items():
        table.add_row(name, f"{value / 1024:.1f}", str(REFERENCE.get(name, "")))
    return table


def _one_layer(settings: LayerSettings) -> PreTrainedModel:
    """Build a decoder of one layer with adapters as peft makes them, and without its last norm."""
    heads = settings.width // HEAD_SIZE
    config = MistralConfig(
        hidden_size=settings.width,
        intermediate_size=settings.width * 7 // 2,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=8,
        sliding_window=None,
    )
    language: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    language.set_attn_implementation("segments")
    with_peft(language, r=settings.rank, lora_alpha=2 * settings.rank, lora_dropout=DROPOUT)
    language.model.norm = nn.Identity()
    return language.train()


def _slope(language: PreTrainedModel) -> float:
    few, many = (_kept(language, tokens) for tokens in TOKENS)
    return (many - few) / (TOKENS[1] - TOKENS[0])


def _kept(language: PreTrainedModel, tokens: int) -> int:
    decoder: Any = language.get_decoder()
    width = language.config.get_text_config().hidden_size
    states = torch.zeros(1, tokens, width, dtype=torch.bfloat16, requires_grad=True)
    borders = torch.tensor([0, tokens], dtype=torch.int32)
    with torch.autocast("cpu", torch.bfloat16), counted_saved_bytes(decoder) as count:
        decoder(
            inputs_embeds=states,
            position_ids=torch.arange(tokens)[None],
            use_cache=False,
            **packed_arguments("segments", borders, tokens),
        )
    return count.total
