"""Any resolution: an image to overview and tiles, pixel by pixel as transformers does."""

from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor

from lightning_llava.data.image_resize import Axis
from lightning_llava.tiling import Size, Tiling

Resize = Callable[[Axis, Axis], UInt8[Tensor, "3 height width"]]
"""What becomes of width and height, to pixels."""


def cut_tiles(resize: Resize, size: Size, tiling: Tiling) -> UInt8[Tensor, "tiles 3 side side"]:
    """Stretch an image over one square; then show it once more in its own proportions, in tiles.

    Args:
        resize: of the image.
        size: of the image.
        tiling: of the tower.
    """
    side = tiling.side
    overview = resize(*_whole(size, (side, side)))
    fitted = tiling.fit(size)
    rows, columns = tiling.grid_of(size)
    canvas = torch.zeros(3, rows * side, columns * side, dtype=torch.uint8)
    left, top = (columns * side - fitted[0]) // 2, (rows * side - fitted[1]) // 2
    canvas[:, top : top + fitted[1], left : left + fitted[0]] = resize(*_whole(size, fitted))
    tiles = canvas.view(3, rows, side, columns, side).permute(1, 3, 0, 2, 4)
    return torch.cat([overview[None], tiles.reshape(-1, 3, side, side)])


def _whole(size: Size, target: Size) -> tuple[Axis, Axis]:
    """Resize all of an image, whatever that does to its proportions."""
    across, down = (
        Axis(image, image, 0, made, 0, made) for image, made in zip(size, target, strict=True)
    )
    return across, down
