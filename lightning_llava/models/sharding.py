"""Weights, gradients and AdamW split over all processes: FSDP2, layer by layer."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_llava.errors import SettingError
from lightning_llava.models.activations import decoder_layers
from lightning_llava.models.llava import Llava


def shard(model: Llava, mesh: DeviceMesh) -> None:
    """Split a model over a mesh of one dimension, in place; parameters keep their names.

    Each layer of tower and decoder is gathered while it is computed, forwards and backwards. What
    is left (embeddings, head, norms, projector) makes one group, gathered for a whole micro-batch:
    tokens are looked up before the decoder runs, and the head is used after it.

    Frozen weights in bf16 and trained ones in fp32 may share a group: torch asks for one type of
    what trains. Nothing is cast on the way, so the numbers are those of one process.

    Args:
        model: with its final weights, types and `requires_grad`.
        mesh: the processes.

    Raises:
        SettingError: an LLM without a stack of decoder layers.
    """
    try:
        layers = decoder_layers(model.language)
    except SettingError as error:
        raise SettingError(
            f"trainer.strategy: {type(model.language).__name__} has no stack of decoder layers "
            "that could be sharded; set it to ddp"
        ) from error
    for layer in [*layers, *model.vision_tower.layers]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in ("generate", "logits", "_wake"):
        register_fsdp_forward_method(model, method)
    # The probe runs the LLM alone, and torch takes what runs first for the whole.
    whole = cast(FSDPModule, model)
    model._wake()
    model.language.register_forward_pre_hook(lambda *_: whole.unshard())
    whole.reshard()


def shard_like(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut whole tensors as the parameters of these names are cut; without communication."""
    present = dict(model.named_parameters())
    return {name: cut_like(present[name], tensor) for name, tensor in state.items()}


def cut_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Copy of a whole tensor what this process holds of a parameter, or all of it."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor.clone()
    mesh, placements = parameter.device_mesh, parameter.placements
    cut = distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)
    return cut.clone()  # else it is a view, which keeps the whole


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """Put a tensor together again; all processes must call it, in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
