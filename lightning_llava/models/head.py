"""What stands between a decoder's last hidden states and its logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

SCALES = {"logit_scale": 1, "lm_head_multiplier": 1, "logits_scaling": -1}
"""Config keys that scale logits, and the power they enter with: Cohere, Falcon-H1, Granite."""
CAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Config keys that bend logits into ± their value: Gemma, RecurrentGemma."""
PROBE_LOGITS = 100.0
"""Spread of the logits in the probe: larger than any cap in use (30), so that one shows."""


@dataclass(frozen=True)
class OutputHead:
    """Logits are `cap · tanh(scale · projection(hidden) / cap)`; without a cap just the scaling.

    Args:
        scale: factor on the projection.
        cap: limit of the logits, or None.
    """

    scale: float = 1.0
    cap: float | None = None

    def logits(
        self, projection: nn.Module, hidden: Float[Tensor, "positions width"]
    ) -> Float[Tensor, "positions vocabulary"]:
        """Project, scale and cap; what comes after the projection is computed in fp32."""
        logits = projection(hidden).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def find_head(language: PreTrainedModel) -> OutputHead | None:
    """Tell how a decoder makes logits of its last hidden states, or None where it cannot be told.

    What the config says is checked against the model: its own `forward` runs with the decoder
    layers replaced by known hidden states, which costs one projection of two positions.
    """
    config: Any = language.config.get_text_config()
    scale = 1.0
    for key, power in SCALES.items():
        value = getattr(config, key, None)
        scale *= float(value) ** power if isinstance(value, int | float) else 1.0
    caps = [float(cap) for key in CAPS if (cap := getattr(config, key, None))]
    head = OutputHead(scale, caps[0] if caps else None)
    return head if _agrees(language, head) else None


@contextmanager
def caught_hidden_states(language: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Collect the decoder's last hidden states, final norm included, of the runs inside."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: Any, output: Any) -> None:
        caught.append(output[0])

    handle = language.get_decoder().register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


class _Output(BaseModelOutputWithPast):
    """Has whatever is asked of a decoder's output; all but the hidden states is None."""

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def _agrees(language: PreTrainedModel, head: OutputHead) -> bool:
    projection: Any = language.get_output_embeddings()
    embeddings: Any = language.get_input_embeddings()
    # `hidden_size` is not the head's width everywhere (OPT-350m projects in between).
    width, weight = getattr(projection, "in_features", None), getattr(projection, "weight", None)
    if width is None or weight is None or not weight.dtype.is_floating_point:
        return False
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(2, width, generator=generator).to(weight.device, weight.dtype)
    spread = projection(unit).float().std().clamp(min=1e-6) * abs(head.scale)
    # The first position is zero, where an added constant would show; the second large.
    factors = torch.stack([torch.zeros_like(spread), PROBE_LOGITS / spread])[:, None]
    hidden = unit * factors.to(weight.dtype)
    decoder: Any = language.get_decoder()
    blank = torch.zeros(
        1, 2, embeddings.weight.shape[1], device=weight.device, dtype=embeddings.weight.dtype
    )
    decoder.forward = lambda *args, **kwargs: _Output(last_hidden_state=hidden[None])  # pyright: ignore[reportArgumentType]
    try:
        found = language(inputs_embeds=blank, use_cache=False).logits[0].float()
    finally:
        del decoder.forward
    expected = head.logits(projection, hidden)
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    return found.shape == expected.shape and bool(
        torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    )
