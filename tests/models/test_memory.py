"""The computed peak: against built models, against the sum of `auto`, and by hand for a 7B."""

from dataclasses import replace

import pytest
import torch
from transformers import CLIPVisionConfig, Gemma2Config, MistralConfig

from lightning_llava.models.activation_memory import measure_layer, static_bytes
from lightning_llava.models.activations import LayerBytes
from lightning_llava.models.build import build_llava, named_parts
from lightning_llava.models.memory import StepSettings, layer_bytes, step_memory
from lightning_llava.models.precision import drop_adapter_casts
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec

BF16 = torch.bfloat16
CPU = torch.device("cpu")


def settings(**changes):
    defaults = {
        "vision": VisionSpec(),
        "projector": ProjectorSpec(),
        "language": LanguageSpec(),
        "lora": LoraSpec(r=4, alpha=8, dropout=0.0),
        "learning_rate": LearningRates(),
        "optimizer": "adamw",
        "pack_tokens": 200,
        "compute": BF16,
    }
    return StepSettings(**defaults | changes)


def built(clip, mistral, chosen):
    model = build_llava(
        replace(chosen.vision, name=str(clip)),
        chosen.projector,
        LanguageSpec(name=str(mistral)),
        chosen.lora,
        chosen.learning_rate,
        base_dtype=torch.bfloat16,
    )
    drop_adapter_casts(model.language)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw_8bit", "lora": LoraSpec(r=128, alpha=1, dropout=0.05)},
        {"lora": None, "learning_rate": LearningRates(lora=None, language=1e-5)},
        {"vision": VisionSpec(any_resolution=True)},
    ],
)
def test_what_is_fixed_is_what_auto_adds_up_of_a_built_model(clip, mistral, changes):
    chosen = settings(**changes)
    model = built(clip, mistral, chosen)
    configs = model.vision_tower.encoder.config, model.language.config
    found = step_memory(*configs, chosen).fixed
    parts = ("LLM", "tower", "trained", "gradients", "Adam")
    expected = static_bytes(model, torch.device("cuda"), optimizer=chosen.optimizer)
    assert sum(found[part] for part in parts) == expected
    frozen = {"LLM": 0, "tower": 0}
    for part, _, parameter in named_parts(model):
        if not parameter.requires_grad:
            frozen["tower" if part == "vision" else "LLM"] += parameter.nbytes
    assert {name: found[name] for name in frozen} == frozen


def test_a_layer_keeps_what_a_built_one_keeps_of_the_whole_pack(clip, mistral):
    chosen = settings()
    language = built(clip, mistral, chosen).language
    language.set_attn_implementation("segments")
    assert layer_bytes(language.config, chosen) == measure_layer(
        language, chosen.pack_tokens, CPU, BF16
    )


def test_capped_scores_are_counted_as_flash_attn_keeps_them():
    """Which is nothing: on a CPU there is none, and others keep a score for each pair of tokens."""
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    capped, free = (Gemma2Config(**sizes, attn_logit_softcapping=cap) for cap in (50.0, None))
    assert layer_bytes(capped, settings()) == layer_bytes(free, settings())
    assert capped.attn_logit_softcapping == 50.0


def test_masks_of_dropout_count_one_byte_each(mistral_config):
    """Inputs of the seven adapters, in elements a token: q, k, v, o, gate, up; down."""
    chosen = [settings(lora=LoraSpec(r=4, alpha=8, dropout=p)) for p in (0.0, 0.1)]
    without, dropped = (layer_bytes(mistral_config, one) for one in chosen)
    inputs = 6 * 48 + 96
    # With dropout each keeps its own bf16 input and a mask; without, q, k and v share one input,
    # and gate and up.
    assert dropped.kept - without.kept == 200 * (3 * inputs - 2 * (48 + 48 + 48 + 96))
    assert dropped.recomputed == without.recomputed


@pytest.fixture
def mistral_config():
    return MistralConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        vocab_size=120,
        sliding_window=None,
    )


def test_a_7b_by_hand(monkeypatch):
    """Mistral-7B, CLIP ViT-L/14-336 without its last layer, LoRA of rank 128."""
    monkeypatch.setattr(
        "lightning_llava.models.memory.layer_bytes", lambda *_: LayerBytes(10**9, 10**7)
    )
    tower = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    language = MistralConfig(sliding_window=None)
    lora = LoraSpec()
    whole = step_memory(tower, language, settings(lora=lora, pack_tokens=8192))
    linears = 32 * 4096 * (4096 + 1024 + 1024 + 4096 + 3 * 14336)
    rest = 2 * 32000 * 4096 + 65 * 4096
    assert whole.fixed["LLM"] == 2 * (linears + rest)
    adapters = 32 * 128 * (4 * 4096 + 4096 + 2 * 1024 + 4096 + 3 * (4096 + 14336))
    trained = adapters + 4096 * (1024 + 1) + 4096 * (4096 + 1)
    assert whole.fixed["trained"] == whole.fixed["gradients"] == 4 * trained
    assert whole.fixed["Adam"] == 8 * trained
    assert whole.fixed["logits"] == 2**26 * 16
    assert whole.activations["full"] == 10**9 + 32 * 10**7
    assert whole.activations["every_2"] == 17 * 10**9 + 16 * 10**7
    assert whole.total("none") == sum(whole.fixed.values()) + 33 * 10**9

    small = step_memory(
        tower,
        language,
        settings(
            lora=lora,
            pack_tokens=2048,
            language=LanguageSpec(quantization="nf4"),
            optimizer="adamw_8bit",
        ),
    )
    # QLoRA, section 3: 4 bits, and 0.127 for scales with double quantization.
    assert small.fixed["LLM"] == pytest.approx(linears * 4.127 / 8 + 2 * rest, rel=1e-4)
    assert small.fixed["Adam"] == pytest.approx(2 * trained, rel=0.02)
    assert small.fixed["one layer unpacked"] == 2 * 4096 * 14336
