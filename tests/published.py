"""Tiny random models of the kinds that people publish, processors included."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from lightning_llava.demo.tokens import train_tokenizer

SIZE, QUERIES = 32, 4
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
    "patch_size": 8,
}
QFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "encoder_hidden_size": 32,
    "cross_attention_frequency": 1,
}
SPREAD = 0.3
"""Of the random weights, so that answers depend on picture and question."""

CHAT = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    made = train_tokenizer(["Question: Is there a red dog in the image? Short answer: yes no."])
    made.add_tokens(["<image>"], special_tokens=True)
    return made


def save_blip2(folder: Path) -> Path:
    """With an OPT decoder, as the smaller ones of the hub."""
    words = tokenizer()
    text = {
        "model_type": "opt",
        "vocab_size": len(words),
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 32,
        "max_position_embeddings": 256,
        "init_std": SPREAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    _save(Blip2ForConditionalGeneration(config), folder)
    Blip2Processor(_blip_images(), words, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def save_instructblip(folder: Path) -> Path:
    """With an encoder and decoder, as FlanT5's; its own settings ask for beams."""
    words = tokenizer()
    text = {
        "model_type": "t5",
        "vocab_size": len(words),
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "initializer_factor": 3.0,
        "decoder_start_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vocabulary = {
        word: i for i, word in enumerate(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "dog", "red"])
    }
    reader = BertTokenizerFast(vocab=vocabulary)
    config = InstructBlipConfig(
        vision_config=VISION,
        qformer_config=QFORMER | {"vocab_size": len(vocabulary)},
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    model = InstructBlipForConditionalGeneration(config)
    model.generation_config.num_beams = 3
    model.generation_config.repetition_penalty = 5.0
    _save(model, folder)
    parts = (_blip_images(), words, reader)
    InstructBlipProcessor(*parts, num_query_tokens=QUERIES).save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    """As llava-hf has it, chat template included."""
    words = tokenizer()
    config = LlavaConfig(
        vision_config=VISION | {"model_type": "clip_vision_model"},
        text_config=_llama(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    _save(LlavaForConditionalGeneration(config), folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def save_llava_next(folder: Path) -> Path:
    """LLaVA 1.6: the same with images of any resolution."""
    words, grids = tokenizer(), [[SIZE, 2 * SIZE], [2 * SIZE, SIZE], [2 * SIZE, 2 * SIZE]]
    config = LlavaNextConfig(
        vision_config=VISION | {"model_type": "clip_vision_model"},
        text_config=_llama(words),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grids,
    )
    _save(LlavaNextForConditionalGeneration(config), folder)
    sizes = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}
    LlavaNextProcessor(
        LlavaNextImageProcessorPil(image_grid_pinpoints=grids, **sizes),
        words,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def _llama(words: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": SPREAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _blip_images() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})


def _save(model: PreTrainedModel, folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "language_model" not in name:
            torch.nn.init.normal_(parameter, std=SPREAD)
    model.save_pretrained(folder)


KINDS = {
    "blip2": save_blip2,
    "instructblip": save_instructblip,
    "llava": save_llava,
    "llava_next": save_llava_next,
}
