"""A checkpoint's model as plain weights: adapters folded in, one type."""

from typing import Any

import torch
from torch import nn

from lightning_llava.errors import SettingError
from lightning_llava.models.llava import Llava
from lightning_llava.models.quantization import is_quantized
from lightning_llava.models.trained import Trained, build_trained
from lightning_llava.text.conversation import ConversationEncoder


def load_merged(trained: Trained, encoder: ConversationEncoder, dtype: torch.dtype) -> Llava:
    """Load a checkpoint's model without adapters, as if it had always been trained whole.

    Args:
        trained: the checkpoint; its weights are let go.
        encoder: writes for the same LLM.
        dtype: of all parameters.

    Raises:
        SettingError: a part that cannot be loaded, weights that do not fit, or a quantized LLM.
    """
    if trained.language.quantization is not None:
        raise SettingError(
            f"--checkpoint: it was trained on an LLM in {trained.language.quantization} "
            "(model.language.quantization), whose rounded weights other programs cannot compute "
            "with; export --format adapter, which needs no merging"
        )
    model = build_trained(trained, encoder, dtype)
    fold_adapters(model.language)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    return model


def fold_adapters(language: nn.Module) -> None:
    """Add the adapters to the weights they stand beside, and take their wrappers away, in place.

    The sum is taken in fp32 and rounded once, to the type of the weights.
    """
    assert not is_quantized(language)
    for parent in list(language.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A"):
                setattr(parent, name, _folded(child))


def _folded(wrapper: Any) -> nn.Module:
    layer: Any = wrapper.get_base_layer()
    total = layer.weight.data.float()
    for adapter in wrapper.active_adapters:
        down, up = wrapper.lora_A[adapter].weight.data, wrapper.lora_B[adapter].weight.data
        total += wrapper.scaling[adapter] * (up.float() @ down.float())
    layer.weight.data = total.to(layer.weight.dtype)
    return layer
