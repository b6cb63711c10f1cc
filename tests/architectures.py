"""Tiny random stand-ins of the LLMs and towers that people compose, as the hub holds them.

Each function writes a folder with weights, configs, generation settings and, for an LLM, a
tokenizer of its family's kind. What a family is known to trip over is in it: tied embeddings,
a vocabulary larger than the tokenizer's, sliding windows that bite, heads of a width of their own,
several stop tokens.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import AddedToken
from transformers import (
    BitImageProcessorPil,
    Dinov2Config,
    Dinov2Model,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)

from small_tokenizers import save_byte_level, save_gemma, save_metaspace, save_sentencepiece
from tiny import IMAGE_SIZE, VISION, save_clip, save_siglip

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # far from zero, so that what a token sees decides the answer
}
WINDOW = 20
"""Tokens: little more than one image's."""
MIXED = ["sliding_attention", "full_attention"]

MISTRAL_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% elif m.role == 'assistant' %}"
    "{{ ' ' + m.content + eos_token }}{% else %}{{ raise_exception('no system role') }}"
    "{% endif %}{% endfor %}"
)
LLAMA_3_CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
CHATML_TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
CHATML_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
QWEN_2_CHAT = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}" + CHATML_TURN + "{% endfor %}" + CHATML_END
)
QWEN_3_CHAT = (
    # The thoughts of the last answer are written even where there are none.
    "{% for m in messages %}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + m.content + '<|im_end|>\n' }}"
    "{% else %}" + CHATML_TURN + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA_3_CHAT = (
    # The system text stands in the first user's turn.
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ (first if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_3_CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI_4_MINI_CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def save_llama(folder: Path) -> Path:
    """Vicuna: no chat template, as many embeddings as tokens."""
    size = save_sentencepiece(folder, pad_token="<unk>")
    config = LlamaConfig(**TEXT, vocab_size=size, pad_token_id=0)
    return _save(LlamaForCausalLM, config, folder, [2])


def save_mistral(folder: Path) -> Path:
    """Mistral Instruct v0.1: a sliding window, no padding token."""
    size = save_metaspace(folder, chat_template=MISTRAL_CHAT)
    config = MistralConfig(**TEXT, vocab_size=size, sliding_window=WINDOW)
    return _save(MistralForCausalLM, config, folder, [2])


def save_saiga_mistral(folder: Path) -> Path:
    """Saiga/Mistral: its generation settings stop at ChatML's token, its turns at `</s>`."""
    size = save_sentencepiece(folder, {"<|im_end|>": 0, "<|im_start|>": 1}, pad_token="<unk>")
    config = MistralConfig(**TEXT, vocab_size=size, sliding_window=4096, pad_token_id=0)
    return _save(MistralForCausalLM, config, folder, [size - 2])


def save_llama3(folder: Path) -> Path:
    """Saiga/Llama-3: two stop tokens, rotations that are scaled, padding with EOS."""
    special = (
        *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
        "<|eot_id|>",
    )
    tokens = {"bos": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|eot_id|>"}
    size = save_byte_level(folder, special, chat_template=LLAMA_3_CHAT, **tokens)
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    ids = {"bos_token_id": size - 5, "eos_token_id": size - 1, "pad_token_id": size - 1}
    config = LlamaConfig(**TEXT, vocab_size=size, rope_parameters=rope, **ids)
    return _save(LlamaForCausalLM, config, folder, [size - 4, size - 1])


def save_qwen2(folder: Path) -> Path:
    """Qwen2.5: no BOS, biases in attention, embeddings for tokens that nobody writes."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    size = save_byte_level(folder, special, chat_template=QWEN_2_CHAT, **tokens)
    ids = {"bos_token_id": size - 3, "eos_token_id": size - 1, "pad_token_id": None}
    config = Qwen2Config(**TEXT, vocab_size=_larger(size), **ids)
    # As published: none of it may change answers that are meant to be greedy.
    sampling = {"do_sample": True, "repetition_penalty": 1.5, "top_k": 20}
    return _save(Qwen2ForCausalLM, config, folder, [size - 1, size - 3], **sampling)


def save_qwen3(folder: Path) -> Path:
    """Qwen3: heads wider than their share, normed queries, tied embeddings, thoughts."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
    tokens = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    size = save_byte_level(folder, special, chat_template=QWEN_3_CHAT, **tokens)
    ids = {"bos_token_id": size - 5, "eos_token_id": size - 3}
    config = Qwen3Config(
        **TEXT, vocab_size=_larger(size), head_dim=16, tie_word_embeddings=True, **ids
    )
    return _save(Qwen3ForCausalLM, config, folder, [size - 3, size - 5])


def save_gemma1(folder: Path) -> Path:
    """Gemma: scaled embeddings, one key head, tied embeddings."""
    size, ids = _gemma_tokenizer(folder, GEMMA_CHAT)
    text = TEXT | {"num_key_value_heads": 1}
    config = GemmaConfig(**text, vocab_size=_larger(size), head_dim=16, **ids)
    return _save(GemmaForCausalLM, config, folder, [1])


def save_gemma2(folder: Path) -> Path:
    """Gemma 2: capped scores and logits, windows in every other layer."""
    size, ids = _gemma_tokenizer(folder, GEMMA_CHAT)
    caps = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
    widths = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": WINDOW}
    config = Gemma2Config(**TEXT, vocab_size=_larger(size), **caps, **widths, **ids)
    return _save(Gemma2ForCausalLM, config, folder, [1, 6])


def save_gemma3(folder: Path) -> Path:
    """Gemma 3 of text alone: normed queries, rotations of two kinds, windows."""
    size, ids = _gemma_tokenizer(folder, GEMMA_3_CHAT)
    config = Gemma3TextConfig(
        **TEXT,
        vocab_size=_larger(size),
        **{"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": WINDOW},
        layer_types=MIXED,
        **ids,
    )
    return _save(Gemma3ForCausalLM, config, folder, [1, 6])


def save_phi3(folder: Path) -> Path:
    """Phi-3 mini: fused projections, a window, tokens that swallow the line break behind them."""
    names = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
    swallowing = [AddedToken(name, rstrip=True, normalized=False, special=True) for name in names]
    size = save_metaspace(
        folder,
        (AddedToken("<|endoftext|>", normalized=False, special=True), *swallowing),
        bos=False,
        **{"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        chat_template=PHI_3_CHAT,
    )
    ids = {"bos_token_id": 1, "eos_token_id": size - 5, "pad_token_id": size - 5}
    config = Phi3Config(**TEXT, vocab_size=_larger(size), sliding_window=WINDOW, **ids)
    return _save(Phi3ForCausalLM, config, folder, [size - 5, size - 4, size - 2])


def save_phi4_mini(folder: Path) -> Path:
    """Phi-4 mini: part of each head is rotated, by factors that depend on length; tied."""
    special = ("<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>", "<|system|>")
    tokens = dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    size = save_byte_level(
        folder, special, bos_token="<|endoftext|>", chat_template=PHI_4_MINI_CHAT, **tokens
    )
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "short_factor": [1.0, 1.1, 1.2],
        "long_factor": [1.0, 2.0, 4.0],
        "original_max_position_embeddings": 2048,
    }
    config = Phi3Config(
        **TEXT | {"max_position_embeddings": 4096},
        vocab_size=_larger(size),
        original_max_position_embeddings=2048,
        rope_parameters=rope,
        partial_rotary_factor=0.5,
        sliding_window=4096,
        tie_word_embeddings=True,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), size - 5),
    )
    return _save(Phi3ForCausalLM, config, folder, [size - 3, size - 5])


def save_siglip2(folder: Path) -> Path:
    """SigLIP 2 of fixed size, which is published as SigLIP with its text half."""
    text = VISION | {"vocab_size": 60, "max_position_embeddings": 8}
    text = {k: v for k, v in text.items() if k not in ("image_size", "patch_size")}
    SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    SiglipImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """DINOv2 with positions for a larger grid than its processor's pictures have."""
    Dinov2Model(
        Dinov2Config(**VISION | {"image_size": 2 * IMAGE_SIZE}, layerscale_value=0.5)
    ).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE + 4},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    ).save_pretrained(folder)
    return folder


ARCHITECTURES: dict[str, Callable[[Path], Path]] = {
    "llama": save_llama,
    "mistral": save_mistral,
    "saiga_mistral": save_saiga_mistral,
    "llama3": save_llama3,
    "qwen2": save_qwen2,
    "qwen3": save_qwen3,
    "gemma": save_gemma1,
    "gemma2": save_gemma2,
    "gemma3": save_gemma3,
    "phi3": save_phi3,
    "phi4_mini": save_phi4_mini,
}
TEMPLATES: dict[str, str] = {
    "llama": "vicuna_v1",
    "mistral": "mistral_instruct",
    "saiga_mistral": "saiga_mistral",
    "llama3": "llama3",
    "qwen2": "qwen",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "phi3": "phi3",
    "phi4_mini": "phi3",
}
TOWERS: dict[str, Callable[[Path], Path]] = {
    "clip": save_clip,
    "siglip": save_siglip,
    "siglip2": save_siglip2,
    "dinov2": save_dinov2,
}


def _gemma_tokenizer(folder: Path, chat_template: str) -> tuple[int, dict[str, int]]:
    size = save_gemma(folder, ("<start_of_turn>", "<end_of_turn>"), chat_template=chat_template)
    return size, {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def _larger(tokens: int) -> int:
    """The next multiple of 64 beyond the tokenizer's last id, as most LLMs are padded to."""
    return 64 * (tokens // 64 + 1)


def _save(model_class: type[PreTrainedModel], config, folder: Path, stop, **generation) -> Path:
    model = model_class(config)
    model.generation_config = GenerationConfig(
        eos_token_id=stop, pad_token_id=config.pad_token_id, **generation
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:  # zeros and ones would hide a norm that is left out
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder
