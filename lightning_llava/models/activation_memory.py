"""Measure what a decoder layer keeps for the backward pass, and choose a policy by it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from lightning_llava.models.activations import (
    LOGIT_BYTES,
    Demand,
    LayerBytes,
    Policy,
    cheapest_policy,
    decoder_layers,
)
from lightning_llava.models.loss import MAX_LOGITS
from lightning_llava.models.packed_attention import packed_arguments
from lightning_llava.specs import OptimizerName

GRADIENT_BYTES = 4
ADAM_BYTES = 8
"""Per trained parameter, in fp32: two moments."""
ADAM_8BIT_BYTES = 2 + 2 * 4 / 256
"""The same in 8 bits, with an fp32 scale per 256 numbers."""
ADAM_8BIT_FROM = 4096
"""Elements of the smallest tensor whose moments bitsandbytes keeps in 8 bits."""


class SavedBytes:
    """Bytes that autograd keeps for the backward pass, each storage counted once."""

    def __init__(self) -> None:
        self._storages: dict[int, Any] = {}

    @property
    def total(self) -> int:
        """Sum of the storages seen so far."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def add(self, tensor: Tensor) -> None:
        """Count a tensor that is being kept."""
        # Held, lest its address is used again while others are counted.
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage


@contextmanager
def counted_saved_bytes(owner: nn.Module, inside: nn.Module | None = None) -> Iterator[SavedBytes]:
    """Count what is kept for the backward pass, but for a module's own weights.

    Args:
        owner: its parameters and buffers are there anyway.
        inside: a part of it; what is kept outside of its forward pass is not counted.
    """
    own = {t.untyped_storage().data_ptr() for t in [*owner.parameters(), *owner.buffers()]}
    count, entered = SavedBytes(), inside is None

    def keep(tensor: Tensor) -> Tensor:
        if entered and tensor.untyped_storage().data_ptr() not in own:
            count.add(tensor)
        return tensor

    def turn(*args: Any) -> None:
        nonlocal entered
        entered = not entered

    hooks = []
    if inside is not None:
        hooks = [inside.register_forward_pre_hook(turn), inside.register_forward_hook(turn)]
    try:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            yield count
    finally:
        for hook in hooks:
            hook.remove()


def measure_layer(
    language: PreTrainedModel, tokens: int, device: torch.device, compute: torch.dtype
) -> LayerBytes:
    """Run a copy of the last decoder layer on the device and count what it keeps.

    Args:
        language: the LLM with its adapters, wherever it is; it is not touched.
        tokens: length of the pack.
        device: where training will be.
        compute: type that matrices are multiplied in.
    """
    embeddings, layers = language.get_input_embeddings(), decoder_layers(language)
    layer: Any = deepcopy(layers[-1])
    layer.gradient_checkpointing = False
    # What deepcopy finds under the id of a part it takes for that part's copy.
    memo = {id(embeddings): nn.Identity(), id(layers): nn.ModuleList([layer])}
    decoder: Any = deepcopy(language.get_decoder(), memo)
    decoder.to(device).train()
    weight: Any = embeddings.weight
    states = torch.zeros(
        1, tokens, weight.shape[1], dtype=weight.dtype, device=device, requires_grad=True
    )
    borders = torch.tensor([0, tokens], dtype=torch.int32, device=device)
    with (
        # The layer's dropout must not move the random state that training starts from.
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.autocast(device.type, compute, enabled=compute != torch.float32),
        counted_saved_bytes(decoder, inside=layer) as count,
    ):
        decoder(
            inputs_embeds=states,
            position_ids=torch.arange(tokens, device=device)[None],
            use_cache=False,
            **packed_arguments(
                language.config._attn_implementation or "eager", borders, longest=tokens
            ),
        )
    copies = sum(
        p.numel() * compute.itemsize
        for p in layer.parameters()
        if p.requires_grad and p.dtype != compute
    )
    return LayerBytes(count.total, states.nbytes + copies)


def static_bytes(
    model: nn.Module, device: torch.device, shards: int = 1, optimizer: OptimizerName = "adamw"
) -> int:
    """Add up what training will put on the device: weights not there yet, gradients, AdamW.

    Args:
        model: with `requires_grad` set.
        device: where training will be.
        shards: processes that a strategy such as FSDP splits all of it over.
        optimizer: `model.optimizer.name`.
    """
    total = 0
    for parameter in model.parameters():
        if parameter.device.type != device.type:
            total += parameter.nbytes
        if parameter.requires_grad:
            total += parameter.numel() * GRADIENT_BYTES + moment_bytes(parameter, optimizer)
    return total // shards


def moment_bytes(parameter: Tensor, optimizer: OptimizerName) -> int:
    """Return what the optimizer keeps of a trained parameter."""
    in_8_bits = optimizer == "adamw_8bit" and parameter.numel() >= ADAM_8BIT_FROM
    return math.ceil(parameter.numel() * (ADAM_8BIT_BYTES if in_8_bits else ADAM_BYTES))


def logit_bytes(tokens: int, vocabulary: int) -> int:
    """Return the most that logits take at a time, with everything supervised."""
    return min(tokens * vocabulary, MAX_LOGITS) * LOGIT_BYTES


def free_bytes(device: torch.device) -> int:
    """Return what the GPU has free; the least of all ranks.

    One policy for all: under FSDP the others would wait for a layer that one rank recomputes.
    """
    torch.cuda.empty_cache()
    free = torch.tensor(torch.cuda.mem_get_info(device)[0], device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(free, dist.ReduceOp.MIN)
    return int(free)


def measured_policy(
    model: nn.Module,
    language: PreTrainedModel,
    tokens: int,
    device: torch.device,
    compute: torch.dtype,
    shards: int = 1,
    optimizer: OptimizerName = "adamw",
) -> tuple[Policy, str]:
    """Choose by what the device has free and one layer keeps.

    Args:
        model: all that trains or is needed for it.
        language: the LLM in it.
        tokens: length of the longest pack.
        device: where training will be.
        compute: type that matrices are multiplied in.
        shards: as for `static_bytes`.
        optimizer: as for `static_bytes`.

    Returns:
        The policy and why. On a CPU it is `none`: memory is not what is short there.
    """
    if device.type != "cuda":
        return "none", f"the device is {device.type}"
    layer = measure_layer(language, tokens, device, compute)
    head: Any = language.get_output_embeddings()
    demand = Demand(
        free=free_bytes(device),
        static=static_bytes(model, device, shards, optimizer),
        logits=logit_bytes(tokens, head.weight.shape[0]),
        layers=len(decoder_layers(language)),
        tokens=tokens,
    )
    return cheapest_policy(layer, demand)
