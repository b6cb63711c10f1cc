"""Grids, sizes and numbers of features, against transformers' LLaVA-NeXT."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlavaNextProcessor, SiglipVisionConfig
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import (
    image_size_to_num_patches,
    unpad_image,
)

from lightning_llava.errors import SettingError
from lightning_llava.geometry import vision_geometry
from lightning_llava.specs import VisionSpec
from lightning_llava.tiling import NEWLINE, Tiling

LLAVA_1_6 = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Heights and widths of transformers' `image_grid_pinpoints`."""


def geometry(config=None, **settings):
    config = config or CLIPVisionConfig(image_size=336, patch_size=14)
    return vision_geometry(config, VisionSpec(name="folder", any_resolution=True, **settings))


def pinpoints(tiling):
    return [[rows * tiling.side, columns * tiling.side] for rows, columns in tiling.grids]


class Processor(LlavaNextProcessor):
    """Its arithmetic alone."""

    def __init__(self, tiling):
        self.patch_size, self.num_additional_image_tokens = tiling.side // tiling.patches, 0
        self.image_processor = self
        self.image_grid_pinpoints = pinpoints(tiling)


TILINGS = {
    "clip": geometry().tiling,
    # 27 patches of 14 pixels in 384: an odd number, and pixels to spare.
    "siglip": geometry(SiglipVisionConfig(image_size=384, patch_size=14)).tiling,
    "others": Tiling(((1, 4), (2, 3), (3, 3)), 64, 8),
}
sides = st.integers(1, 4000)


def test_the_default_grids_are_llava_1_6s():
    assert pinpoints(TILINGS["clip"]) == LLAVA_1_6
    assert geometry().image_tokens == 576
    assert TILINGS["clip"].most_tokens == 2928 - 576
    assert TILINGS["clip"].tokens_of((900, 600)) == 32 * 49
    assert TILINGS["clip"].tokens_of((672, 672)) == 48 * 49


def test_the_documentation_s_table_is_computed():
    text = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\d+) x (\d+) \| (\d) x (\d) \| 576 \+ (\d+) \* (\d+) = (\d+)", text)
    assert len(rows) == 4
    tiling = TILINGS["clip"]
    for width, height, *found in (map(int, row) for row in rows):
        kept_rows, kept_columns = tiling.kept((width, height))
        features = 576 + tiling.tokens_of((width, height))
        grid = tiling.grid_of((width, height))
        assert found == [*grid, len(kept_rows), len(kept_columns) + 1, features]


@pytest.mark.parametrize("name", TILINGS)
@given(width=sides, height=sides)
@example(width=1, height=1)
@example(width=336, height=336)
@example(width=640, height=427)  # a product that float arithmetic puts just below a whole number
@example(width=4000, height=7)
@example(width=7, height=4000)
def test_any_size_is_cut_as_transformers_does(name, width, height):
    tiling, size = TILINGS[name], (width, height)
    if not any(int(width * scale) and int(height * scale) for scale in scales(tiling, size)):
        return  # transformers finds no grid
    best = select_best_resolution((height, width), pinpoints(tiling))
    assert tuple(tiling.side * count for count in tiling.grid_of(size)) == best
    image = np.empty((3, height, width), dtype=np.uint8)
    expected = get_patch_output_size(image, best, input_data_format="channels_first")
    assert tiling.fit(size) == expected[::-1]
    assert tiling.count_tiles(size) == image_size_to_num_patches(
        (height, width), pinpoints(tiling), tiling.side
    )
    features = torch.zeros(1, *(length // tiling.side * tiling.patches for length in best))
    rows, columns = tiling.kept(size)
    assert unpad_image(features, (height, width)).shape == (1, len(rows), len(columns))
    theirs = Processor(tiling)._get_number_of_features(height, width, tiling.side, tiling.side)
    assert tiling.patches**2 + tiling.tokens_of(size) == theirs == len(tiling.order(size))
    assert tiling.tokens_of(size) <= tiling.most_tokens


def scales(tiling, size):
    return [min(w / size[0], h / size[1]) for h, w in pinpoints(tiling)]


def test_sizes_of_numpy_are_rounded_like_those_of_python():
    tiling = TILINGS["clip"]
    for size in [(1000, 563), (427, 640), (3, 500)]:
        assert tiling.tokens_of(tuple(np.array(size))) == tiling.tokens_of(size)


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_line_without_a_grid_in_transformers_keeps_its_overview(size):
    tiling = TILINGS["clip"]
    assert min(tiling.fit(size)) == 1
    assert (tiling.order(size) != NEWLINE).sum() == 576


def test_order_by_hand():
    tiling = Tiling(((1, 2),), side=4, patches=2)
    # Tiles 0 (overview), 1 and 2, of four features each; nothing is padding.
    assert tiling.order((8, 4)).tolist() == [0, 1, 2, 3, 4, 5, 8, 9, -1, 6, 7, 10, 11, -1]
    # Of a square, one column at either side is padding.
    assert tiling.order((4, 4)).tolist() == [0, 1, 2, 3, 5, 8, -1, 7, 10, -1]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"tokens": "cls_patch"}, "model.vision.tokens is cls_patch, but model.vision.any_res"),
        ({"grids": []}, r"model.vision.grids is \[\]; expected different pairs"),
        ({"grids": [[1, 2], [2]]}, r"model.vision.grids is \[\[1, 2\], \[2\]\]"),
        ({"grids": [[1, 0]]}, r"model.vision.grids is \[\[1, 0\]\]"),
        ({"grids": [[1, 2], [1, 2]]}, "expected different pairs of rows and columns"),
    ],
)
def test_what_has_no_grid_is_refused(settings, found):
    with pytest.raises(SettingError, match=found):
        geometry(**settings)


def test_without_any_resolution_there_are_no_tiles():
    assert vision_geometry(CLIPVisionConfig(), VisionSpec(name="folder")).tiling is None
