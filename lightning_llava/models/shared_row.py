"""Run a decoder on a row that many prompts share, with one KV cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lightning_llava.models.attention import caps_scores
from lightning_llava.models.packed_attention import BY_MASK
from lightning_llava.models.tree import Places, prefix_places, tree_mask

WITH_MASK = (*BY_MASK, "segments", "varlen")
"""Implementations that take a mask of ours; the last two hand it on to SDPA."""

REACHES = ("full_attention", "sliding_attention")
"""Kinds of layers whose mask is known here."""


class SharedRow:
    """A row, its KV cache, and whose each entry is.

    Args:
        language: the LLM, with an attention implementation that takes masks.
        device: where it is.
    """

    def __init__(self, language: PreTrainedModel, device: torch.device) -> None:
        self._language: Any = language
        # Not of the model's own making: its sliding layers would forget what other prompts need.
        self._cache: Any = DynamicCache()
        known = signature(type(language).forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._windows = layer_windows(language)
        self.places = prefix_places(0, device)

    def start(self, embeds: Float[Tensor, "1 tokens width"]) -> None:
        """Run what all prompts begin with."""
        # Plainly causal: the LLM's own mask is right, and fast kernels need none.
        places = prefix_places(embeds.shape[1], embeds.device)
        self._run(places, keep=places.positions[:0], inputs_embeds=embeds)

    def extend(
        self, places: Places, keep: Int[Tensor, " kept"], **inputs: Tensor
    ) -> Float[Tensor, "kept vocabulary"]:
        """Run more tokens.

        Args:
            places: whose they are.
            keep: which of them logits are made for.
            inputs: `inputs_embeds` or `input_ids`, in one row.
        """
        dtype = self._language.get_input_embeddings().weight.dtype
        keys = self.places.followed_by(places)
        masks = {
            kind: self._as_mask(places, keys, window, dtype)
            for kind, window in self._biting(keys).items()
        }
        # A model of one kind of layers takes its mask bare, and those of more kinds do where all
        # of them are the same.
        mask = masks if len(masks) > 1 else next(iter(masks.values()))
        return self._run(places, keep, attention_mask=mask, **inputs)

    def cut(self, length: int) -> None:
        """Forget all but the first tokens."""
        if (surplus := len(self.places.owners) - length) > 0:
            self._cache.crop(-surplus)
            self.places = self.places.cut(length)

    def _run(
        self, places: Places, keep: Int[Tensor, " kept"], **inputs: Any
    ) -> Float[Tensor, "kept vocabulary"]:
        self.places = self.places.followed_by(places)
        return self._language(
            position_ids=places.positions[None],
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_name: self._cache},
            **inputs,
        ).logits[0]

    def _biting(self, keys: Places) -> dict[str, int | None]:
        """Leave out windows that are longer than any prompt; one entry if all are the same then."""
        furthest = int(keys.positions.max())
        windows = {
            kind: None if window is None or window > furthest else window
            for kind, window in self._windows.items()
        }
        if len(set(windows.values())) == 1:
            return dict([windows.popitem()])
        return windows

    def _as_mask(
        self, queries: Places, keys: Places, window: int | None, dtype: torch.dtype
    ) -> Tensor:
        seen = tree_mask(queries, keys, window)[None, None]
        if self._language.config._attn_implementation != "eager":
            return seen
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )


def layer_windows(language: PreTrainedModel) -> dict[str, int | None]:
    """Tell how many tokens a token sees, for each kind of layers; None: all up to itself."""
    config: Any = language.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # transformers then gives the window, if any, to all layers
        return {REACHES[0]: window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(set(kinds))}


@contextmanager
def attention_with_masks(language: PreTrainedModel) -> Iterator[None]:
    """Let another stand in, inside, for an implementation that takes no masks of ours."""
    name = language.config._attn_implementation or "eager"
    if name in WITH_MASK:
        yield
        return
    language.set_attn_implementation("eager" if caps_scores(language) else "sdpa")
    try:
        yield
    finally:
        language.set_attn_implementation(name)
