"""Parity checks on a device: attention against fp32, who sees whom, bf16-mixed against fp32."""

from collections.abc import Iterator
from itertools import accumulate, cycle, islice
from math import inf
from typing import Any

import torch
from ladder_models import Rung, build
from ladder_steps import Run, count, make_optimizer, to_device, train, without_dropout
from ladder_stream import TINY, make_samples, packed_batches
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from lightning_llava.models.attention import IMPLEMENTATIONS, obstacles
from lightning_llava.models.packed_attention import packed_arguments
from lightning_llava.models.probe import probe_isolation

LENGTHS = (37, 90, 5, 61, 128, 70)
"""Tokens of the samples of the row that attention is tried on."""
CURVE_STEPS = 50


def check_parity(device: torch.device, tiny: bool) -> Iterator[dict[str, Any]]:
    """Yield the checks one by one.

    Args:
        device: where to check.
        tiny: a smaller LLM, for a CPU.
    """
    yield {"title": "parity"}
    yield {"attention": attention_errors(device, tiny)}
    yield {"loss_curve": loss_curve(device, CURVE_STEPS)}


def attention_errors(device: torch.device, tiny: bool) -> dict[str, dict[str, Any]]:
    """Compare every implementation in bf16 with fp32, and probe it.

    What it is compared with is transformers' eager attention, on one sample at a time. The error is
    the largest difference of any logit, as a share of the largest logit.
    """
    language = _small_llm(device, tiny)
    embeds = torch.randn(
        1,
        sum(LENGTHS),
        language.config.hidden_size,
        generator=torch.Generator().manual_seed(0),
    ).to(device)
    language.set_attn_implementation("eager")
    expected = _logits_one_by_one(language, embeds)
    with torch.autocast(device.type, torch.bfloat16):
        rounded = _logits_one_by_one(language, embeds)
    scale = expected.abs().max()

    def error(found: Tensor) -> float:
        return float((found.float() - expected).abs().max() / scale)

    found: dict[str, dict[str, Any]] = {"eager, one by one": {"bf16_error": error(rounded)}}
    for name in IMPLEMENTATIONS[1:]:
        if reasons := obstacles(name, device, torch.bfloat16):
            found[name] = {"not_run": "; ".join(reasons)}
            continue
        try:
            language.set_attn_implementation(name)
            with torch.autocast(device.type, torch.bfloat16):
                logits = _logits_packed(language, embeds)
            fault = probe_isolation(language, device, torch.bfloat16)
            found[name] = {"bf16_error": error(logits), "probe": fault or "apart"}
        except Exception as failure:  # a kernel may raise anything; the others are still wanted
            found[name] = {"not_run": f"{type(failure).__name__}: {str(failure)[:200]}"}
    return found


def loss_curve(device: torch.device, steps: int) -> dict[str, Any]:
    """Train a small LLaVA of ours in fp32 and in bf16-mixed from the same weights, without dropout.

    Attention is what `auto` chooses for each: in fp32 no flash kernel.
    """
    full, mixed = (
        torch.tensor(_losses(device, compute, steps)) for compute in (torch.float32, torch.bfloat16)
    )
    apart = (mixed - full).abs() / full
    return {
        "steps": steps,
        "fp32": full.tolist(),
        "bf16": mixed.tolist(),
        "largest_relative_difference": float(apart.max()),
        "mean_relative_difference": float(apart.mean()),
    }


def _losses(device: torch.device, compute: torch.dtype, steps: int) -> list[float]:
    rung = Rung("small", drop_casts=True, checkpointing="none")
    model, _ = build(rung, TINY, device, compute)
    run = Run(model, make_optimizer(model, TINY.rate), device, compute)
    packs = list(islice(cycle(packed_batches(make_samples(TINY, 0), TINY)), steps))
    counts = [count(batch) for batch in packs]
    with without_dropout(model):
        return train(run, [to_device(b, device) for b in packs], counts, seconds=inf)[1]


def _small_llm(device: torch.device, tiny: bool) -> MistralForCausalLM:
    torch.manual_seed(0)
    width, heads = (64, 4) if tiny else (1024, 16)
    config = MistralConfig(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=512,
        sliding_window=None,
        # Far from zero, so that attention matters.
        initializer_range=width**-0.5,
    )
    with torch.device(device):
        return MistralForCausalLM(config).train()


@torch.no_grad()
def _logits_one_by_one(language: MistralForCausalLM, embeds: Tensor) -> Tensor:
    parts = [
        language(inputs_embeds=part, use_cache=False).logits.float()
        for part in embeds.split(LENGTHS, dim=1)
    ]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def _logits_packed(language: MistralForCausalLM, embeds: Tensor) -> Tensor:
    borders = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32, device=embeds.device)
    positions = torch.cat([torch.arange(n, device=embeds.device) for n in LENGTHS])
    name = language.config._attn_implementation or "eager"
    return language(
        inputs_embeds=embeds,
        position_ids=positions[None],
        use_cache=False,
        **packed_arguments(name, borders, max(LENGTHS)),
    ).logits
