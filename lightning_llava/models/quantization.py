"""A frozen LLM in 4 or 8 bits, through bitsandbytes: its decoder's linear layers and nothing else.

Embeddings, norms and the output head stay in the type of frozen weights, and so do tower and
projector, which are no part of the LLM. Adapters stay in fp32.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from lightning_llava.errors import SettingError
from lightning_llava.specs import LearningRates, Quantization

BLOCK, BLOCKS = 64, 256
"""NF4 has one scale per block of weights, in 8 bits, and one fp32 scale per so many of those."""


def loading_arguments(
    quantization: Quantization | None, compute: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Return what `from_pretrained` needs to quantize while it loads.

    Output head and tied embeddings are left out by transformers itself. Weights are quantized on
    the device where they stay, so that no rank needs room for a whole LLM elsewhere.

    Args:
        quantization: `model.language.quantization`.
        compute: type that matrices are multiplied in.
        device: where the LLM will be.

    Raises:
        SettingError: bitsandbytes is not installed.
    """
    if quantization is None:
        return {}
    require_bitsandbytes(f"model.language.quantization: {quantization}", "null")
    config = (
        BitsAndBytesConfig(load_in_8bit=True)
        if quantization == "int8"
        else BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_as_loaded(language: nn.Module) -> None:
    """Keep NF4 weights the same in training and in evaluation, on a CPU too.

    In eval mode bitsandbytes packs them anew for CPUs with AVX512-BF16, with their scales rounded
    to bf16 for good: the first validation would change the run.
    """
    for module in language.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def check_frozen(quantization: Quantization | None, rates: LearningRates) -> None:
    """Refuse to train weights that have been rounded to 4 or 8 bits.

    Raises:
        SettingError: naming both settings.
    """
    if quantization is not None and rates.language is not None:
        raise SettingError(
            f"model.learning_rate.language is {rates.language}, but model.language.quantization "
            f"is {quantization}: quantized weights cannot be trained; set "
            "model.learning_rate.language: null and train model.lora, or set "
            "model.language.quantization: null"
        )


def require_bitsandbytes(setting: str, otherwise: str) -> None:
    """Refuse a setting whose package is not there.

    Args:
        setting: as the user wrote it.
        otherwise: the value that needs no package.

    Raises:
        SettingError: naming the extra that has the package.
    """
    if find_spec("bitsandbytes") is None:
        raise SettingError(
            f"{setting} needs the package bitsandbytes, which is not installed; install the extra "
            f"gpu (pip install 'lightning-llava[gpu]'), or set it to {otherwise}"
        )


def is_quantized(language: nn.Module) -> bool:
    """Tell whether the LLM was loaded in 4 or 8 bits."""
    return bool(getattr(language, "is_quantized", False))


def quantized_bytes(linear: nn.Linear, quantization: Quantization) -> float:
    """Count the bytes of a layer's weights and of their scales."""
    weights = linear.in_features * linear.out_features
    if quantization == "int8":
        return weights + 4 * linear.out_features  # an fp32 scale per row
    return weights * (1 / 2 + 1 / BLOCK + 4 / (BLOCK * BLOCKS))
