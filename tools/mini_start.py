"""The mini decoders as they start: built, with attention that lookups are learned from."""

from math import cos, sin
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from lightning_llava.demo.tokens import BOS_ID, EOS_ID, UNK_ID

HEAD_WIDTH = 32
LAYERS = 4
CONTEXT = 2048
ROPE_THETA = 1000.0
"""Conversations are short: a smaller base makes nearby positions easier to tell apart."""
INITIALIZER_RANGE = 0.05
LOOK_BACK = (1, 2, 3, 4, 5)
"""How many tokens back each head of the first layer looks at the start."""
SHARPNESS = 8.0
"""Logit by which a head of the first layer prefers its offset."""
SAME_TOKEN_STD = 0.08
"""Of the common query and key weights at width 128."""


def build_decoder(family: str, width: int, vocabulary: int) -> PreTrainedModel:
    """Build a decoder with the weights that it starts from.

    Args:
        family: `llama` or `mistral`.
        width: of the residual stream.
        vocabulary: size.
    """
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": len(LOOK_BACK),
        "num_key_value_heads": len(LOOK_BACK),
        "head_dim": HEAD_WIDTH,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": UNK_ID,
        # On short rows on a CPU faster than the fused kernels.
        "attn_implementation": "eager",
    }
    if family == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**settings))
    else:
        model = MistralForCausalLM(MistralConfig(**settings, sliding_window=None))
    start_lookups(model)
    return model


@torch.no_grad()
def start_lookups(model: Any) -> None:
    """Start the attention as trained language models have it, so that lookups are learned at all.

    To say what colour the star is, one layer must tell "star" which word stood before it, and
    another must find the "star" that is asked for: neither is of use without the other, and from
    random weights nothing happened for a thousand steps (colour of a shape 0.77, which is what
    guessing among the colours in the scene gives). So the heads of the first layer look a fixed
    number of tokens back, as the previous-token heads of Olsson et al. 2022 (In-context Learning
    and Induction Heads) do, and those of the others look for tokens like their own, with queries
    equal to keys (Trockman & Kolter 2023, Mimetic Initialization of Self-Attention Layers).
    """
    embedding = model.model.embed_tokens.weight
    # One feature that all tokens share carries what does not depend on the token.
    embedding[:, 0] = 2 * INITIALIZER_RANGE
    shared = (embedding[:, 0] / embedding.pow(2).mean(1).sqrt()).mean().item()
    first, *others = [layer.self_attn for layer in model.model.layers]
    half = HEAD_WIDTH // 2
    rates = [ROPE_THETA ** (-i / half) for i in range(half)]  # radians per token
    used = [rate for rate in rates if rate > 0.1]  # the slow ones do not tell neighbours apart
    size = (SHARPNESS * HEAD_WIDTH**0.5 / len(used)) ** 0.5 / shared
    for head, offset in enumerate(LOOK_BACK):
        for i, rate in enumerate(used):
            at = head * HEAD_WIDTH + i
            first.q_proj.weight[at, 0] += size
            first.k_proj.weight[at, 0] += size * cos(rate * offset)
            first.k_proj.weight[at + half, 0] += size * sin(rate * offset)
    std = SAME_TOKEN_STD * (128 / model.config.hidden_size) ** 0.5
    for attention in others:
        attention.q_proj.weight.normal_(0.0, std)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
