"""Tiny random Hugging Face folders and hand-made rows: what the model tests are built from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import Row
from lightning_llava.models.build import build_llava
from lightning_llava.models.llava import Llava
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from lightning_llava.tiling import Size, Tiling

IMAGE_SIZE = 32
VOCABULARY = 120
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": IMAGE_SIZE,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def save_clip(folder: Path) -> Path:
    """A whole CLIP, text half included, as the hub has it."""
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    CLIPModel(
        CLIPConfig(text_config=text | {"vocab_size": 50}, vision_config=VISION)
    ).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=IMAGE_SIZE).save_pretrained(
        folder
    )
    return folder


def save_siglip(folder: Path) -> Path:
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}).save_pretrained(
        folder
    )
    return folder


def save_mistral(folder: Path) -> Path:
    config = MistralConfig(**TEXT, intermediate_size=96, vocab_size=VOCABULARY, sliding_window=None)
    MistralForCausalLM(config).save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    config = LlamaConfig(**TEXT | {"hidden_size": 64}, intermediate_size=96, vocab_size=VOCABULARY)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def build(
    vision: Path,
    language: Path,
    lora: LoraSpec | None = None,
    rates: LearningRates | None = None,
    projector: str = "mlp2x_gelu",
    **settings: object,
) -> Llava:
    return build_llava(
        VisionSpec(name=str(vision), **settings),
        ProjectorSpec(projector),
        LanguageSpec(name=str(language)),
        lora,
        rates or LearningRates(projector=1e-3, lora=1e-3 if lora else None),
    )


def row(name: str, tokens: int, images: int, supervised: int, seed: int) -> Row:
    """Random ids with `images` placeholders near the front and the last `supervised` tokens
    supervised."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, VOCABULARY - 1, tokens)
    ids[1 : 1 + 2 * images : 2] = IMAGE_TOKEN_INDEX
    labels = np.where(np.arange(tokens) >= tokens - supervised, ids, IGNORE_INDEX)
    pixels = rng.integers(0, 256, (images, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    return Row(name, ids, labels, list(torch.from_numpy(pixels)))


def tiled_row(name: str, tokens: int, sizes: list[Size], supervised: int, tiling: Tiling) -> Row:
    """The same with images of these sizes, in tiles of random pixels."""
    tiles = sum(map(tiling.count_tiles, sizes))
    pixels = row(name, 0, tiles, 0, seed=tokens).pixels
    counts = [(IMAGE_SIZE // VISION["patch_size"]) ** 2 + tiling.tokens_of(size) for size in sizes]
    plain = row(name, tokens, len(sizes), supervised, seed=tokens)
    return replace(plain, pixels=pixels, image_sizes=sizes, image_tokens=counts)


def gradients(model: Llava) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
