"""Tower, projector, adapters."""

import shutil

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.errors import SettingError
from lightning_llava.models.build import build_llava, named_parts
from lightning_llava.models.checkpoint import load_checkpoint_state
from lightning_llava.models.interop.merged import fold_adapters
from lightning_llava.models.projector import build_projector
from lightning_llava.models.vision import load_vision_tower
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from tiny import IMAGE_SIZE, build, row


def test_a_layer_the_tower_lacks_is_refused(clip):
    with pytest.raises(SettingError, match=r"model.vision.layer: found 4; expected 1 … 3"):
        load_vision_tower(VisionSpec(name=str(clip), layer=4), torch.float32)


def test_projector_kinds():
    assert build_projector("linear", 3, 5)(torch.zeros(2, 3)).shape == (2, 5)
    deep = build_projector("mlp3x_gelu", 3, 5)
    assert [type(m).__name__ for m in deep] == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert (
        sum(p.numel() for p in build_projector("mlp2x_gelu", 1024, 4096).parameters()) == 20_979_712
    )
    x = torch.randn(2, 3)
    assert build_projector("identity", 3, 3)(x) is x
    with pytest.raises(SettingError, match="the tower gives 3 and the LLM takes 5"):
        build_projector("identity", 3, 5)
    with pytest.raises(SettingError, match=r"model.projector.type: found 'mlp'"):
        build_projector("mlp", 3, 5)


def test_lora_covers_the_decoder_and_nothing_else(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8))
    adapted = {
        name.rsplit(".lora_A", 1)[0] for part, name, _ in named_parts(model) if ".lora_A" in name
    }
    per_layer = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert len(adapted) == 2 * len(per_layer)
    assert all(name.startswith("language.model.layers.") for name in adapted)
    assert {name.rsplit(".", 1)[1] for name in adapted} == set(per_layer)


def test_only_named_parts_train_and_they_are_fp32(clip, mistral):
    rates = LearningRates(projector=1e-3, lora=1e-4)
    model = build_llava(
        VisionSpec(name=str(clip)),
        ProjectorSpec(),
        LanguageSpec(name=str(mistral)),
        LoraSpec(r=2),
        rates,
        base_dtype=torch.bfloat16,
    )
    for part, name, parameter in named_parts(model):
        trains = part in ("projector", "lora")
        assert parameter.requires_grad == trains, name
        assert parameter.dtype == (torch.float32 if trains else torch.bfloat16), name


def test_a_rate_for_adapters_that_do_not_exist_is_refused(clip, mistral):
    with pytest.raises(
        SettingError, match=r"model.learning_rate.lora is 0.0002, but model.lora is null"
    ):
        build(clip, mistral, None, LearningRates())


def test_merging_adapters_changes_no_logits(clip, mistral):
    torch.manual_seed(0)
    model = build(clip, mistral, LoraSpec(r=4, alpha=8))
    for part, name, parameter in named_parts(model):
        if part == "lora" and "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = collate_packed([row("a", 12, 1, 4, 1)], 16, IMAGE_SIZE)
    with torch.no_grad():
        before = model.logits(batch)
        fold_adapters(model.language)
        torch.testing.assert_close(model.logits(batch), before, atol=1e-5, rtol=1e-5)


def test_adapters_on_an_llm_that_an_earlier_stage_trained(clip, mistral):
    whole = build(clip, mistral, None, LearningRates(lora=None, language=1e-5))
    state = {n: p for n, p in whole.named_parameters() if not n.startswith("vision_tower.")}
    with pytest.raises(SettingError, match=r"trained itself.*tools/export\.py.*model\.lora: null"):
        load_checkpoint_state(build(clip, mistral, LoraSpec(r=2)), state, allow_fresh=True)


def test_a_decoder_without_linear_layers_takes_no_adapters(clip, tmp_path):
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50)).save_pretrained(
        tmp_path
    )
    with pytest.raises(SettingError, match=r"model\.lora: GPT2LMHeadModel has no linear layers"):
        build(clip, tmp_path, LoraSpec(r=2, alpha=4))


def test_generation_ignores_what_the_decoder_itself_would_do(clip, mistral, tmp_path):
    """Qwen's own settings bring a repetition penalty, which would change greedy answers."""
    shutil.copytree(mistral, tmp_path / "penalised")
    settings = GenerationConfig(no_repeat_ngram_size=1, repetition_penalty=9.0)
    settings.save_pretrained(tmp_path / "penalised")
    prompt = collate_padded([row("a", 12, 1, 0, 1)], 16, IMAGE_SIZE, left=True)
    answers = []
    for folder in (mistral, tmp_path / "penalised"):
        torch.manual_seed(0)
        answers.append(build(clip, folder).generate(prompt, 8, stop_ids=[1], pad_id=0))
    assert answers[0] == answers[1]
