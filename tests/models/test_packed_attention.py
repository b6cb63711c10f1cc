"""torch's varlen kernel under each of its signatures, and what it and SDPA do not compute."""

from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from packs import (
    CU_SEQLENS,
    KERNELS,
    LENGTHS,
    WINDOW,
    decoder,
    embeddings,
    packed_logits,
    reference,
    register,
    separate_logits,
)

from lightning_llava.errors import SettingError
from lightning_llava.models.packed_attention import (
    adapt_varlen,
    attend_by_segment,
    is_causal_kernel,
    make_varlen,
    torch_varlen,
)
from lightning_llava.models.probe import settle_attention

MODULE = SimpleNamespace(is_causal=True)


def heads(query=4, key=2):
    """Query, key and value as transformers hands them over."""
    torch.manual_seed(1)
    return [torch.randn(1, count, sum(LENGTHS), 8) for count in (query, key, key)]


def test_the_installed_kernel_has_one_of_the_signatures():
    names = [list(signature(kernel).parameters) for kernel in KERNELS.values()]
    assert list(signature(torch_varlen).parameters) in names
    assert all(is_causal_kernel(kernel) for kernel in [torch_varlen, *KERNELS.values()])
    assert not is_causal_kernel(None)
    assert not is_causal_kernel(lambda query, key, value: None)


@pytest.mark.parametrize("window", [None, 1, WINDOW])
@pytest.mark.parametrize("scale", [None, 0.3, 8**-0.5])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("release", KERNELS)
def test_every_signature_gives_causal_attention(release, key_heads, scale, window):
    attend = adapt_varlen(KERNELS[release])
    tensors = [t[0].transpose(0, 1) for t in heads(4, key_heads)]
    if release == "2.10" and window is not None:
        with pytest.raises(SettingError, match="has no sliding window"):
            attend(*tensors, CU_SEQLENS, max(LENGTHS), scale, window)
        return
    found = attend(*tensors, CU_SEQLENS, max(LENGTHS), scale, window)
    left = -1 if window is None else window - 1
    expected = reference(*tensors, CU_SEQLENS, scale, left, 0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_segments_are_causal_attention(key_heads, window, scale):
    tensors = heads(4, key_heads)
    found, _ = attend_by_segment(
        MODULE, *tensors, None, 0.0, scale, sliding_window=window, cu_seq_lens_q=CU_SEQLENS
    )
    flat = [t[0].transpose(0, 1) for t in tensors]
    left = -1 if window is None else window - 1
    expected = reference(*flat, CU_SEQLENS, scale, left, 0)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("release", KERNELS)
def test_a_decoder_runs_on_every_signature(monkeypatch, release):
    register(monkeypatch, "varlen_like", make_varlen(KERNELS[release]))
    language = decoder("varlen_like")
    with torch.no_grad():
        packed = packed_logits(language, embeddings())
        separate = separate_logits(language, embeddings())
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=1e-5)


def test_a_kernel_without_windows_is_refused_only_where_one_is_needed():
    attend, tensors = make_varlen(KERNELS["2.10"]), heads()
    borders = {"cu_seq_lens_q": CU_SEQLENS, "max_length_q": max(LENGTHS)}
    plain, _ = attend(MODULE, *tensors, None, **borders)
    wide, _ = attend(MODULE, *tensors, None, sliding_window=max(LENGTHS), **borders)
    assert torch.equal(plain, wide)
    with pytest.raises(SettingError, match=r"^model.attention: .* no sliding window .*set .* sdpa"):
        attend(MODULE, *tensors, None, sliding_window=max(LENGTHS) - 1, **borders)


@pytest.mark.parametrize("name", ["varlen", "segments"])
@pytest.mark.parametrize("wish", ["softcap", "s_aux", "position_bias"])
def test_what_the_kernels_do_not_compute_is_refused(name, wish):
    attend = make_varlen(KERNELS["2.13"]) if name == "varlen" else attend_by_segment
    message = rf"^model.attention: {name} does not compute .*\({wish}\).*; set .*: eager"
    with pytest.raises(SettingError, match=message):
        attend(MODULE, *heads(), None, cu_seq_lens_q=CU_SEQLENS, **{wish: 30.0})


def test_dropout_is_applied_by_segments_and_refused_by_varlen():
    tensors, borders = heads(), {"cu_seq_lens_q": CU_SEQLENS, "max_length_q": max(LENGTHS)}
    torch.manual_seed(0)
    values = [attend_by_segment(MODULE, *tensors, None, p, **borders)[0] for p in (0.0, 0.5, 0.5)]
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])
    varlen = make_varlen(KERNELS["2.13"])
    with pytest.raises(SettingError, match=r"varlen has no dropout.* 0.5; set .*: sdpa"):
        varlen(MODULE, *tensors, None, 0.5, **borders)


@pytest.mark.parametrize("name", ["segments", "varlen_like"])
def test_under_autocast_attention_is_in_half_precision(monkeypatch, name):
    """Weights in fp32 leave queries and keys in fp32 after their rotation, values in bf16."""
    types = []

    def kernel(query, key, value, *args, **kwargs):
        types.append({query.dtype, key.dtype, value.dtype})
        return KERNELS["2.13"](query, key, value, *args, **kwargs)

    kernel.__signature__ = signature(KERNELS["2.13"])
    register(monkeypatch, "varlen_like", make_varlen(kernel))
    language = decoder(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = packed_logits(language, embeddings())
    assert types == ([{torch.bfloat16}] * 2 if name == "varlen_like" else [])
    with torch.no_grad():
        full = separate_logits(language, embeddings())
    torch.testing.assert_close(half.float(), full, atol=0.05 * full.abs().max(), rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's kernel runs on CUDA alone")
@pytest.mark.parametrize("window", [None, WINDOW])
def test_varlen_on_cuda_agrees_with_fp32(window):
    device = torch.device("cuda")
    if torch.cuda.get_device_capability(device) < (8, 0):
        pytest.skip("the GPU is older than Ampere")
    settings = {"head_dim": 32}
    full = separate_logits(decoder("eager", window, **settings), embeddings())
    language = decoder("sdpa", window, **settings).to(device, torch.bfloat16)
    assert settle_attention(language, "varlen", device, torch.bfloat16) == "varlen"
    embeds = embeddings().to(device, torch.bfloat16)
    half = language(
        inputs_embeds=embeds,
        position_ids=torch.cat([torch.arange(n) for n in LENGTHS])[None].to(device),
        use_cache=False,
        cu_seq_lens_q=CU_SEQLENS.to(device),
        max_length_q=max(LENGTHS),
    ).logits
    torch.testing.assert_close(half.float().cpu(), full, atol=0.05 * full.abs().max(), rtol=0)
