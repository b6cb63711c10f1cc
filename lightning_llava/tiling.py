"""Any resolution (LLaVA-1.6): which tiles an image is cut into, and which features stay. Pure.

An image of 900 x 600 pixels on the grid of two rows and two columns of 336 pixels:

    overview   the whole image, resized to one square: 24 x 24 features
    tiles      the image, resized to 672 x 448 and centred on 672 x 672, cut into four squares;
               together 48 x 48 features, of which the padding's are left out: 32 rows of 48,
               and after each row the learnt newline

576 + 32 * 49 = 2144 features. All roundings are those of transformers (image_processing_utils.py:
select_best_resolution, get_patch_output_size; modeling_llava_next.py: unpad_image).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
from jaxtyping import Int64

Size = tuple[int, int]
"""Width and height of an image in pixels."""
Grid = tuple[int, int]
"""Rows and columns of tiles."""
NEWLINE = -1
"""Stands for the newline among the numbers of features."""


@dataclass(frozen=True)
class Tiling:
    """How images of any size are cut up for a tower."""

    grids: tuple[Grid, ...]
    side: int
    """Of a tile in pixels: what the tower takes."""
    patches: int
    """Of a tile's row in the tower."""

    @property
    def most_tokens(self) -> int:
        """The most that an image can take beside its overview."""
        return max(
            rows * self.patches * (columns * self.patches + 1) for rows, columns in self.grids
        )

    def grid_of(self, size: Size) -> Grid:
        """Choose what shows most of an image; among equals, what wastes least; then the first."""
        width, height = map(int, size)
        best, most, least = self.grids[0], -1, 0
        for rows, columns in self.grids:
            across, down = columns * self.side, rows * self.side
            scale = min(across / width, down / height)
            shown = min(int(width * scale) * int(height * scale), width * height)
            waste = across * down - shown
            if shown > most or (shown == most and waste < least):
                best, most, least = (rows, columns), shown, waste
        return best

    def count_tiles(self, size: Size) -> int:
        """Count what the tower encodes: the overview and the tiles."""
        rows, columns = self.grid_of(size)
        return 1 + rows * columns

    def fit(self, size: Size) -> Size:
        """Give the size to which an image is resized before it is centred on its grid."""
        width, height = map(int, size)
        rows, columns = self.grid_of(size)
        across, down = columns * self.side, rows * self.side
        by_width, by_height = across / width, down / height
        if by_width < by_height:
            return across, min(ceil(height * by_width), down)
        return min(ceil(width * by_height), across), down

    def kept(self, size: Size) -> tuple[range, range]:
        """Give the rows and the columns of the tiles' features that are no padding.

        None may be left of an image that is a line: its overview then stands alone.
        """
        width, height = map(int, size)
        rows, columns = (count * self.patches for count in self.grid_of(size))
        if width / height > columns / rows:
            padding = (rows - int(round(height * (columns / width), 7))) // 2
            return range(padding, rows - padding), range(columns)
        padding = (columns - int(round(width * (rows / height), 7))) // 2
        return range(rows), range(padding, columns - padding)

    def tokens_of(self, size: Size) -> int:
        """Count what an image takes beside its overview: features of tiles, and newlines."""
        rows, columns = self.kept(size)
        return len(rows) * (len(columns) + 1)

    def order(self, size: Size) -> Int64[np.ndarray, " features"]:
        """Number an image's features in reading order.

        Returns:
            The overview's, then row by row those of all tiles, as they stand one after another in
            what the tower gives for overview and tiles; `NEWLINE` after each row.
        """
        return _order(self.patches, self.grid_of(size), *self.kept(size))


@lru_cache(maxsize=1024)
def _order(
    patches: int, grid: Grid, kept_rows: range, kept_columns: range
) -> Int64[np.ndarray, " features"]:
    of_tile = patches * patches
    rows, columns = np.array(kept_rows, dtype=np.int64)[:, None], np.array(kept_columns, np.int64)
    tile = 1 + rows // patches * grid[1] + columns // patches
    numbers = tile * of_tile + rows % patches * patches + columns % patches
    with_newlines = np.pad(numbers, ((0, 0), (0, 1)), constant_values=NEWLINE)
    order = np.concatenate([np.arange(of_tile), with_newlines.reshape(-1)])
    order.setflags(write=False)  # others get the same one
    return order
