"""torch.compile of the decoder layers: fewer and larger kernels, the same numbers but for rounding.

Layer by layer, because layers of one kind share one graph: it is compiled once, not once a layer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.activations import decoder_layers
from lightning_llava.models.probe import probe_values

Compile = Literal["none", "layers"]
"""What `model.compile` may be."""

LEAST_COSINE = 0.99
"""Between compiled and plain logits, and gradients. Rounding in bf16 leaves more, another function
less."""
MOST_GRAPHS = 32
"""Of one layer: with mask and without, recomputed and not, local and global attention. torch gives
up after 8, and then goes on without compiling."""


def compile_layers(
    language: PreTrainedModel,
    device: torch.device,
    dtype: torch.dtype,
    backend: str = "inductor",
) -> None:
    """Compile each decoder layer in place, and compare the result with the layers as they were.

    Parameters keep their names. Lengths and numbers of samples are dynamic from the start, so that
    packs share a graph. For the whole process, DDP no longer splits graphs where its buckets end.

    Args:
        language: with adapters, attention and recomputation as they train, on its device, in train
            mode.
        device: where it is.
        dtype: type that matrices are multiplied in.
        backend: as `torch.compile` knows it.

    Raises:
        SettingError: naming what compiled layers cannot have, what the compiler lacks, or how far
            off they are.
    """
    layers = decoder_layers(language)
    dropout = _dropout(layers)
    if reason := _obstacle(language, layers, dropout):
        raise SettingError(f"model.compile: layers {reason}")
    plain = probe_values(language, device, dtype)
    # Its split of a graph does not know recomputation, and a layer is about as small as a bucket.
    torch._dynamo.config.optimize_ddp = False  # pyright: ignore[reportAttributeAccessIssue]
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    # torch's own dropout: that of inductor draws wrong masks on CUDA in 2.13.
    options = {"fallback_random": True} if dropout and backend == "inductor" else None
    for layer in layers:
        layer.compile(backend=backend, dynamic=True, options=options)
    try:
        compiled = probe_values(language, device, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each stage of a compiler raises its own
        raise SettingError(
            f"model.compile: layers stops with {type(error).__name__} "
            f"({' '.join(str(error).split(chr(10))[:2])}); it needs a C++ compiler, and on a GPU "
            "triton; set model.compile: none"
        ) from error
    # With dropout the two need not draw the same.
    closeness = 1.0 if dropout else min(map(_cosine, plain, compiled))
    if not closeness >= LEAST_COSINE:
        raise SettingError(
            f"model.compile: layers computes something else than the layers themselves (cosine "
            f"{closeness:.4f}, expected {LEAST_COSINE} or more); set model.compile: none, or "
            "model.kernels: torch if it is liger"
        )
    rank_zero_info(f"model: {len(layers)} decoder layers are compiled by {backend}")


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled layers as they are written.

    While an LLM answers, each token would come with shapes of its own.
    """
    with torch.compiler.set_stance("force_eager"):
        yield


def _obstacle(language: PreTrainedModel, layers: nn.ModuleList, dropout: float) -> str | None:
    """Say what compiled layers cannot have, and which setting mends it."""
    if language.config._attn_implementation == "segments":
        return (
            "cannot follow attention `segments`, whose loop depends on the samples: it would be "
            "cut into pieces, and with recomputation not compiled at all; set model.attention: sdpa"
        )
    if any(hasattr(p, "quant_state") or hasattr(p, "SCB") for p in layers.parameters()):
        return (
            "does not go with adapters on weights quantized by bitsandbytes (peft's guide to "
            "torch.compile); set model.compile: none"
        )
    if dropout and any(getattr(layer, "gradient_checkpointing", False) for layer in layers):
        return (
            f"may draw another dropout ({dropout}) where a layer is recomputed, or stop in the "
            "compiler; set model.lora.dropout: 0 or model.activation_checkpointing: none"
        )
    return None


def _dropout(layers: nn.ModuleList) -> float:
    """Return the highest rate of dropout in the layers: adapters' and their own."""
    rates = [0.0]
    for module in layers.modules():
        own = module.p if isinstance(module, nn.Dropout) else 0.0
        attention = getattr(module, "attention_dropout", 0.0)
        rates += [own, attention if isinstance(attention, float) else 0.0]
    return max(rates)


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))
