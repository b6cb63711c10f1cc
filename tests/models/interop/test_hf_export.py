"""A checkpoint, exported and loaded by transformers alone, is the same model."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoProcessor

import architectures
import exports
from lightning_llava.errors import SettingError
from lightning_llava.export.command import run
from lightning_llava.export.verify import verify
from lightning_llava.models.trained import read_trained
from lightning_llava.specs import LearningRates

QUICK = ["llama", "qwen3"]
EXPRESSIBLE = [name for name in architectures.ARCHITECTURES if name != "gemma2"]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Train and export once per architecture; only to be read."""
    done = {}

    def of(language, tower="clip", mode="pad", **settings):
        key = (language, tower, mode, str(settings))
        if key not in done:
            torch.manual_seed(1)
            root, vision, llm = (tmp_path_factory.mktemp(n) for n in ("run", "vision", "llm"))
            parts = (
                architectures.TOWERS[tower](vision),
                architectures.ARCHITECTURES[language](llm),
                architectures.TEMPLATES[language],
            )
            checkpoint = exports.train(root, *parts, mode=mode, **settings)
            done[key] = checkpoint, exports.export(checkpoint, root / "exported")
        return done[key]

    return of


@pytest.mark.parametrize(
    "language",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in EXPRESSIBLE],
)
def test_every_language_model(make, language):
    exports.assert_same(*make(language))


@pytest.mark.parametrize(
    ("tower", "mode"),
    [
        ("siglip", "pad"),
        pytest.param("siglip2", "square", marks=pytest.mark.slow),
        ("dinov2", "square"),
        pytest.param("dinov2", "pad", marks=pytest.mark.slow),
    ],
)
def test_every_tower(make, tower, mode):
    checkpoint, folder = make("llama", tower, mode)
    exports.assert_same(checkpoint, folder)
    assert "picture_size" not in (folder / "config.json").read_text()


@pytest.fixture(scope="module")
def whole(make):
    """A run that trained everything, on pictures that are cropped, of an LLM whose head is tied."""
    rates = LearningRates(projector=1e-2, lora=None, language=1e-3, vision=1e-3)
    return make("qwen3", mode="square", lora=None, learning_rate=rates)


def test_everything_trained_and_pictures_cropped(whole):
    _, processor = exports.assert_same(*whole)
    assert not processor.image_processor.do_pad


def weights(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            found |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    return found


def test_the_tower_is_whole_and_a_tied_head_is_stored_once(whole):
    checkpoint, folder = whole
    state = read_trained(checkpoint, "").state
    stored = weights(folder)
    published = AutoModel.from_pretrained(read_trained(checkpoint, "").vision.name)
    layers = published.vision_model.encoder.layers
    assert len(layers) == 3  # of which the features of the second are taken
    for layer in range(3):
        key = f"encoder.layers.{layer}.mlp.fc1.weight"
        (name,) = [n for n in stored if n.endswith(key)]
        trained = next((value for n, value in state.items() if n.endswith(key)), None)
        expected = layers[layer].mlp.fc1.weight if layer == 2 else trained
        assert torch.equal(stored[name], expected)
        assert torch.equal(stored[name], layers[layer].mlp.fc1.weight) == (layer == 2)
    assert "lm_head.weight" not in " ".join(stored)
    assert any(name.endswith("vision_model.post_layernorm.weight") for name in stored)


def test_new_tokens_are_the_mean_and_the_table_a_multiple_of_64(make):
    checkpoint, folder = make("llama")
    base = read_trained(checkpoint, "").language.name
    published = weights(Path(base))
    stored = weights(folder)
    config = json.loads((folder / "config.json").read_text())
    assert (config["text_config"]["vocab_size"], config["image_token_index"]) == (512, 480)
    for key in ("embed_tokens.weight", "lm_head.weight"):
        (name,) = [n for n in stored if n.endswith(key)]
        (own,) = [value for n, value in published.items() if n.endswith(key)]
        assert stored[name].shape[0] == 512
        assert torch.equal(stored[name][: len(own)], own)
        assert torch.allclose(stored[name][len(own) :], own.mean(dim=0).expand(32, -1))


def test_a_larger_table_is_kept(make):
    checkpoint, folder = make("qwen3")
    before = AutoConfig.from_pretrained(read_trained(checkpoint, "").language.name).vocab_size
    config = json.loads((folder / "config.json").read_text())["text_config"]
    assert config["vocab_size"] == before > json_tokens(folder)


def json_tokens(folder):
    return len(AutoProcessor.from_pretrained(folder).tokenizer)


def test_config_says_what_was_trained_and_no_folder_of_this_machine(make):
    checkpoint, folder = make("saiga_mistral")
    written = {
        path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"
    }
    config, processor = (json.loads(written[n]) for n in ("config.json", "processor_config.json"))
    assert (config["vision_feature_layer"], config["vision_feature_select_strategy"]) == (
        -2,
        "default",
    )
    assert (config["image_seq_length"], config["vision_config"]["num_hidden_layers"]) == (16, 3)
    assert (processor["patch_size"], processor["num_additional_image_tokens"]) == (8, 1)
    assert processor["image_processor"]["image_processor_type"] == "LlavaImageProcessor"
    generation = json.loads(written["generation_config.json"])
    # Saiga's turns end at </s>, and its own settings stop at ChatML's token.
    assert generation["eos_token_id"] == [2, 480]
    assert not generation["do_sample"]
    root = str(checkpoint.parents[1])
    assert not [name for name, text in written.items() if root in text]


def test_shards_and_16_bits(make, tmp_path):
    checkpoint, whole = make("llama")
    options = ["--checkpoint", checkpoint, "--output", tmp_path / "x", "--max-shard-size", "100KB"]
    assert run([str(option) for option in options]) == 0
    assert len(list((tmp_path / "x").glob("model-*.safetensors"))) > 2
    rounded, exact = weights(tmp_path / "x"), weights(whole)
    assert rounded.keys() == exact.keys()
    # Merged in fp32 from rounded base weights, and rounded once more: an eighth bit may differ.
    for name, value in rounded.items():
        assert value.dtype == torch.bfloat16
        assert torch.allclose(value.float(), exact[name], rtol=2**-7, atol=2**-9)


def spoil_template(folder):
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace('"USER: "', '"USER:"'))
    return "cannot be written exactly for this tokenizer"


def spoil_padding(folder):
    file = folder / "processor_config.json"
    file.write_text(file.read_text().replace('"do_pad": true', '"do_pad": false'))
    return "a picture of 90 x 31 becomes another"


def spoil_layer(folder):
    file = folder / "config.json"
    file.write_text(
        file.read_text().replace('"vision_feature_layer": -2', '"vision_feature_layer": -1')
    )
    return "computes other logits"


@pytest.mark.parametrize("spoil", [spoil_template, spoil_padding, spoil_layer])
def test_verification_finds_another_model(make, tmp_path, spoil):
    checkpoint, folder = make("llama")
    shutil.copytree(folder, tmp_path / "spoilt")
    encoder = exports.Ours(checkpoint).encoder
    parts = read_trained(checkpoint, ""), encoder, tmp_path / "spoilt", torch.float32
    verify(*parts)
    expected = spoil(tmp_path / "spoilt")
    with pytest.raises(SettingError, match=expected):
        verify(*parts)
