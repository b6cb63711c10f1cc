"""Whether an LLM can answer many questions in one row: what its config says, and a trial."""

from typing import Any, cast

import torch
from jaxtyping import Float
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from lightning_llava.models.llava import Llava
from lightning_llava.models.rotations import rotation_limit
from lightning_llava.models.shared_row import (
    REACHES,
    SharedRow,
    attention_with_masks,
    layer_windows,
)
from lightning_llava.models.tree import Places, suffix_places

_PREFIX = 6
_SUFFIXES = (3, 5)
_LONGEST_WINDOW = 64
"""Sliding windows up to this length are made to bite; a longer one would make the trial slow."""
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Differences from separate runs, relative to the largest logit. What sees a wrong token, or stands
in a wrong position, is off by a multiple of these."""


def obstacle(model: Llava, longest: int) -> str | None:
    """Say why the questions of a group must be asked one by one, or None; the log says it once.

    Args:
        model: on its device, in the precision in which it answers.
        longest: tokens of the longest prompt with its answer.
    """
    language, known = model.language, model.grouping_obstacles
    name = language.config._attn_implementation or "eager"
    if name not in known:
        known[name] = _logged(_sharded(model) or _foreign_layers(language) or _try(language))
    if known[name] is None and (reason := _changing_positions(language, longest)):
        if "positions" not in known:
            known["positions"] = _logged(reason)
        return reason
    return known[name]


def _logged(reason: str | None) -> str | None:
    if reason is not None:
        rank_zero_info(f"model: questions are answered one by one: {reason}")
    return reason


def _sharded(model: Llava) -> str | None:
    """Find weights that ranks gather together: their groups would need unequal numbers of runs."""
    return "the weights are split over processes" if isinstance(model, FSDPModule) else None


def _foreign_layers(language: PreTrainedModel) -> str | None:
    kinds = sorted(layer_windows(language).keys() - set(REACHES))
    return f"the LLM has layers of the kind {', '.join(kinds)}" if kinds else None


def _changing_positions(language: PreTrainedModel, longest: int) -> str | None:
    """Find rotations that depend on how long the longest prompt is: others would change answers."""
    limit = rotation_limit(language.config)
    if limit is None or longest <= limit[0]:
        return None
    return f"rotations ({limit[1]}) change beyond {limit[0]} tokens"


@torch.no_grad()
def _try(language: PreTrainedModel) -> str | None:
    """Run two short prompts in one row, and each alone in the LLM's own way."""
    try:
        table = cast(nn.Embedding, language.get_input_embeddings()).weight
        prompts = _make_prompts(language, table)
        alone = torch.cat([_logits_alone(language, prompt) for prompt in prompts]).float()
        with attention_with_masks(language):
            together = torch.cat(_logits_together(language, prompts)).float()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a model may stop at whatever it does not expect
        return f"a trial stopped with {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    # Not `>`: a NaN is a difference too.
    limit = max(_TOLERANCE.get(_compute_type(table), 5e-2) * alone.abs().max().item(), 1e-6)
    if not (difference := (together - alone).abs().max().item()) <= limit:
        return f"in a trial logits differ by {difference:.1e} from those of separate runs"
    return None


def _compute_type(weight: Tensor) -> torch.dtype:
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _make_prompts(language: PreTrainedModel, table: Tensor) -> list[Float[Tensor, "1 tokens w"]]:
    """Make prompts of unequal length with one prefix, longer than a short sliding window."""
    windows = [w for w in layer_windows(language).values() if w and w <= _LONGEST_WINDOW]
    prefix = max([_PREFIX, *windows])
    rows = torch.arange(prefix + sum(_SUFFIXES)) * 7919 % table.shape[0]
    # As far from one another as tokens are, whatever the LLM has learnt of these ones.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(rows), table.shape[1], generator=generator)
    embeds = table[rows.to(table.device)]
    embeds = embeds + (noise.to(embeds) * embeds.float().std().to(embeds.dtype))
    shared, *own = embeds.split([prefix, *_SUFFIXES])
    return [torch.cat([shared, part])[None] for part in own]


def _logits_alone(language: Any, prompt: Tensor) -> Float[Tensor, "2 vocabulary"]:
    """At the last two positions."""
    last = torch.arange(prompt.shape[1] - 2, prompt.shape[1], device=prompt.device)
    positions = torch.arange(prompt.shape[1], device=prompt.device)[None]
    return language(
        inputs_embeds=prompt, position_ids=positions, use_cache=False, logits_to_keep=last
    ).logits[0]


def _logits_together(language: PreTrainedModel, prompts: list[Tensor]) -> list[Tensor]:
    """The same: all but the last token of each in one pass, then both last ones in another."""
    device, prefix = prompts[0].device, prompts[0].shape[1] - _SUFFIXES[0]
    row = SharedRow(language, device)
    row.start(prompts[0][:, :prefix])
    lengths = [length - 1 for length in _SUFFIXES]
    parts = torch.cat([prompt[:, prefix:-1] for prompt in prompts], dim=1)
    ends = torch.tensor(lengths, device=device).cumsum(0) - 1
    before = row.extend(suffix_places(prefix, lengths, device), ends, inputs_embeds=parts)
    owners = torch.arange(len(prompts), device=device)
    places = Places(owners, torch.tensor([prefix + n for n in lengths], device=device))
    parts = torch.cat([prompt[:, -1:] for prompt in prompts], dim=1)
    last = row.extend(places, owners, inputs_embeds=parts)
    return [torch.stack(pair) for pair in zip(before, last, strict=True)]
