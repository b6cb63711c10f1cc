"""Any resolution: which of a tower's features an image keeps, and the newlines between its rows.

(LLaVA-NeXT: llava_arch.py, `spatial_unpad`.) What shows padding is left out before the projector,
which takes every feature alone, and newlines are put in behind it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lightning_llava.tiling import NEWLINE, Size, Tiling


def build_newline(tiling: Tiling | None, llm_width: int) -> nn.Parameter | None:
    """Draw the newline as LLaVA-NeXT does (llava_arch.py); without tiles there is none."""
    return nn.Parameter(torch.randn(llm_width) / math.sqrt(llm_width)) if tiling else None


def reading_order(sizes: Sequence[Size], tiling: Tiling, found: int) -> Int64[Tensor, " features"]:
    """Number the features of a batch's images in reading order, with `NEWLINE` after each row.

    Args:
        sizes: of the images.
        tiling: that they were cut with.
        found: tiles that the tower was given, overviews among them.

    Raises:
        ValueError: sizes that give another number of tiles.
    """
    tiles = [tiling.count_tiles(size) for size in sizes]
    if sum(tiles) != found:
        raise ValueError(
            f"{len(sizes)} images of the sizes {[*sizes][:5]} take {sum(tiles)} tiles, but there "
            f"are pixels of {found}"
        )
    starts = np.cumsum([0, *tiles]) * tiling.patches**2
    orders = []
    for start, size in zip(starts[:-1], sizes, strict=True):
        order = tiling.order(size)
        orders.append(np.where(order == NEWLINE, NEWLINE, order + start))
    return torch.from_numpy(np.concatenate(orders))


def insert_newlines(
    features: Float[Tensor, "kept width"],
    newline: Float[Tensor, " width"],
    is_newline: Bool[Tensor, " features"],
) -> Float[Tensor, "features width"]:
    """Spread features over the places that are no newlines."""
    # `where`, not a lookup: the newline's gradient is then one sum, in a fixed order on a GPU, too.
    before = ((~is_newline).cumsum(0) - 1).clamp(min=0)
    return torch.where(is_newline[:, None], newline.to(features.dtype), features[before])
