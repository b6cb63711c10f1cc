"""Packed rows for tiny decoders, and kernels with the signatures of torch's releases."""

import math
from itertools import pairwise

import torch
from transformers import AttentionInterface, MistralConfig, MistralForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from lightning_llava.models.packed_attention import packed_arguments, packed_mask
from tiny import TEXT, VOCABULARY

LENGTHS = [9, 14, 5, 11]
CU_SEQLENS = torch.tensor([0, *LENGTHS]).cumsum(0).int()
WINDOW = 6


def decoder(attention="sdpa", window=None, **settings):
    """A Mistral with half as many key heads, the same every time."""
    torch.manual_seed(4)
    config = MistralConfig(
        **TEXT, intermediate_size=96, vocab_size=VOCABULARY, sliding_window=window, **settings
    )
    # Far from zero, so that attention matters.
    config.initializer_range = 0.2
    language = MistralForCausalLM(config).eval()
    language.set_attn_implementation(attention)
    assert language.config._attn_implementation == attention
    return language


def embeddings(seed=0):
    return torch.randn(1, sum(LENGTHS), 48, generator=torch.Generator().manual_seed(seed))


def packed_logits(language, embeds, **kwargs):
    """As `Llava` calls its decoder."""
    name = language.config._attn_implementation
    return language(
        inputs_embeds=embeds,
        position_ids=torch.cat([torch.arange(n) for n in LENGTHS])[None],
        use_cache=False,
        **packed_arguments(name, CU_SEQLENS, max(LENGTHS)),
        **kwargs,
    ).logits


def separate_logits(language, embeds):
    """One forward per sample, with transformers' own eager attention."""
    language.set_attn_implementation("eager")
    parts = embeds.split(LENGTHS, dim=1)
    return torch.cat([language(inputs_embeds=p, use_cache=False).logits for p in parts], dim=1)


def register(monkeypatch, name, attention):
    """Make an implementation known until the test ends."""
    monkeypatch.setitem(AttentionInterface._global_mapping, name, attention)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, packed_mask)


def reference(query, key, value, borders, scale, left, right):
    """Attention by definition: (tokens, heads, width), a window of `left` before and `right` after
    (-1: no end)."""
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, 1) for t in (key, value))
    scale = 1 / math.sqrt(query.shape[2]) if scale is None else scale
    rows = []
    for start, end in pairwise(borders.tolist()):
        for i in range(start, end):
            first = start if left < 0 else max(start, i - left)
            last = end if right < 0 else min(end, i + right + 1)
            scores = torch.einsum("hd,thd->ht", query[i], key[first:last]) * scale
            rows.append(torch.einsum("ht,thd->hd", scores.softmax(-1), value[first:last]))
    return torch.stack(rows)


def _check(query, key, cu_seq_q, cu_seq_k, max_q, max_k):
    assert cu_seq_q.dtype == torch.int32
    assert cu_seq_q is cu_seq_k
    assert type(max_q) is int
    assert max_q == max_k == int(cu_seq_q.diff().max())
    assert query.ndim == key.ndim == 3


def varlen_2_10(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None
):
    _check(query, key, cu_seq_q, cu_seq_k, max_q, max_k)
    assert query.shape[1] == key.shape[1], "no GQA"
    return reference(query, key, value, cu_seq_q, None, -1, 0 if is_causal else -1)


def varlen_2_11(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
):
    _check(query, key, cu_seq_q, cu_seq_k, max_q, max_k)
    assert query.shape[1] == key.shape[1], "no GQA"
    # As torch does: what is no tuple never equals the causal one.
    left, right = window_size if isinstance(window_size, tuple) else (-1, -1)
    return reference(query, key, value, cu_seq_q, scale, left, right)


def varlen_2_13(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    _check(query, key, cu_seq_q, cu_seq_k, max_q, max_k)
    assert enable_gqa or query.shape[1] == key.shape[1], "try setting enable_gqa"
    left, right = window_size if isinstance(window_size, tuple) else (-1, -1)
    return reference(query, key, value, cu_seq_q, scale, left, right)


KERNELS = {"2.10": varlen_2_10, "2.11": varlen_2_11, "2.13": varlen_2_13}
