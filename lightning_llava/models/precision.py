"""bf16-mixed: frozen weights in bf16, trained ones in fp32, activations in the type of autocast."""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from lightning_llava.errors import SettingError

LOSS_ERROR = 1e-3
"""How far a loss in bf16-mixed may be from full fp32, relatively. A small LLM is off by 4e-5."""
GRADIENT_COSINE = 0.999
"""Least cosine between any gradient in bf16-mixed and in fp32. A small LLM has 0.9998."""

COMPUTE_TYPES = {
    "32-true": torch.float32,
    "bf16-mixed": torch.bfloat16,
    "16-mixed": torch.float16,
}
"""What `trainer.precision` may be, and the type that matrices are multiplied in."""


def compute_type(precision: str) -> torch.dtype:
    """Return the type that matrices are multiplied in.

    Raises:
        SettingError: a precision in which training would lose small steps.
    """
    if precision not in COMPUTE_TYPES:
        raise SettingError(
            f"trainer.precision is {precision}, expected {' or '.join(COMPUTE_TYPES)}: what "
            "trains stays in fp32, where small steps are not rounded away"
        )
    return COMPUTE_TYPES[precision]


def check_bf16(compute: torch.dtype, device: torch.device) -> None:
    """Refuse bf16 on a GPU that would emulate it, many times slower (Turing, Volta).

    Raises:
        SettingError: naming the precision that the GPU has.
    """
    if compute != torch.bfloat16 or device.type != "cuda" or torch.version.hip:
        return
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise SettingError(
            f"trainer.precision is bf16-mixed, but {torch.cuda.get_device_name(device)} has no "
            "bf16 and would emulate it, very slowly; set trainer.precision: 16-mixed"
        )


def frozen_type(compute: torch.dtype) -> torch.dtype:
    """Return the type of frozen weights, by the type that matrices are multiplied in.

    fp16 is none: weights that were trained in bf16 may not fit into it.
    """
    return torch.bfloat16 if compute == torch.bfloat16 else torch.float32


def drop_adapter_casts(language: nn.Module) -> None:
    """Stop adapters from casting their inputs to their own fp32, for good.

    Under autocast the next matrix product undoes the cast, so that without dropout no bit of loss
    and gradients changes. But each product then keeps a copy of its own, where q, k and v could
    share one. Without autocast, adapters in fp32 on a base in bf16 raise torch's error about
    unequal types from now on.

    peft has a context manager for the same. It ends with the forward pass, so that recomputed
    activations have other types than those they stand for, and the backward pass stops.

    Raises:
        SettingError: an adapter of a peft that has no such switch.
    """
    for module in language.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not hasattr(module, "cast_input_dtype_enabled"):
            raise SettingError(
                f"model.lora: {type(module).__name__} of the installed peft always casts its "
                "inputs to fp32; expected peft 0.18 or newer"
            )
        module.cast_input_dtype_enabled = False  # pyright: ignore[reportArgumentType]
