"""Any resolution out as LlavaNextForConditionalGeneration, and in again."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    LlavaNextForConditionalGeneration,
)

import architectures
import exports
import tiny
from layouts import take_over
from lightning_llava.errors import SettingError
from lightning_llava.export.verify import verify
from lightning_llava.models.trained import read_trained
from lightning_llava.specs import VisionSpec

GRIDS = [[2, 1], [1, 2], [2, 2], [1, 3]]
"""Not as many rows as columns, and where a small square picture fits two, tall before wide."""


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Train and export once per architecture; only to be read."""
    done = {}

    def of(language, tower):
        if (language, tower) not in done:
            torch.manual_seed(1)
            root, vision, llm = (tmp_path_factory.mktemp(n) for n in ("run", "vision", "llm"))
            vision = str(architectures.TOWERS[tower](vision))
            parts = (
                VisionSpec(name=vision, any_resolution=True, grids=GRIDS),
                architectures.ARCHITECTURES[language](llm),
                architectures.TEMPLATES[language],
            )
            checkpoint = exports.train(root, *parts)
            done[language, tower] = checkpoint, exports.export(checkpoint, root / "exported")
        return done[language, tower]

    return of


@pytest.mark.parametrize(
    ("language", "tower"),
    [
        ("llama", "clip"),
        ("mistral", "siglip"),
        pytest.param("qwen2", "clip", marks=pytest.mark.slow),
        pytest.param("gemma3", "siglip2", marks=pytest.mark.slow),
    ],
)
def test_pictures_of_any_shape_and_back(make, tmp_path, language, tower):
    checkpoint, folder = make(language, tower)
    exports.assert_same(checkpoint, folder, LlavaNextForConditionalGeneration, exports.SIZES)

    imported = take_over(folder, tmp_path / "back", template=None)
    assert imported.kind == "hf"
    assert (imported.vision.any_resolution, imported.vision.grids) == (True, GRIDS)
    before, after = exports.Ours(checkpoint), exports.Ours(tmp_path / "back/weights.ckpt")
    for shape in exports.SIZES:
        image, ids = exports.make_picture(shape), before.prompt(f"<image>\n{exports.QUESTION}")
        assert after.prompt(f"<image>\n{exports.QUESTION}").tolist() == ids.tolist()
        expected = before.logits(image, ids)
        found = after.logits(image, ids)[..., : expected.shape[-1]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_folder_has_the_names_and_fields_of_llava_hf(make):
    checkpoint, folder = make("llama", "clip")
    config, processor = (
        json.loads((folder / name).read_text()) for name in ("config.json", "processor_config.json")
    )
    pinpoints = [[64, 32], [32, 64], [64, 64], [32, 96]]  # height, width
    assert config["model_type"] == "llava_next"
    assert config["architectures"] == ["LlavaNextForConditionalGeneration"]
    assert config["image_grid_pinpoints"] == pinpoints
    assert processor["image_processor"]["image_grid_pinpoints"] == pinpoints
    assert processor["image_processor"]["size"] == {"shortest_edge": 32}
    assert (processor["patch_size"], processor["num_additional_image_tokens"]) == (8, 1)
    assert processor["processor_class"] == "LlavaNextProcessor"
    (file,) = folder.glob("*.safetensors")
    with safe_open(file, "pt") as stored:
        names = set(stored.keys())
        newline = stored.get_tensor("image_newline")
    assert torch.equal(newline, read_trained(checkpoint, "").state["image_newline"])
    assert {"multi_modal_projector.linear_1.weight", "language_model.lm_head.weight"} <= names
    card = (folder / "README.md").read_text()
    assert "model = LlavaNextForConditionalGeneration.from_pretrained(" in card
    assert "in tiles (LLaVA 1.6)" in card
    assert "padded" not in card


def spoil_grids(folder):
    for name in ("config.json", "processor_config.json"):
        file = folder / name
        content = json.loads(file.read_text())
        content.get("image_processor", content)["image_grid_pinpoints"].reverse()
        file.write_text(json.dumps(content))
    return "a picture of 5 x 9 becomes another"  # fits two of them as well


def spoil_resizing(folder):
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["resample"] = 2
    file.write_text(json.dumps(content))
    return r"\(in tiles; a picture of"


def spoil_newline(folder):
    model = LlavaNextForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.model.image_newline += 1
    model.save_pretrained(folder)
    return "LlavaNextForConditionalGeneration computes other logits"


@pytest.mark.parametrize("spoil", [spoil_grids, spoil_resizing, spoil_newline])
def test_verification_finds_another_model(make, tmp_path, spoil):
    checkpoint, folder = make("llama", "clip")
    shutil.copytree(folder, tmp_path / "spoilt")
    expected = spoil(tmp_path / "spoilt")
    encoder = exports.Ours(checkpoint).encoder
    with pytest.raises(SettingError, match=expected):
        verify(read_trained(checkpoint, ""), encoder, tmp_path / "spoilt", torch.float32)


def test_tiles_of_another_size_than_the_config_of_the_tower_says(make, tmp_path):
    """transformers counts tiles by the config, and this tower's processor makes smaller ones."""
    checkpoint, _ = make("llama", "clip")
    config = Dinov2Config(**tiny.VISION | {"image_size": 2 * tiny.IMAGE_SIZE})
    Dinov2Model(config).save_pretrained(tmp_path / "tower")
    side = {"height": tiny.IMAGE_SIZE, "width": tiny.IMAGE_SIZE}
    BitImageProcessorPil(size=side, crop_size=side).save_pretrained(tmp_path / "tower")
    content = torch.load(checkpoint, weights_only=True)
    content["model_settings"]["model.vision"]["name"] = str(tmp_path / "tower")
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(SettingError, match=r"tiles of 32 pixels, and .* to be of 64, which its"):
        exports.export(tmp_path / "last.ckpt", tmp_path / "x")
    assert not (tmp_path / "x").exists()
