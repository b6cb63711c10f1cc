"""PEFT folders and original LLaVA checkpoints out, and back in."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import layouts
from layouts import assert_equals_twin, load, take_over
from lightning_llava.data.collate import collate_padded
from lightning_llava.errors import SettingError
from lightning_llava.export.command import run
from lightning_llava.geometry import load_geometry
from lightning_llava.models.interop.adapter import export_adapter
from lightning_llava.models.interop.formats import FORMATS
from lightning_llava.models.interop.original import export_llava
from lightning_llava.models.interop.weight_files import read_weights
from lightning_llava.models.trained import build_trained, read_trained
from lightning_llava.text.conversation import ConversationEncoder
from tiny import row

both = pytest.mark.parametrize("twin", ["llama", "mistral"], indirect=True)


@pytest.fixture
def adapted(twin, tmp_path):
    """A checkpoint with adapters that compute what the twin does."""
    return adapt(twin, tmp_path)


def adapt(twin, tmp_path):
    take_over(twin.save_lora(tmp_path / "source"), tmp_path / "adapted")
    return tmp_path / "adapted/weights.ckpt"


def export(writer, checkpoint, folder, dtype=torch.float32):
    folder.mkdir()
    trained = read_trained(checkpoint, "--checkpoint")
    writer(trained, ConversationEncoder(trained.language, 16), folder, dtype)
    return folder


def change(checkpoint, path, more, **settings):
    """Write a checkpoint with more weights and other settings."""
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"] |= more
    for name, value in settings.items():
        content["model_settings"][f"model.{name}"] = value
    torch.save(content, path)
    return path


@both
def test_peft_loads_the_adapter_onto_its_llm(twin, adapted, tmp_path):
    folder = export(export_adapter, adapted, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(twin.base, dtype=torch.float32)
    with layouts.peft_as_it_is():
        found = PeftModel.from_pretrained(base, folder).eval()
    ours, _ = load(adapted.parent)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        expected = ours.language(ids).logits
        torch.testing.assert_close(found(ids).logits, expected, atol=1e-5, rtol=0)
        with found.disable_adapter():
            assert (found(ids).logits - expected).abs().max() > 0.01
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(twin.base)
    assert set(config["target_modules"]) == {
        f"model.layers.{layer}.{module}"
        for layer in range(2)
        for module in (
            *(f"self_attn.{name}_proj" for name in "qkvo"),
            *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
        )
    }


@pytest.mark.parametrize("merge", [False, True])
def test_the_adapter_folder_comes_back(twin, adapted, tmp_path, merge):
    folder = export(export_adapter, adapted, tmp_path / "adapter")
    imported = take_over(folder, tmp_path / "back", template=None, merge=merge)
    assert imported.kind == "adapter"
    assert imported.language.template == "vicuna_v1"
    assert imported.image_mode == "pad"
    assert_equals_twin(tmp_path / "back", twin)


def test_only_adapters_and_projector_make_an_adapter_folder(twin, adapted, tmp_path):
    full = change(adapted, tmp_path / "full.ckpt", {}, lora=None)
    with pytest.raises(SettingError, match=r"no adapters \(model.lora was null\).*--format hf"):
        export(export_adapter, full, tmp_path / "one")
    more = {"llava.language.lm_head.weight": torch.zeros(2, 2)}
    both_trained = change(adapted, tmp_path / "both.ckpt", more)
    with pytest.raises(SettingError, match=r"1 weights \(language.lm_head.weight\) were trained"):
        export(export_adapter, both_trained, tmp_path / "two")


@both
def test_the_original_layout_has_the_official_names(twin, adapted, tmp_path):
    folder = export(export_llava, adapted, tmp_path / "llava")
    expected = twin.original_weights(tower=False)
    expected = {k: v for k, v in expected.items() if "inv_freq" not in k}
    found = read_weights(folder, "model", "test")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.read(), expected[name], atol=1e-6, rtol=0)
    config = json.loads((folder / "config.json").read_text())
    assert {name: config.get(name) for name in twin.original_config()} == twin.original_config()
    bare = torch.load(folder / "mm_projector.bin", weights_only=True)
    assert bare.keys() == twin.projector("").keys()

    assert take_over(folder, tmp_path / "back", template=None).kind == "llava"
    assert_equals_twin(tmp_path / "back", twin)


def test_rotations_are_spelt_as_the_original_code_reads_them(own_twin, tmp_path):
    """transformers 5 writes `rope_parameters`, and 4.37 would take 10,000 for what it misses."""
    own_twin.model.config.text_config.rope_parameters = {"rope_type": "default", "rope_theta": 5e5}
    own_twin.model.model.language_model.rotary_emb.__init__(own_twin.model.config.text_config)
    layouts.save_language(own_twin.language(), own_twin.base, own_twin.tokenizer)
    folder = export(export_llava, adapt(own_twin, tmp_path), tmp_path / "llava")
    config = json.loads((folder / "config.json").read_text())
    assert (config["rope_theta"], config["rope_scaling"]) == (5e5, None)
    assert "rope_parameters" not in config
    take_over(folder, tmp_path / "back", template=None)
    assert_equals_twin(tmp_path / "back", own_twin)


def test_a_tower_that_was_trained_goes_with_it(twin, adapted, tmp_path):
    with torch.no_grad():
        twin.model.model.vision_tower.embeddings.class_embedding += 1
    tower = {
        f"llava.vision_tower.encoder.{name}": value
        for name, value in twin.model.model.vision_tower.state_dict().items()
        if not name.startswith(("encoder.layers.2.", "post_layernorm."))  # above the layer taken
    }
    rates = {"projector": 1e-5, "lora": 1e-5, "language": None, "vision": 1e-6}
    checkpoint = change(adapted, tmp_path / "tower.ckpt", tower, learning_rate=rates)
    folder = export(export_llava, checkpoint, tmp_path / "llava")
    assert json.loads((folder / "config.json").read_text())["unfreeze_mm_vision_tower"] is True
    imported = take_over(folder, tmp_path / "back", template=None)
    assert imported.vision.layer == -1
    assert_equals_twin(tmp_path / "back", twin)


def test_what_the_original_code_lacks_is_refused(own_twin, siglip, tmp_path):
    adapted = adapt(own_twin, tmp_path)
    vision = {"name": str(siglip), "revision": None, "layer": -2, "tokens": "patch"}
    checkpoint = change(adapted, tmp_path / "siglip.ckpt", {}, vision=vision)
    with pytest.raises(
        SettingError, match="'siglip_vision_model', and the original code knows CLIP"
    ):
        export(export_llava, checkpoint, tmp_path / "one")
    config = own_twin.base / "config.json"
    scaled = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    layouts.write_json(config, json.loads(config.read_text()) | {"rope_parameters": scaled})
    with pytest.raises(SettingError, match="rotations are of type 'llama3'"):
        export(export_llava, adapted, tmp_path / "two")


@pytest.mark.parametrize("form", FORMATS)
def test_a_template_that_is_a_file_goes_with_it(twin, adapted, tmp_path, form):
    """Its path on this machine is nobody else's."""
    file = tmp_path / "mine" / "short.yaml"
    file.parent.mkdir()
    file.write_text('user: "Q: {content} A:"\nanswer: "{content}{eos}"\nbegin: "{bos}"\n')
    language = torch.load(adapted, weights_only=True)["model_settings"]["model.language"]
    language["template"] = str(file)
    checkpoint = change(adapted, tmp_path / "other.ckpt", {}, language=language)
    folder = export(FORMATS[form], checkpoint, tmp_path / "out")
    assert not [path for path in folder.glob("*.json") if str(file.parent) in path.read_text()]

    imported = take_over(folder, tmp_path / "back", template=None)
    kept = tmp_path / "back/templates/short.yaml"
    assert imported.language.template == str(kept)
    assert kept.read_text() == file.read_text()
    assert_equals_twin(tmp_path / "back", twin)


@pytest.mark.parametrize("form", ["adapter", "llava"])
def test_a_run_s_checkpoint_goes_out_by_the_tool_and_comes_back(random_run, tmp_path, form):
    checkpoint = random_run / "checkpoints/last.ckpt"
    given = ["--checkpoint", checkpoint, "--output", tmp_path / "out", "--format", form]
    assert run([*map(str, given), "--dtype", "float32"]) == 0
    assert (tmp_path / "out/README.md").is_file()
    take_over(tmp_path / "out", tmp_path / "back", template=None)
    found, expected = (own_logits(path) for path in (tmp_path / "back/weights.ckpt", checkpoint))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["hf", "adapter", "llava"])
def test_an_imported_checkpoint_goes_out_too(twin, adapted, tmp_path, form):
    given = ["--checkpoint", adapted, "--output", tmp_path / "out", "--format", form]
    assert run([*map(str, given), "--dtype", "float32"]) == 0
    take_over(tmp_path / "out", tmp_path / "back", template=None)
    if form != "hf":  # its image token has another row
        assert_equals_twin(tmp_path / "back", twin)
    card = (tmp_path / "out/README.md").read_text()
    assert "as others had trained it" in card
    assert "Recipe" not in card
    assert "Train it again" not in card


@torch.no_grad()
def own_logits(checkpoint):
    trained = read_trained(checkpoint, "test")
    geometry = load_geometry(trained.vision)
    model = build_trained(trained, ConversationEncoder(trained.language, geometry.image_tokens))
    one = row("a", 14, 1, 5, seed=3)
    drawn = torch.Generator().manual_seed(0)
    one.pixels[:] = [torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8, generator=drawn)]
    return model.eval().logits(collate_padded([one], geometry.image_tokens, geometry.image_size))
