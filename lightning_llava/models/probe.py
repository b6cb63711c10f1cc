"""Try attention on the loaded LLM before training: who sees whom, forwards and backwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.attention import (
    candidates,
    caps_scores,
    choose_attention,
    passed_over,
)
from lightning_llava.models.packed_attention import packed_arguments

_LONGEST_WINDOW = 64
"""Sliding windows up to this length are made to bite; a longer one would make the probe slow."""


def settle_attention(
    language: PreTrainedModel, wanted: str, device: torch.device, dtype: torch.dtype
) -> str:
    """Set the first implementation that keeps the samples of a pack apart, and log why that one.

    Args:
        language: the loaded LLM, on its device and in the mode in which it trains.
        wanted: `model.attention`; `auto` tries all that the device allows, best first.
        device: where the LLM is.
        dtype: type that matrices are multiplied in.

    Returns:
        Its name as transformers knows it.

    Raises:
        SettingError: none passes, or the one asked for does not.
    """
    names = [choose_attention(wanted, device, dtype)]
    reasons: list[str] = []
    if wanted == "auto":
        names, reasons = candidates(device, dtype), passed_over(device, dtype)
    for name in names:
        fault = _try(language, name, device, dtype)
        if fault is None:
            why = f" ({'; '.join(reasons)})" if reasons else ""
            rank_zero_info(f"model: attention is {name}{why}; a probe found packed samples apart")
            return name
        reasons.append(f"{name}: {fault}")
    others = [name for name in candidates(device, dtype) if name not in names]
    raise SettingError(
        f"model.attention: {wanted} does not keep the samples of a pack apart with this LLM "
        f"({'; '.join(reasons)}); set "
        + (f"model.attention: {others[0]} or auto" if others else "another model.language.name")
    )


def probe_isolation(
    language: PreTrainedModel, device: torch.device, dtype: torch.dtype = torch.float32
) -> str | None:
    """Run the LLM as it stands on a short packed row of three samples, forwards and backwards.

    No gradient is left on its parameters. The random generators of CPU and CUDA are put back.

    Args:
        language: the LLM, in any mode, with or without activation checkpointing.
        device: where the LLM is.
        dtype: type of autocast; fp32 for none.

    Returns:
        What is wrong, or None.
    """
    try:
        with _as_in_training(device, dtype):
            return _find_fault(language, _make_row(language, device))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # kernels raise whatever they like; each is a reason not to use them
        return f"it stops with {type(error).__name__}: {str(error).partition(chr(10))[0]}"


def probe_values(
    language: PreTrainedModel, device: torch.device, dtype: torch.dtype
) -> tuple[Float[Tensor, "1 1 vocabulary"], Float[Tensor, "1 tokens width"]]:
    """Run the LLM as it stands on the row of `probe_isolation`, always the same.

    Returns:
        The logits of one position, and the gradient of their norm at the embeddings; in fp32.
    """
    with _as_in_training(device, dtype):
        row = _make_row(language, device)
        embeds = row.embeds.clone().requires_grad_()
        logits, gradient = _backpropagate(language, embeds, row)
        return logits.detach().float(), gradient.float()


@contextmanager
def _as_in_training(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Set autocast and gradients as a step has them; put the random generators back."""
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(gpus, device_type="cuda" if gpus else "cpu"),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        torch.enable_grad(),
    ):
        yield


@dataclass(frozen=True)
class _Row:
    """Three samples; what is looked at is one position within the middle one."""

    embeds: Float[Tensor, "1 tokens width"]
    cu_seqlens: Int[Tensor, " 4"]
    position: int
    seen: range
    """Positions that surely reach it: the window before it, and itself."""

    @property
    def lengths(self) -> list[int]:
        return self.cu_seqlens.diff().tolist()

    @property
    def unseen(self) -> list[int]:
        """Positions of the other samples and later ones of its own."""
        start, total = int(self.cu_seqlens[1]), int(self.cu_seqlens[-1])
        return [i for i in range(total) if not start <= i <= self.position]


def _make_row(language: PreTrainedModel, device: torch.device) -> _Row:
    """Make a middle sample that is longer than a short sliding window."""
    window = getattr(language.config.get_text_config(), "sliding_window", None)
    before = 4 if window is None or window > _LONGEST_WINDOW else window
    lengths = [5, before + 3, 4]
    cu_seqlens = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    position = lengths[0] + before
    earliest = position - before if window is None else max(lengths[0], position - window + 1)
    weight = cast(nn.Embedding, language.get_input_embeddings()).weight
    generator = torch.Generator().manual_seed(0)
    embeds = 0.02 * torch.randn(1, sum(lengths), weight.shape[1], generator=generator)
    seen = range(earliest, position + 1)
    return _Row(embeds.to(device, weight.dtype), cu_seqlens, position, seen)


def _find_fault(language: PreTrainedModel, row: _Row) -> str | None:
    embeds = row.embeds.clone().requires_grad_()
    logits, gradient = _backpropagate(language, embeds, row)
    reached = gradient[0].float().abs().amax(dim=-1)
    if not reached.isfinite().all():
        return "the gradient is not finite"
    reached = reached.ne(0).tolist()
    start, end = row.cu_seqlens[1:3].tolist()
    if any(reached[:start]) or any(reached[end:]):
        return "samples of a pack see each other"
    if any(reached[row.position + 1 : end]):
        return "a position sees later ones"
    if not all(reached[i] for i in row.seen):
        return "the gradient does not reach earlier positions of the sample"
    return _find_leak(language, row, logits)


def _backpropagate(
    language: PreTrainedModel, embeds: Tensor, row: _Row
) -> tuple[Float[Tensor, "1 1 vocabulary"], Float[Tensor, "1 tokens width"]]:
    logits = _logits(language, embeds, row)
    # The norm, not the sum: its gradient is bounded, so that half precision cannot overflow.
    (gradient,) = torch.autograd.grad(logits.float().norm(), embeds)
    return logits, gradient


def _find_leak(language: PreTrainedModel, row: _Row, logits: Tensor) -> str | None:
    """Change all that the position must not see: a kernel may be right in its backward alone."""
    changed = row.embeds.clone()
    changed[:, row.unseen] = -3 * changed[:, row.unseen]
    again = _logits(language, changed.requires_grad_(), row)
    # Not bit by bit: a mixture of experts computes a token among those that go the same way.
    limit = 16 * torch.finfo(logits.dtype).eps * logits.float().abs().max()
    if (again.float() - logits.float()).abs().max() > limit:
        return "other samples or later positions change the logits"
    return None


def _logits(
    language: PreTrainedModel, embeds: Tensor, row: _Row
) -> Float[Tensor, "1 1 vocabulary"]:
    torch.manual_seed(0)  # the same dropout every time
    device = embeds.device
    positions = torch.cat([torch.arange(length) for length in row.lengths])
    return language(
        inputs_embeds=embeds,
        attention_mask=None,
        position_ids=positions.unsqueeze(0).to(device),
        use_cache=False,
        logits_to_keep=torch.tensor([row.position], device=device),
        **packed_arguments(
            language.config._attn_implementation or "eager", row.cu_seqlens, max(row.lengths)
        ),
    ).logits


def _try(
    language: PreTrainedModel, name: str, device: torch.device, dtype: torch.dtype
) -> str | None:
    if name == "sdpa" and caps_scores(language):
        return "SDPA does not cap scores, which this LLM does"
    try:
        language.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        return f"transformers refuses it: {str(error).partition(chr(10))[0]}"
    if language.config._attn_implementation != name:  # transformers only warns of it
        return f"{type(language).__name__} cannot change its attention"
    return probe_isolation(language, device, dtype)
