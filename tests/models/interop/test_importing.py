"""Every layout that LLaVAs are published in, against transformers' model of the same weights."""

import json
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import layouts
from layouts import assert_equals_twin, load, take_over
from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import init_from
from lightning_llava.models.interop.weight_files import save_weights, stored
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("twin", "tower"), [("llama", False), ("mistral", True)], indirect=["twin"]
)
def test_an_original_checkpoint(twin, tmp_path, tower):
    source = twin.save_original(tmp_path / "source", tower=tower, shards=2)
    imported = take_over(source, tmp_path / "out")
    assert imported.kind == "llava"
    assert imported.image_mode == "pad"
    assert (tmp_path / "out/vision").is_dir() == tower
    assert imported.vision.name == str(tmp_path / "out/vision" if tower else twin.tower)
    assert_equals_twin(tmp_path / "out", twin)


def test_the_config_of_the_first_llava_1_5(twin, tmp_path):
    """Its model_type is that of llava-hf today."""
    source = twin.save_original(tmp_path / "source")
    config = twin.original_config() | {"model_type": "llava"}
    layouts.write_json(source / "config.json", config)
    assert take_over(source, tmp_path / "out").kind == "llava"
    assert_equals_twin(tmp_path / "out", twin)


def test_a_tower_inside_counts_not_the_one_that_is_named(twin, tmp_path):
    with torch.no_grad():  # trained further, as LLaVA 1.6's
        twin.model.model.vision_tower.embeddings.class_embedding += 1
    source = twin.save_original(tmp_path / "source", tower=True)
    take_over(source, tmp_path / "out")
    assert_equals_twin(tmp_path / "out", twin)


@pytest.mark.parametrize(
    ("twin", "old", "pad"),
    [("llama", True, False), ("llama", False, True), ("mistral", True, True)],
    indirect=["twin"],
)
def test_a_folder_of_llava_hf(twin, tmp_path, old, pad):
    source = twin.save_hugging_face(tmp_path / "source", old, pad)
    imported = take_over(source, tmp_path / "out")
    assert imported.kind == "hf"
    assert imported.image_mode == ("pad" if pad else "square")
    assert any("crops pictures" in note for note in imported.notes) != pad
    assert_equals_twin(tmp_path / "out", twin)


def test_a_folder_that_transformers_itself_saved(twin, tmp_path):
    source = twin.save_hugging_face(tmp_path / "source", old=False)
    (source / "model.safetensors").unlink()
    twin.model.save_pretrained(source, max_shard_size="100KB")
    assert (source / "model.safetensors.index.json").is_file()
    take_over(source, tmp_path / "out")
    assert_equals_twin(tmp_path / "out", twin)


@pytest.mark.parametrize(
    ("twin", "merge", "safe"),
    [("llama", False, False), ("llama", True, True), ("mistral", False, True)],
    indirect=["twin"],
)
def test_an_original_lora_folder(twin, tmp_path, merge, safe):
    source = twin.save_lora(tmp_path / "source", safe=safe)
    imported = take_over(source, tmp_path / "out", merge=merge)
    assert imported.kind == "llava_lora"
    if merge:
        assert imported.lora is None
    else:
        assert (imported.lora.r, imported.lora.alpha, imported.lora.dropout) == (4, 8, 0.05)
        assert imported.language.name == str(twin.base)
        assert not (tmp_path / "out/language").exists()
    assert_equals_twin(tmp_path / "out", twin)


def test_adapters_on_some_layers_leave_the_others_as_they_are_and_trainable(twin, tmp_path):
    source = twin.save_lora(tmp_path / "source", targets=["q_proj", "v_proj"])
    take_over(source, tmp_path / "out")
    assert_equals_twin(tmp_path / "out", twin)
    model, _ = load(tmp_path / "out")
    fresh = model.language.model.layers[0].mlp.up_proj
    assert not fresh.lora_B["default"].weight.any()
    assert fresh.lora_A["default"].weight.any()


@pytest.mark.parametrize(
    "settings",
    [{"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"mlp.up_proj": 32}}],
    ids=str,
)
def test_what_our_adapters_cannot_be_is_merged(twin, tmp_path, settings):
    source = twin.save_lora(tmp_path / "source", **settings)
    take_over(source, tmp_path / "out", merge=True)
    assert_equals_twin(tmp_path / "out", twin)


@pytest.mark.parametrize("front", ["", "base_model.model.", "module."])
def test_a_bare_projector(twin, tmp_path, front):
    file = tmp_path / "mm_projector.bin"
    torch.save(twin.projector(front), file)
    imported = take_over(file, tmp_path / "out", base=str(twin.base), vision=str(twin.tower))
    assert imported.kind == "projector"
    assert imported.image_mode == "square"  # nothing says otherwise
    assert_equals_twin(tmp_path / "out", twin)


def test_a_projector_with_the_config_of_its_training(twin, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    torch.save(twin.projector(""), source / "mm_projector.bin")
    layouts.write_json(
        source / "config.json", twin.original_config() | {"image_aspect_ratio": "square"}
    )
    take_over(source, tmp_path / "out", base=str(twin.base))
    assert_equals_twin(tmp_path / "out", twin)


def test_saiga_keeps_the_tokenizer_of_its_adapter(tokenizer_folder, tmp_path):
    """A bare tokenizer.model, which transformers 5 reads with other ids beside other files."""
    config = MistralConfig(
        vocab_size=32000,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    base, source = tmp_path / "base", tmp_path / "source"
    language = MistralForCausalLM(config)
    language.save_pretrained(base)
    layouts.save_adapter(language, source, base, ["q_proj"], False)
    shutil.copy(tokenizer_folder / "tokenizer.model", source)
    imported = take_over(source, tmp_path / "out", template="saiga_mistral")
    copied = LanguageSpec(name=str(tmp_path / "out/language"), template="saiga_mistral")
    assert imported.language == copied
    tokenizer = load_tokenizer(copied)
    assert tokenizer("<s>bot\n", add_special_tokens=False)["input_ids"] == [1, 12435, 13]


def test_adapters_of_an_llm_are_merged_into_it(twin, tmp_path):
    """saiga_mistral_7b_lora, with the output head trained in full as well."""
    targets = ["q_proj", "v_proj", "k_proj", "o_proj"]
    source, more = tmp_path / "source", {"modules_to_save": ["lm_head"]}
    merged = layouts.save_adapter(twin.language(), source, twin.base, targets, False, **more)
    imported = take_over(source, tmp_path / "out", template="saiga_mistral")
    assert imported.kind == "peft"
    assert not (tmp_path / "out/weights.ckpt").exists()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out/language", dtype=torch.float32)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(found(ids).logits, merged(ids).logits, atol=1e-5, rtol=0)
        assert (found(ids).logits - twin.language()(ids).logits).abs().max() > 0.01
    written = yaml.safe_load((tmp_path / "out/model.yaml").read_text())
    assert written == {
        "model": {"language": {"name": str(tmp_path / "out/language"), "template": "saiga_mistral"}}
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft on tied heads
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"bias": "lora_only"},
    ],
    ids=str,
)
def test_what_is_trained_beside_layers_is_taken_as_peft_takes_it(twin, tmp_path, settings, tied):
    """peft saves a head that it adapts, and leaves a tied one behind where it trains the table."""
    torch.manual_seed(0)
    more = {"tie_word_embeddings": tied, "initializer_range": 0.2}
    config = Qwen2Config(**twin.model.config.text_config.to_dict() | more)
    base, source = tmp_path / "base", tmp_path / "source"
    layouts.save_language(Qwen2ForCausalLM(config), base, twin.tokenizer)
    language = AutoModelForCausalLM.from_pretrained(base)
    layouts.save_adapter(language, source, base, ["q_proj"], True, **settings)
    file = source / "adapter_model.safetensors"
    saved = load_file(file)
    drawn = {k: 0.2 * torch.randn_like(v) for k, v in saved.items() if "base_layer.weight" not in k}
    save_file(saved | drawn, file)
    take_over(source, tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out/language").eval()
    with layouts.peft_as_it_is(), torch.no_grad():
        plain, ids = AutoModelForCausalLM.from_pretrained(base), torch.arange(3, 20)[None]
        before = plain(ids).logits
        adapted = PeftModel.from_pretrained(plain, source)
        expected = adapted.eval()(ids).logits
        torch.testing.assert_close(found(ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert (expected - before).abs().max() > 0.01


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_of_the_llm_in_a_model_that_sees(twin, tmp_path, merge):
    """Gemma 3 from 4B on; llava-hf here, whose weights are of the same names."""
    base = twin.save_hugging_face(tmp_path / "base", old=True)
    source = twin.save_lora(tmp_path / "source")
    take_over(source, tmp_path / "out", base=str(base), merge=merge)
    assert_equals_twin(tmp_path / "out", twin)


def test_the_revision_that_adapters_were_trained_on(twin, tmp_path):
    source = twin.save_lora(tmp_path / "source")
    config = source / "adapter_config.json"
    layouts.write_json(config, json.loads(config.read_text()) | {"revision": "v2"})
    assert take_over(source, tmp_path / "out").language.revision == "v2"
    assert take_over(source, tmp_path / "new", base=str(twin.base)).language.revision is None


def test_a_hub_name_and_a_relative_base(twin, tmp_path, monkeypatch):
    cache = tmp_path / "hub/models--somebody--projector"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text("0" * 40)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    torch.save(twin.projector(""), snapshot / "mm_projector.bin")
    layouts.write_json(snapshot / "config.json", twin.original_config())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(twin.root)
    imported = take_over("somebody/projector", tmp_path / "out", base="base", vision="./tower")
    assert (imported.language.name, imported.vision.name) == (str(twin.base), str(twin.tower))
    assert_equals_twin(tmp_path / "out", twin)


def test_a_linear_projector_is_told_by_its_names(twin, tmp_path):
    weights = {"model.mm_projector.weight": torch.randn(48, 32)}
    weights["model.mm_projector.bias"] = torch.randn(48)
    torch.save(weights, tmp_path / "mm_projector.bin")
    parts = {"base": str(twin.base), "vision": str(twin.tower)}
    take_over(tmp_path / "mm_projector.bin", tmp_path / "out", **parts)
    model, trained = load(tmp_path / "out")
    assert trained.projector.type == "linear"
    features = torch.randn(3, 32)
    expected = (
        features @ weights["model.mm_projector.weight"].T + weights["model.mm_projector.bias"]
    )
    torch.testing.assert_close(model.projector(features), expected, atol=1e-5, rtol=0)


def test_a_run_cannot_start_from_adapters_under_another_alpha(twin, tmp_path):
    take_over(twin.save_lora(tmp_path / "source"), tmp_path / "out")
    model, trained = load(tmp_path / "out")
    settings = {f"model.{name}": section for name, section in trained.model.items()}
    path = str(tmp_path / "out/weights.ckpt")
    assert init_from(model, path, settings) == []
    settings["model.lora"] = settings["model.lora"] | {"alpha": 16}
    with pytest.raises(SettingError, match=r"model.lora.alpha is 16, .* trained with 8"):
        init_from(model, path, settings)


def test_weights_are_written_in_shards_that_transformers_reads(twin, tmp_path):
    tensors = {name: stored(value) for name, value in twin.language().state_dict().items()}
    twin.model.config.text_config.save_pretrained(tmp_path)
    save_weights(tmp_path, tensors, shard_bytes=50_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3
    found = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, value in found.state_dict().items():
        assert torch.equal(value, tensors[name].read())
