"""Which decoder layers recompute their activations in the backward pass, instead of keeping them.

A policy changes memory and time, never losses or gradients: what a layer draws for dropout is drawn
again from the same random state.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_llava.errors import SettingError

Policy = Literal["none", "every_3", "every_2", "full"]

Checkpointing = Literal["auto", "none", "every_3", "every_2", "full"]
"""What `model.activation_checkpointing` may be: a policy, or one chosen by memory."""

INTERVALS: dict[Policy, int | None] = {"none": None, "every_3": 3, "every_2": 2, "full": 1}
"""Every which layer is recomputed; the cheapest first."""
LOGIT_BYTES = 16
"""Per logit: bf16, its fp32 copy, its log-probability, two gradients."""
MARGIN = 0.08
"""Share of the free memory that stays out of the sum: image features while the tower runs, the
allocator's fragments, matrix products' own workspaces."""
GIB = 2**30


@dataclass(frozen=True)
class LayerBytes:
    """What one decoder layer keeps until its backward pass, with a whole pack in it.

    Args:
        kept: where nothing is recomputed.
        recomputed: where the layer is: its input, and autocast's copies of trained weights.
    """

    kept: int
    recomputed: int


@dataclass(frozen=True)
class Demand:
    """What a training step needs besides activations.

    Args:
        free: bytes the device has, before what `static` counts is there.
        static: weights that are still to come, gradients, optimizer states.
        logits: bytes at most.
        layers: decoder layers.
        tokens: in the longest pack.
    """

    free: int
    static: int
    logits: int
    layers: int
    tokens: int


def num_recomputed(policy: Policy, layers: int) -> int:
    """Count the layers that a policy recomputes: the first, and every n-th after it."""
    interval = INTERVALS[policy]
    return 0 if interval is None else -(-layers // interval)


def needed_bytes(policy: Policy, layer: LayerBytes, demand: Demand) -> int:
    """Add up the peak of a step: at the end of the forward pass, as the first layer is undone.

    One more layer than is kept: in the backward pass it is a recomputed one, or the gradients with
    respect to the activations of one that was kept.
    """
    recomputed = num_recomputed(policy, demand.layers)
    kept = demand.layers - recomputed + 1
    activations = kept * layer.kept + recomputed * layer.recomputed
    return demand.static + demand.logits + activations


def cheapest_policy(layer: LayerBytes, demand: Demand) -> tuple[Policy, str]:
    """Choose the policy that recomputes least and fits.

    Returns:
        The policy, and the numbers behind it. Where none fits it is `full`, and the reason says so:
        the sum is an estimate.
    """
    limit = int(demand.free * (1 - MARGIN))
    needs = {policy: needed_bytes(policy, layer, demand) for policy in INTERVALS}
    fitting: list[Policy] = [policy for policy in INTERVALS if needs[policy] <= limit]
    chosen: Policy = fitting[0] if fitting else "full"
    per_token = layer.kept / demand.tokens / 1024
    sums = ", ".join(f"{policy} {need / GIB:.1f}" for policy, need in needs.items())
    reason = (
        f"of {demand.free / GIB:.1f} GiB free, {limit / GIB:.1f} without a margin; needed GiB: "
        f"{sums} (weights, gradients and optimizer {demand.static / GIB:.1f}, {demand.layers} "
        f"layers x {demand.tokens} tokens x {per_token:.0f} KiB)"
    )
    if not fitting:
        reason += "; even full may not fit: lower data.pack_tokens"
    return chosen, reason


def decoder_layers(language: PreTrainedModel) -> nn.ModuleList:
    """Find the stack of decoder layers.

    Raises:
        SettingError: it is not built as transformers builds it.
    """
    depth = language.config.get_text_config().num_hidden_layers
    for module in language.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise SettingError(
        f"model.language.name: {type(language).__name__} has no stack of {depth} decoder layers; "
        "set model.activation_checkpointing and model.compile to none"
    )


def apply_policy(language: PreTrainedModel, policy: Policy) -> None:
    """Set which decoder layers are recomputed, in place; parameters keep their names.

    Through the switch that transformers gives each of its layers, which acts in train mode alone
    and leaves the hooks of FSDP2 outside.

    Raises:
        SettingError: an unknown policy, or layers without the switch.
    """
    if policy not in INTERVALS:
        raise SettingError(
            f"model.activation_checkpointing: found {policy!r}; expected one of auto, "
            f"{', '.join(INTERVALS)}"
        )
    interval = INTERVALS[policy]
    recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=True)
    for index, layer in enumerate(decoder_layers(language)):
        if interval is not None and not isinstance(layer, GradientCheckpointingLayer):
            raise SettingError(
                f"model.activation_checkpointing: {type(layer).__name__} cannot be recomputed; "
                "set it to none"
            )
        switch = cast(Any, layer)
        switch.gradient_checkpointing = interval is not None and index % interval == 0
        switch._gradient_checkpointing_func = recompute
