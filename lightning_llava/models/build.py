"""Build a Llava from its specs: load, add adapters, decide what trains and in which type."""

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.kernels import Kernels, apply_kernels
from lightning_llava.models.language import CPU, load_language_model
from lightning_llava.models.llava import Llava
from lightning_llava.models.lora import add_lora, is_lora
from lightning_llava.models.projector import build_projector
from lightning_llava.models.quantization import check_frozen
from lightning_llava.models.tiles import build_newline
from lightning_llava.models.vision import load_vision_tower
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec

Part = Literal["projector", "lora", "language", "vision"]


def build_llava(
    vision: VisionSpec,
    projector: ProjectorSpec,
    language: LanguageSpec,
    lora: LoraSpec | None,
    learning_rate: LearningRates,
    base_dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    kernels: Kernels = "torch",
    compute_dtype: torch.dtype | None = None,
    device: torch.device = CPU,
) -> Llava:
    """Compose a model. Widths come from the loaded parts.

    Args:
        vision: tower.
        projector: projector kind.
        language: LLM.
        lora: adapters, or None.
        learning_rate: which parts train; they are kept in fp32, whatever `base_dtype` says.
        base_dtype: type of frozen weights.
        attention: as for `load_language_model`.
        kernels: of norms, rotations and MLPs in the LLM.
        compute_dtype: type that a quantized LLM multiplies in; None for `base_dtype`.
        device: where the model will be; only a quantized LLM is loaded there, the rest on the CPU.

    Raises:
        SettingError: a part that cannot be loaded, or a rate for adapters that do not exist or for
            weights that cannot train.
    """
    if learning_rate.lora is not None and lora is None:
        raise SettingError(
            f"model.learning_rate.lora is {learning_rate.lora}, but model.lora is null; set "
            "model.lora or take the rate out"
        )
    check_frozen(language.quantization, learning_rate)
    tower = load_vision_tower(vision, base_dtype)
    decoder = load_language_model(language, base_dtype, attention, compute_dtype, device)
    apply_kernels(decoder, kernels, device)
    if learning_rate.language is None:
        _silence_dropout(decoder)
    if lora is not None:
        add_lora(decoder, lora)
    embeddings = cast(nn.Embedding, decoder.get_input_embeddings())
    joint = build_projector(projector.type, tower.width, embeddings.weight.shape[1])
    newline = build_newline(tower.geometry.tiling, embeddings.weight.shape[1])
    model = Llava(tower, joint, decoder, newline)
    set_trainable(model, learning_rate)
    return model.eval()


def set_trainable(model: nn.Module, learning_rate: LearningRates) -> None:
    """Freeze the parts without a rate, and keep in fp32 what trains, projector and adapters."""
    for part, _, parameter in named_parts(model):
        parameter.requires_grad_(getattr(learning_rate, part) is not None)
        if parameter.requires_grad or part in ("projector", "lora"):
            parameter.data = parameter.data.float()


def named_parts(model: nn.Module) -> Iterator[tuple[Part, str, nn.Parameter]]:
    """Walk over all parameters of a Llava with the part each belongs to."""
    for name, parameter in model.named_parameters():
        if is_lora(name):
            yield "lora", name, parameter
        elif name.startswith("projector.") or name == "image_newline":
            yield "projector", name, parameter
        else:
            yield "language" if name.startswith("language.") else "vision", name, parameter


def _silence_dropout(decoder: PreTrainedModel) -> None:
    """Switch the frozen decoder's own dropout off.

    Its modules cannot simply stay in eval mode: activation checkpointing and the adapters' dropout
    need train mode.
    """
    for module in decoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # pyright: ignore[reportArgumentType]
