"""The probe before training: what it lets pass, what it finds, and what is chosen then."""

import pytest
import torch
from packs import KERNELS, WINDOW, decoder, register
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import Gemma2Config, Gemma2ForCausalLM

from lightning_llava.errors import SettingError
from lightning_llava.models import attention, probe
from lightning_llava.models.activations import apply_policy
from lightning_llava.models.language import load_language_model
from lightning_llava.models.packed_attention import attend_by_segment, make_varlen
from lightning_llava.models.probe import probe_isolation, settle_attention
from lightning_llava.specs import LanguageSpec, LoraSpec
from runs import make_module
from tiny import TEXT, VOCABULARY, build

CPU = torch.device("cpu")


def over_the_whole_row(module, query, key, value, mask, **kwargs):
    out = sdpa(query, key, value, is_causal=True, enable_gqa=True)
    return out.transpose(1, 2), None


def bidirectional(module, query, key, value, mask, cu_seq_lens_q, **kwargs):
    parts = [t.split(cu_seq_lens_q.diff().tolist(), dim=2) for t in (query, key, value)]
    out = torch.cat([sdpa(*one, enable_gqa=True) for one in zip(*parts, strict=True)], dim=2)
    return out.transpose(1, 2), None


def detached(*args, **kwargs):
    return attend_by_segment(*args, **kwargs)[0].detach(), None


def leaking_forward(module, query, key, value, mask, **kwargs):
    """Right in its backward pass alone."""
    out, _ = attend_by_segment(module, query, key, value, mask, **kwargs)
    wrong, _ = over_the_whole_row(module, query, key, value, mask)
    return out + (wrong - out).detach(), None


def not_a_number(*args, **kwargs):
    return attend_by_segment(*args, **kwargs)[0] * torch.nan, None


def raising(*args, **kwargs):
    raise RuntimeError("no kernel image is available\nfor this GPU")


BROKEN = {
    over_the_whole_row: "samples of a pack see each other",
    bidirectional: "a position sees later ones",
    detached: "the gradient does not reach earlier positions of the sample",
    leaking_forward: "other samples or later positions change the logits",
    not_a_number: "the gradient is not finite",
    raising: "it stops with RuntimeError: no kernel image is available",
}


@pytest.mark.parametrize("mode", ["eval", "train", "checkpointing"])
@pytest.mark.parametrize("window", [None, WINDOW, 4096])
@pytest.mark.parametrize("backend", ["segments", "sdpa", "eager", "varlen_like"])
def test_the_probe_passes_what_is_right_and_leaves_no_trace(monkeypatch, backend, window, mode):
    register(monkeypatch, "varlen_like", make_varlen(KERNELS["2.13"]))
    language = decoder(backend, window).train(mode != "eval")
    if mode == "checkpointing":
        apply_policy(language, "full")
    state = torch.get_rng_state()
    assert probe_isolation(language, CPU) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in language.parameters())
    assert language.training == (mode != "eval")
    language.requires_grad_(False)
    assert probe_isolation(language, CPU, torch.bfloat16) is None


def test_the_probe_passes_adapters_with_dropout(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8, dropout=0.5)).train()
    for name, parameter in model.language.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():  # as within a hook
        assert settle_attention(model.language, "auto", CPU, torch.float32) == "segments"


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("broken", BROKEN)
def test_the_probe_finds_what_is_wrong(monkeypatch, broken, checkpointing):
    register(monkeypatch, "broken", broken)
    language = decoder("broken").train()
    if checkpointing:
        apply_policy(language, "full")
    assert probe_isolation(language, CPU) == BROKEN[broken]


def test_the_probe_looks_beyond_a_sliding_window(monkeypatch):
    """Right up to the window's length, wrong where it bites."""

    def without_band(*args, sliding_window, cu_seq_lens_q, **kwargs):
        longest = int(cu_seq_lens_q.diff().max())
        attend = attend_by_segment if longest <= sliding_window else bidirectional
        return attend(*args, cu_seq_lens_q=cu_seq_lens_q, **kwargs)

    register(monkeypatch, "broken", without_band)
    assert probe_isolation(decoder("broken", 40), CPU) == "a position sees later ones"
    assert probe_isolation(decoder("broken", 4096), CPU) is None


@pytest.fixture
def lines(monkeypatch):
    lines = []
    monkeypatch.setattr(probe, "rank_zero_info", lines.append)
    return lines


def test_capped_scores_are_never_left_to_sdpa(tmp_path):
    """transformers up to 5.20 runs Gemma 2 with SDPA, which leaves the cap out."""
    config = Gemma2Config(**TEXT, intermediate_size=96, vocab_size=VOCABULARY, head_dim=12)
    assert config.attn_logit_softcapping
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    language = load_language_model(LanguageSpec(name=str(tmp_path)), torch.float32)
    assert language.config._attn_implementation == "eager"
    with pytest.raises(SettingError, match="sdpa: SDPA does not cap scores"):
        settle_attention(language, "sdpa", CPU, torch.float32)
    assert settle_attention(language.train(), "auto", CPU, torch.float32) == "eager"


def test_a_kernel_that_cannot_be_imported_has_a_successor(demo_world, monkeypatch, lines):
    """As where flash-attn is installed, but was built for another torch."""
    monkeypatch.setattr(attention, "_preferred", lambda device: ("flash_attention_2", "sdpa"))
    monkeypatch.setattr(attention, "obstacles", lambda name, device, dtype: [])
    module = make_module(demo_world)
    module.configure_model()
    assert settle_attention(module.llava.language, "auto", CPU, torch.bfloat16) == "sdpa"
    assert "attention is sdpa (flash_attention_2: transformers refuses it" in lines[-1]


@pytest.mark.parametrize("broken", BROKEN)
def test_auto_takes_the_next_one_and_says_why(monkeypatch, lines, broken):
    register(monkeypatch, "segments", broken)
    language = decoder()
    assert settle_attention(language, "auto", CPU, torch.float32) == "sdpa"
    assert language.config._attn_implementation == "sdpa"
    assert lines == [
        f"model: attention is sdpa (segments: {BROKEN[broken]}); a probe found packed samples apart"
    ]


def test_the_one_that_is_asked_for_must_pass(monkeypatch, lines):
    language = decoder()
    assert settle_attention(language, "eager", CPU, torch.float32) == "eager"
    assert lines == ["model: attention is eager; a probe found packed samples apart"]
    register(monkeypatch, "segments", over_the_whole_row)
    message = (
        r"^model.attention: segments does not keep .* \(segments: samples of a pack see each "
        r"other\); set model.attention: sdpa or auto$"
    )
    with pytest.raises(SettingError, match=message):
        settle_attention(language, "segments", CPU, torch.float32)
    with pytest.raises(SettingError, match=r"flash_attention_2 needs .* set .*: segments"):
        settle_attention(language, "flash_attention_2", CPU, torch.float32)


def test_a_decoder_that_nothing_suits_is_refused(monkeypatch, lines):
    language = decoder()
    monkeypatch.setattr(type(language), "_can_set_attn_implementation", lambda *_: False)
    language.config._attn_implementation_internal = "something else"
    message = r"segments: MistralForCausalLM cannot change .*; set another model.language.name"
    with pytest.raises(SettingError, match=message):
        settle_attention(language, "auto", CPU, torch.float32)
