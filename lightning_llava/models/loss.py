"""Next-token loss, as a sum over supervised tokens."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from lightning_llava.batch import IGNORE_INDEX

MAX_LOGITS = 2**26
"""Most logits held at a time. With what cross entropy keeps and its gradients, 16 bytes each, that
is 1 GiB. A pack of 8192 tokens of which an eighth is supervised stays below it at a vocabulary of
32k; at 152k (Qwen) or 256k (Gemma), or with everything supervised, it does not."""


def shifted_targets(
    labels: Int[Tensor, "rows tokens"], cu_seqlens: Int[Tensor, " samples_plus_1"] | None = None
) -> Int[Tensor, "rows tokens"]:
    """Return for every position the label of the next one; the last of each sample has none.

    Args:
        labels: of one packed row, or of padded rows.
        cu_seqlens: where the samples of a packed row begin and end.
    """
    targets = labels.roll(-1, dims=1)
    targets[:, -1] = IGNORE_INDEX
    if cu_seqlens is not None:
        targets[:, cu_seqlens[1:].long() - 1] = IGNORE_INDEX
    return targets


def summed_cross_entropy(
    logits: Float[Tensor, "*positions vocabulary"], targets: Int[Tensor, "*positions"]
) -> Float[Tensor, ""]:
    """Add up the loss of all supervised positions, in fp32.

    A sum, not a mean: means of micro-batches with unequal numbers of supervised tokens do not
    average to the mean of their union. The module divides by the number of supervised tokens of the
    whole optimizer step.
    """
    return cross_entropy(
        logits.flatten(0, -2).float(),
        targets.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="sum",
    )


def chunked_cross_entropy(
    hidden: Float[Tensor, "positions width"],
    targets: Int[Tensor, " positions"],
    to_logits: Callable[[Tensor], Tensor],
    vocabulary: int,
) -> Float[Tensor, ""]:
    """Add up the loss of hidden states without ever holding more than `MAX_LOGITS` logits.

    Chunks are recomputed in the backward pass: one more projection of the supervised positions,
    0.2 % of a step's FLOPs, and the only scheme that leaves a trained or sharded head to autograd.

    Args:
        hidden: the decoder's last hidden states at the supervised positions.
        targets: the token that each is to predict.
        to_logits: the decoder's head, a function of its input alone.
        vocabulary: number of logits per position.
    """
    rows = max(1, MAX_LOGITS // vocabulary)
    if hidden.shape[0] <= rows:
        return summed_cross_entropy(to_logits(hidden), targets)

    def chunk_loss(states: Tensor, wanted: Tensor) -> Tensor:
        return summed_cross_entropy(to_logits(states), wanted)

    # A head draws no random numbers.
    losses = [
        checkpoint(chunk_loss, states, wanted, use_reentrant=False, preserve_rng_state=False)
        for states, wanted in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.stack(losses).sum()
