"""Mini stand-ins for the hub: a CLIP-like tower and two language models, in Hugging Face folders.

Their weights are random, from a fixed seed. The two language models differ in width on purpose:
nothing may rely on a width that it did not read off the parts.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from lightning_llava.demo.tokens import BOS_ID, EOS_ID, UNK_ID, train_tokenizer

PRETRAINED = Path(__file__).parent / "pretrained"
"""Where the trained ones lie."""
IMAGE_SIZE = 64
"""Pixels per side that the tower sees: 8 x 8 patches."""
CONTEXT = 2048
INITIALIZER_RANGE = 0.1
"""Of the decoders' weights: about 1 / sqrt(width). At the usual 0.02, made for widths of thousands,
the frozen random head could not give any token more than 1 % however well the adapters learn."""


def write_backbones(folder: Path, texts: Iterable[str], seed: int) -> None:
    """Write `mini_clip`, `mini_mistral` and `mini_llama` into a folder.

    Args:
        folder: Where the three folders go.
        texts: What the tokenizer of the language models is trained on.
        seed: Of the weights. The global random state is left as it was.
    """
    tokenizer = train_tokenizer(texts)
    with torch.random.fork_rng(devices=[]), _no_progress_bars():
        # Not `torch.manual_seed`: that seeds the GPUs too, whose state is not put back.
        torch.default_generator.manual_seed(seed)
        _save_tower(folder / "mini_clip")
        _save_language_model(
            MistralForCausalLM(_mistral(len(tokenizer))), tokenizer, folder / "mini_mistral"
        )
        _save_language_model(
            LlamaForCausalLM(_llama(len(tokenizer))), tokenizer, folder / "mini_llama"
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar per folder."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _save_tower(folder: Path) -> None:
    config = CLIPVisionConfig(
        image_size=IMAGE_SIZE,
        patch_size=8,
        num_hidden_layers=4,
        hidden_size=128,
        intermediate_size=512,
        num_attention_heads=4,
        projection_dim=128,
    )
    CLIPVisionModel(config).save_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    processor.save_pretrained(folder)


def _mistral(vocabulary: int) -> MistralConfig:
    return MistralConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        sliding_window=None,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=UNK_ID,
    )


def _llama(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=INITIALIZER_RANGE,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=UNK_ID,
    )


def _save_language_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
