"""Grids of tiles as others write them: sizes in pixels, under the name `image_grid_pinpoints`.

transformers has height before width, and the original code (LLaVA mm_utils.py) width before height.
The order of the list counts, too: a small square picture fits a grid of 1 x 2 as well as one of
2 x 1, and takes the first. So the same list is not the same in both.
"""

import ast
from collections.abc import Sequence
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.tiling import Grid

Pinpoints = list[list[int]]
"""Height and width, as transformers has them."""

PUBLISHED = [[2, 1], [1, 2], [2, 2], [1, 3], [3, 1]]
"""Grids of LLaVA 1.6, as the original code reads them."""


def pinpoints_of(grids: Sequence[Grid], side: int) -> Pinpoints:
    """Write grids of tiles of a side."""
    return [[rows * side, columns * side] for rows, columns in grids]


def grids_of(pinpoints: Pinpoints, side: int, setting: str) -> list[list[int]]:
    """Read rows and columns of tiles.

    Args:
        pinpoints: what a model's config says.
        side: of its tower's pictures.
        setting: what the user named the model by.

    Raises:
        SettingError: sizes that are no whole tiles.
    """
    if any(length % side or length < side for pair in pinpoints for length in pair):
        raise SettingError(
            f"{setting}: config.json has image_grid_pinpoints {pinpoints} (height, width), "
            f"expected multiples of {side}, the side of its tower's pictures; grids of other sizes "
            "cannot be imported"
        )
    return [[height // side, width // side] for height, width in pinpoints]


def parse_pinpoints(value: Any, setting: str) -> Pinpoints:
    """Read a field of a config.json: a list of pairs, or one written as text.

    Raises:
        SettingError: it is something else; LLaVA-NeXT's later models say `(1x1),...,(6x6)`.
    """
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
        pairs = [[int(first), int(second)] for first, second in found]
    except (ValueError, SyntaxError, TypeError) as error:
        raise SettingError(
            f"{setting}: config.json has image_grid_pinpoints {value!r}, expected a list of pairs "
            "of pixels; models of another list cannot be imported"
        ) from error
    return pairs


def turned(pinpoints: Pinpoints) -> Pinpoints:
    """Exchange height and width, between transformers and the original code."""
    return [[second, first] for first, second in pinpoints]
