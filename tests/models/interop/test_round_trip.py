"""Out as `hf` and in again: the same logits, ids and pixels, whatever the LLM and the tower."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from architectures import ARCHITECTURES, TEMPLATES, TOWERS
from layouts import take_over
from lightning_llava.data.collate import collate_padded
from lightning_llava.data.images import ImageTransform
from lightning_llava.geometry import load_geometry
from lightning_llava.models.build import build_llava
from lightning_llava.models.interop.hf import export_hf
from lightning_llava.models.trained import Trained, build_trained, read_trained
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn
from tiny import row

TALK = [Turn("user", "<image>\nWhat is this?"), Turn("assistant", "Black, 2")]
LORA = LoraSpec(r=4, alpha=8, dropout=0.0)
SLOW = pytest.mark.slow


def trained_by(vision, language):
    """What `fit` would keep of a model with random projector and adapters."""
    rates = LearningRates(projector=1e-3, lora=1e-3)
    model = build_llava(vision, ProjectorSpec(), language, LORA, rates)
    state = {
        name: torch.randn_like(value) * (0.3 if "projector" in name else 0.1)
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    settings = {"vision": vars(vision), "projector": vars(ProjectorSpec())}
    settings |= {"language": vars(language), "lora": vars(LORA), "learning_rate": vars(rates)}
    data = {"data.image_mode": "pad", "data.image_backend": "pillow"}
    return lambda: Trained(None, dict(state), settings, data, 3)


def logits(trained):
    geometry = load_geometry(trained.vision)
    encoder = ConversationEncoder(trained.language, geometry.image_tokens)
    batch = collate_padded([row("a", 14, 1, 5, seed=3)], geometry.image_tokens, geometry.image_size)
    with torch.no_grad():
        return build_trained(trained, encoder).eval().logits(batch), encoder


def picture():
    file, values = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (31, 70, 3), np.uint8)
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("family", "tower"),
    [
        ("llama", "clip"),
        ("qwen3", "siglip"),
        *(pytest.param(name, "clip", marks=SLOW) for name in ("mistral", "saiga_mistral")),
        *(pytest.param(name, "siglip2", marks=SLOW) for name in ("llama3", "qwen2", "gemma")),
        *(pytest.param(name, "dinov2", marks=SLOW) for name in ("gemma3", "phi3", "phi4_mini")),
    ],
)
def test_what_is_exported_comes_back(family, tower, tmp_path):
    assert come_back(family, tower, TEMPLATES[family], tmp_path) == TEMPLATES[family]


def test_a_template_that_was_read_off_a_tokenizer_comes_back(tmp_path):
    file = come_back("qwen2", "clip", "auto", tmp_path)
    assert file == str(tmp_path / "back/templates/conversation.yaml")


def come_back(family, tower, template, tmp_path):
    """Export, import and compare; return the template that is named after it."""
    torch.manual_seed(4)
    vision = VisionSpec(name=str(TOWERS[tower](tmp_path / "tower")))
    (tmp_path / "llm").mkdir()
    name = str(ARCHITECTURES[family](tmp_path / "llm"))
    make = trained_by(vision, LanguageSpec(name=name, template=template))
    expected, encoder = logits(make())
    (tmp_path / "hf").mkdir()
    export_hf(make(), encoder, tmp_path / "hf", torch.float32)

    imported = take_over(tmp_path / "hf", tmp_path / "back", template=None)
    found, back = logits(read_trained(tmp_path / "back/weights.ckpt", "test"))
    vocabulary = expected.shape[-1]
    torch.testing.assert_close(found[..., :vocabulary], expected, atol=1e-5, rtol=1e-5)
    assert back.stop_ids == encoder.stop_ids
    for turns in (TALK, [*TALK, Turn("user", "  И 2\n?"), Turn("assistant", "Да")]):
        assert (
            back.encode(turns, 1).input_ids.tolist() == encoder.encode(turns, 1).input_ids.tolist()
        )
    pixels = [ImageTransform(spec, "pad")(picture()) for spec in (vision, imported.vision)]
    assert torch.equal(*pixels)
    return imported.language.template
