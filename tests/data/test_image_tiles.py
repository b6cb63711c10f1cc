"""Overview and tiles, pixel by pixel those of transformers' LLaVA-NeXT."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from lightning_llava.data.images import ImageTransform
from lightning_llava.data.scan import image_size
from lightning_llava.errors import SettingError
from lightning_llava.specs import VisionSpec
from photographs import write_photographs

SIDE = 336
SIZES = [(1, 1), (32, 32), (40, 64), (33, 95), (500, 31), (31, 500), (96, 32), (300, 7), (64, 65)]


def reference(encoded, side, pinpoints=None):
    """Before normalisation, in bytes."""
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=pinpoints
        or [[h * side, w * side] for h, w in [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]],
    )
    options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    found = processor(Image.open(io.BytesIO(encoded)), **options)
    height, width = found["image_sizes"][0]
    return found["pixel_values"][0], (width, height)


def assert_identical(transform, encoded, side, **options):
    pictures = transform.prepare([encoded])
    pixels, size = reference(encoded, side, **options)
    assert pictures.sizes == [size] == [image_size(encoded)]
    assert {tile.dtype for tile in pictures.pixels} == {torch.uint8}
    np.testing.assert_array_equal(torch.stack(pictures.pixels).numpy(), pixels)


def noise(width, height):
    rng = np.random.default_rng([width, height])
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Wide, tall, tiny, grey, CMYK, and one with an EXIF orientation."""
    paths = write_photographs(tmp_path_factory.mktemp("photographs"))
    return {path.stem: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The processor and the config of CLIP ViT-L/14-336, without its weights."""
    folder = tmp_path_factory.mktemp("large")
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    sizes = {"image_size": SIDE, "patch_size": 14, "num_attention_heads": 16}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip_vision_model"} | sizes))
    return VisionSpec(name=str(folder), any_resolution=True)


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_photographs_as_transformers_prepares_them(photographs, large, mode):
    transform = ImageTransform(large, mode)
    for encoded in photographs.values():
        assert_identical(transform, encoded, SIDE)


def test_sizes_round_as_in_transformers(clip, siglip):
    """SigLIP's own processor would resize in another way than LLaVA-NeXT does."""
    for folder in (clip, siglip):
        transform = ImageTransform(VisionSpec(name=str(folder), any_resolution=True), "pad")
        for size in SIZES:
            assert_identical(transform, noise(*size), 32)


def test_grids_of_one_s_own(clip):
    spec = VisionSpec(name=str(clip), any_resolution=True, grids=[[1, 4], [3, 2]])
    transform = ImageTransform(spec, "pad")
    for size in SIZES:
        assert_identical(transform, noise(*size), 32, pinpoints=[[32, 128], [96, 64]])


def test_the_tiles_of_several_images_stand_one_after_another(clip):
    transform = ImageTransform(VisionSpec(name=str(clip), any_resolution=True), "pad")
    wide, square = noise(96, 32), noise(70, 70)
    together = transform.prepare([wide, square])
    assert together.sizes == [(96, 32), (70, 70)]
    alone = transform.prepare([wide]).pixels + transform.prepare([square]).pixels
    assert len(alone) == 4 + 5
    assert torch.equal(torch.stack(together.pixels), torch.stack(alone))


def test_the_fast_backend_is_off_by_single_levels(photographs, large):
    pytest.importorskip("simplejpeg")
    fast = ImageTransform(large, "pad", "fast")
    for name in ("coffee", "china_wide", "flower_tall"):
        expected, size = reference(photographs[name], SIDE)
        found = fast.prepare([photographs[name]])
        assert found.sizes == [size]
        difference = torch.stack(found.pixels).short() - torch.from_numpy(expected).short()
        assert difference.abs().max() <= 2


def test_a_damaged_image_is_an_error(clip):
    transform = ImageTransform(VisionSpec(name=str(clip), any_resolution=True), "pad")
    with pytest.raises(SettingError, match="cannot be decoded"):
        transform.prepare([noise(64, 64)[:200]])


def test_without_any_resolution_each_image_is_one_square(clip):
    transform = ImageTransform(VisionSpec(name=str(clip)), "pad")
    found = transform.prepare([noise(96, 32), noise(70, 70)])
    assert found.sizes == [(96, 32), (70, 70)]
    for pixels, encoded in zip(found.pixels, [noise(96, 32), noise(70, 70)], strict=True):
        assert torch.equal(pixels, transform(encoded))
