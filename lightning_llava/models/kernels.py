"""Which kernels the decoder's small operations take: torch's, or those of the package Liger."""

from importlib.util import find_spec
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError

Kernels = Literal["torch", "liger"]
"""What `model.kernels` may be."""


def apply_kernels(language: PreTrainedModel, kernels: Kernels, device: torch.device) -> None:
    """Exchange norms, rotations and gated MLPs of the loaded LLM, in place; parameters stay.

    Before adapters are added: Liger looks for the norms where transformers puts them. Its MLPs call
    the projections as modules, adapters included. Not its loss, which makes the logits of all
    positions.

    Liger exchanges rotation and classes in transformers' module of this architecture too: a second
    LLM of the same architecture that is loaded later in the process has them as well, and cannot
    run on a CPU.

    Args:
        language: the LLM as it was loaded.
        kernels: `model.kernels`.
        device: where it will be.

    Raises:
        SettingError: the package, the GPU or the architecture is not what Liger needs.
    """
    if kernels == "torch":
        return
    if kernels != "liger":
        raise SettingError(f"model.kernels: found {kernels!r}; expected torch or liger")
    if device.type != "cuda":
        raise SettingError(
            f"model.kernels: liger needs a GPU that triton knows, but the device is {device.type}; "
            "set model.kernels: torch"
        )
    if find_spec("liger_kernel") is None:
        raise SettingError(
            "model.kernels: liger needs the package liger-kernel, which is not installed; install "
            "the extra `gpu` or set model.kernels: torch"
        )
    from liger_kernel.transformers import monkey_patch  # pyright: ignore[reportMissingImports]

    known: dict[str, Any] = monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN
    architecture = language.config.model_type
    if architecture not in known:  # Liger would pass it over in silence
        raise SettingError(
            f"model.kernels: the installed liger-kernel does not know {architecture!r}, the "
            f"architecture of {type(language).__name__}; set model.kernels: torch"
        )
    # What an architecture does not take (Gemma has geglu for swiglu), Liger leaves out.
    monkey_patch._apply_liger_kernel_to_instance(
        model=language,
        rope=True,
        rms_norm=True,
        swiglu=True,
        geglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
    )
    rank_zero_info(f"model: norms, rotations and MLPs of {architecture} are Liger's")
