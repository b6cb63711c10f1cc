"""What can only be decided with the model on its device, before step 0."""

import torch
from lightning.pytorch.utilities import rank_zero_info

from lightning_llava.models.activation_memory import measured_policy
from lightning_llava.models.activations import Checkpointing, apply_policy
from lightning_llava.models.compilation import Compile, compile_layers, uncompiled
from lightning_llava.models.llava import Llava
from lightning_llava.models.probe import settle_attention
from lightning_llava.specs import OptimizerName


def settle(
    model: Llava,
    attention: str,
    checkpointing: Checkpointing,
    compilation: Compile,
    tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    optimizer: OptimizerName = "adamw",
) -> None:
    """Settle attention, which layers are recomputed and compiled; log each with the reasons.

    Args:
        model: on its device, in train mode.
        attention: `model.attention`.
        checkpointing: `model.activation_checkpointing`.
        compilation: `model.compile`.
        tokens: length of the longest pack.
        device: where the model is.
        dtype: type that matrices are multiplied in.
        optimizer: `model.optimizer.name`.

    Raises:
        SettingError: an implementation or a policy that this LLM cannot have, alone or together.
    """
    with uncompiled():  # after an earlier `fit` of the same module
        settle_attention(model.language, attention, device, dtype)
    if checkpointing == "auto":
        policy, reason = measured_policy(
            model, model.language, tokens, device, dtype, optimizer=optimizer
        )
    else:
        policy, reason = checkpointing, "as set"
    rank_zero_info(f"model: activation_checkpointing is {policy}: {reason}")
    apply_policy(model.language, policy)
    if compilation == "layers":
        compile_layers(model.language, device, dtype)
