"""Attention in which the samples of a packed row do not see each other, without a dense mask.

Two implementations for transformers' attention interface: `varlen` is torch's own flash kernel for
rows of unequal samples, `segments` calls SDPA once per sample. Both take the samples' borders from
`cu_seq_lens_q`, and leave padded rows and generation with a cache to transformers' SDPA.
"""

from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from math import isclose
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lightning_llava.errors import SettingError

try:
    from torch.nn.attention.varlen import varlen_attn as torch_varlen
except ImportError:  # a torch built without it
    torch_varlen = None

Attention = Callable[..., tuple[Tensor, None]]

BY_MASK = ("sdpa", "eager")
"""Implementations that keep samples apart by a mask made from the positions."""

_UNKNOWN = {
    "softcap": "capped scores",
    "s_aux": "attention sinks",
    "position_bias": "a learned position bias",
}
"""What some LLMs ask of attention, and these kernels do not compute."""


def packed_arguments(
    implementation: str, cu_seqlens: Int[Tensor, " samples_plus_1"], longest: int | None
) -> dict[str, Any]:
    """Return what the LLM needs beside positions to keep the samples of a row apart.

    Args:
        implementation: name as transformers knows it.
        cu_seqlens: int32 offsets of the samples, from 0 to the row's length.
        longest: length of the longest sample; counted here if None, which waits for the device.
    """
    if implementation in BY_MASK:
        return {}
    longest = int(cu_seqlens.diff().max()) if longest is None else longest
    return {
        "cu_seq_lens_q": cu_seqlens,
        "cu_seq_lens_k": cu_seqlens,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def packed_mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any
) -> Bool[Tensor, "rows 1 queries keys"] | None:
    """Make no mask where borders and causality say all; else the mask that SDPA would get.

    The signature is that of transformers' mask interface.
    """
    config = kwargs.get("config")
    # A pattern of the model's own, bidirectional layers, chunks: only the mask function knows them.
    special = (
        kwargs.get("use_vmap", False)
        or "allow_is_bidirectional_skip" in kwargs
        or getattr(config, "attention_chunk_size", None) is not None
    )
    if attention_mask is None and q_length == kv_length and not special:
        return None
    return sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs
    )


def attend_by_segment(
    module: nn.Module,
    query: Float[Tensor, "rows heads tokens width"],
    key: Float[Tensor, "rows kv_heads keys width"],
    value: Float[Tensor, "rows kv_heads keys width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows tokens heads width"], None]:
    """Call SDPA once per sample. The signature is that of transformers' attention interface.

    Without `cu_seq_lens_q`, samples begin where the positions restart.

    Raises:
        SettingError: the LLM asks for what SDPA does not compute.
    """
    _refuse_unknown("segments", kwargs)
    if not _is_packed(module, query, key, attention_mask, kwargs):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if query.device.type == "mps":
        # Its SDPA takes fewer key heads only in newer releases of torch.
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    window = kwargs.get("sliding_window")
    rows = []
    for row, whole in enumerate(zip(query.split(1), key.split(1), value.split(1), strict=True)):
        lengths = [end - start for start, end in pairwise(_borders(row, query, kwargs))]
        # Split, not sliced: the backward of every slice fills a whole row with zeros and adds it.
        samples = zip(*(t.split(lengths, dim=2) for t in whole), strict=True)
        parts = [
            _attend_one(*sample, window=window, dropout=dropout, scale=scaling).transpose(1, 2)
            for sample in samples
        ]
        rows.append(torch.cat(parts, dim=1))
    return rows[0] if len(rows) == 1 else torch.cat(rows), None


def make_varlen(kernel: Callable[..., Any]) -> Attention:
    """Adapt torch's `varlen_attn`, whatever its release, to transformers' attention interface.

    The result raises SettingError where the LLM asks for what the kernel does not compute.
    """
    run = adapt_varlen(kernel)

    def attend_varlen(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "1 tokens heads width"], None]:
        _refuse_unknown("varlen", kwargs)
        borders = kwargs.get("cu_seq_lens_q")
        if borders is None or not _is_packed(module, query, key, attention_mask, kwargs):
            return attend_by_segment(
                module, query, key, value, attention_mask, dropout, scaling, **kwargs
            )
        if dropout > 0:
            raise SettingError(
                f"model.attention: varlen has no dropout, but this LLM has attention_dropout "
                f"{dropout}; set model.attention: sdpa"
            )
        longest = kwargs.get("max_length_q") or int(borders.diff().max())
        window = kwargs.get("sliding_window")
        flat = [t[0].transpose(0, 1) for t in _in_one_type(query, key, value)]
        window = None if window is None or window >= longest else window
        return run(*flat, borders, longest, scaling, window).unsqueeze(0), None

    return attend_varlen


def is_causal_kernel(kernel: Callable[..., Any] | None) -> bool:
    """Tell whether the kernel is there and can be told to be causal, which it is not by itself."""
    return kernel is not None and not {"window_size", "is_causal"}.isdisjoint(
        signature(kernel).parameters
    )


def adapt_varlen(kernel: Callable[..., Any]) -> Callable[..., Tensor]:
    """Give the kernel one signature, and make it causal.

    torch 2.10 knows `is_causal` alone; later releases took it away for `window_size`, and added
    `scale` and then `enable_gqa`.

    Returns:
        A function of query, key, value (tokens, heads, width), borders, the longest sample, the
        scale (None for the usual one) and the sliding window (None for none).
    """
    known = signature(kernel).parameters

    def run(
        query: Float[Tensor, "tokens heads width"],
        key: Float[Tensor, "tokens kv_heads width"],
        value: Float[Tensor, "tokens kv_heads width"],
        borders: Int[Tensor, " samples_plus_1"],
        longest: int,
        scale: float | None,
        window: int | None,
    ) -> Float[Tensor, "tokens heads width"]:
        options: dict[str, Any] = {}
        if "is_causal" in known:
            options["is_causal"] = True
        if "window_size" in known:
            # A tuple: torch compares it with one, and a list would silently not be causal.
            options["window_size"] = (-1 if window is None else window - 1, 0)
        elif window is not None:
            raise SettingError(
                f"model.attention: this release of torch ({torch.__version__}) has no sliding "
                f"window in varlen, but the LLM has one of {window} and a sample is longer; set "
                "model.attention: sdpa"
            )
        groups = query.shape[1] // key.shape[1]
        if "enable_gqa" in known:
            options["enable_gqa"] = groups > 1
        elif groups > 1:
            key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
        usual = query.shape[-1] ** -0.5
        if scale is not None and not isclose(scale, usual):
            if "scale" in known:
                options["scale"] = scale
            else:
                query = query * (scale / usual)
        return kernel(query, key, value, borders, borders, longest, longest, **options)

    return run


def _is_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    attention_mask: Tensor | None,
    kwargs: dict[str, Any],
) -> bool:
    """Tell whether rows are whole and causal, so that borders replace the mask."""
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return attention_mask is None and query.shape[2] == key.shape[2] and bool(causal)


def _borders(row: int, query: Tensor, kwargs: dict[str, Any]) -> list[int]:
    """List where the samples of a row begin, and the row's end."""
    rows, length = query.shape[0], query.shape[2]
    given, positions = kwargs.get("cu_seq_lens_q"), kwargs.get("position_ids")
    if given is not None and rows == 1:
        return given.tolist()
    if positions is None or positions.ndim != 2 or positions.shape[1] != length:
        return [0, length]
    of_row = positions[row if positions.shape[0] == rows else 0]
    return [0, *((of_row.diff() != 1).nonzero().flatten() + 1).tolist(), length]


def _attend_one(
    query: Float[Tensor, "1 heads tokens width"],
    key: Float[Tensor, "1 kv_heads tokens width"],
    value: Float[Tensor, "1 kv_heads tokens width"],
    window: int | None,
    dropout: float,
    scale: float | None,
) -> Float[Tensor, "1 heads tokens width"]:
    length, band = query.shape[2], None
    if window is not None and length > window:
        places = torch.arange(length, device=query.device)
        distance = places[:, None] - places
        band = (distance >= 0) & (distance < window)
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=band,
        dropout_p=dropout,
        is_causal=band is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _in_one_type(*tensors: Tensor) -> list[Tensor]:
    """Cast as autocast would: it does not know the kernel, and rotation leaves query, key fp32."""
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):
        return [t.to(torch.get_autocast_dtype(device)) for t in tensors]
    return [t.to(tensors[-1].dtype) for t in tensors]


def _refuse_unknown(name: str, kwargs: dict[str, Any]) -> None:
    for key, words in _UNKNOWN.items():
        if kwargs.get(key) is not None:
            raise SettingError(
                f"model.attention: {name} does not compute {words} ({key}), which this LLM has; "
                "set model.attention: eager"
            )


def register(name: str, attention: Attention) -> None:
    """Make an implementation known to transformers under a name, with borders instead of a mask."""
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, packed_mask)


register("segments", attend_by_segment)
if torch_varlen is not None and is_causal_kernel(torch_varlen):
    register("varlen", make_varlen(torch_varlen))
