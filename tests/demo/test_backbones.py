import random
from io import BytesIO

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionModel,
    LlamaForCausalLM,
    MistralForCausalLM,
)

from lightning_llava.demo.backbones import write_backbones

DECODERS = {"mini_mistral": MistralForCausalLM, "mini_llama": LlamaForCausalLM}
TEXTS = ["Is there a red circle?", "Есть ли круг?", "Yes", "Нет"]


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_load_and_run(folder, name):
    model = AutoModelForCausalLM.from_pretrained(folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    assert type(model) is DECODERS[name]
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    for part in (model.config, model.generation_config):
        assert (part.bos_token_id, part.eos_token_id, part.pad_token_id) == (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
        )
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, len(tokenizer))
    assert logits.isfinite().all()


def test_decoders_differ_in_width_and_share_their_tokenizer(folder):
    widths = {AutoConfig.from_pretrained(folder / name).hidden_size for name in DECODERS}
    assert len(widths) == 2
    files = {(folder / name / "tokenizer.json").read_bytes() for name in DECODERS}
    assert len(files) == 1


def test_their_tokenizer_was_trained_on_the_text_of_the_world(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "mini_llama")
    for word in (" region", " image", " изображении", " находится"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_the_tower_loads_and_looks_at_a_picture(folder):
    tower = AutoModel.from_pretrained(folder / "mini_clip")
    processor = AutoImageProcessor.from_pretrained(folder / "mini_clip")
    assert isinstance(tower, CLIPVisionModel)
    encoded = next((folder / "images").iterdir()).read_bytes()
    pixels = processor(Image.open(BytesIO(encoded)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64)
    with torch.no_grad():
        features = tower(pixels).last_hidden_state
    # A class token and 8 x 8 patches.
    assert features.shape == (1, 65, tower.config.hidden_size)
    assert features.isfinite().all()


def weights(folder, seed):
    write_backbones(folder, TEXTS, seed)
    return {
        name: (folder / name / "model.safetensors").read_bytes()
        for name in ("mini_clip", *DECODERS)
    }


def test_weights_follow_the_seed_and_nothing_else(tmp_path):
    first = weights(tmp_path / "first", 7)
    torch.manual_seed(123)
    torch.rand(5)
    assert weights(tmp_path / "again", 7) == first
    other = weights(tmp_path / "other", 8)
    assert all(other[name] != first[name] for name in first)
    embeddings = [
        load_file(tmp_path / run / "mini_llama" / "model.safetensors")["model.embed_tokens.weight"]
        for run in ("first", "other")
    ]
    assert not torch.equal(*embeddings)


def test_global_randomness_is_left_alone(tmp_path, monkeypatch):
    def refuse(seed):
        raise AssertionError(f"the GPUs were seeded with {seed}")

    monkeypatch.setattr("torch.cuda.manual_seed_all", refuse)
    before, plain = torch.get_rng_state(), random.getstate()
    write_backbones(tmp_path, TEXTS, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == plain
