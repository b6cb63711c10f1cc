"""Next-token loss, as a sum over supervised tokens."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_llava.batch import IGNORE_INDEX


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
    logits: Float[Tensor, "rows positions vocabulary"], targets: Int[Tensor, "rows positions"]
) -> Float[Tensor, ""]:
    """Add up the loss of all supervised positions, in fp32.

    A sum, not a mean: means of micro-batches with unequal numbers of supervised tokens do not
    average to the mean of their union. The module divides by the number of supervised tokens of the
    whole optimizer step.
    """
    return cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
