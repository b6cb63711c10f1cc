"""The fast backend against the default one, and against torch's and libjpeg's own results."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil

from lightning_llava.data import image_fast
from lightning_llava.data.images import ImageTransform
from lightning_llava.errors import SettingError
from lightning_llava.specs import VisionSpec
from photographs import write_photographs

SIDE = 336
LEVELS, SHARE, SHARE_OF_SMOOTH = 2, 0.01, 0.04
"""The tolerance that ImageTransform states."""
JPEGS = ["astronaut", "coffee", "rocket", "china_wide", "flower_tall", "cat_tiny", "moon_grey"]
JPEGS += ["cat_rotated"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    paths = write_photographs(tmp_path_factory.mktemp("photographs"))
    return {path.stem: path.read_bytes() for path in paths}


def both(folder, processor, mode):
    processor.save_pretrained(folder)
    spec = VisionSpec(name=str(folder))
    return [ImageTransform(spec, mode, backend) for backend in ("pillow", "fast")]


@pytest.fixture(scope="module", params=["square", "pad", "siglip"])
def backends(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    if request.param == "siglip":
        return both(folder, SiglipImageProcessorPil(size={"height": 384, "width": 384}), "square")
    clip = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    return both(folder, clip, request.param)


def difference(backends, encoded):
    expected, found = (transform(encoded).int() for transform in backends)
    assert found.shape == expected.shape
    return (found - expected).abs()


def resized(encoded, size):
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        image.resize(size, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def test_photographs_within_the_stated_tolerance(backends, photographs):
    shares = []
    for name in JPEGS:
        found = difference(backends, photographs[name])
        assert found.max() <= LEVELS
        assert (found > 0).float().mean() < SHARE
        # Enlarged ones are smooth, and 640 to 448 pixels is a round factor: many ties.
        for size in [(640, 480), (480, 640), (500, 375), (427, 640), (200, 150)]:
            found = difference(backends, resized(photographs[name], size))
            shares.append((found > 0).float().mean().item())
            assert found.max() <= LEVELS
            assert shares[-1] < SHARE_OF_SMOOTH
    assert sum(shares) / len(shares) < SHARE


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (480, 640), (100, 700), (700, 100)])
def test_noise_is_no_further_apart(backends, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=100, subsampling=0)
    assert difference(backends, stream.getvalue()).max() <= LEVELS


@pytest.mark.parametrize("name", JPEGS)
def test_jpegs_are_decoded_as_pillow_decodes_them(photographs, name):
    with Image.open(io.BytesIO(photographs[name])) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(image_fast.decode_jpeg(photographs[name]), expected)


def test_four_channels_and_other_formats_are_left_to_pillow(backends, photographs):
    png = io.BytesIO()
    with Image.open(io.BytesIO(photographs["coffee"])) as image:
        image.save(png, "PNG")
    cut = photographs["coffee"][:-100]
    for encoded in (photographs["coffee_cmyk"], png.getvalue(), cut, b""):
        assert image_fast.decode_jpeg(encoded) is None
    assert difference(backends, photographs["coffee_cmyk"]).max() == 0
    assert difference(backends, png.getvalue()).max() == 0


def test_padding_is_the_processors_colour(photographs, tmp_path):
    clip = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE)
    fast = both(tmp_path, clip, "pad")[1]
    pixels = fast(photographs["china_wide"])  # 640 x 160: 84 of 336 rows are picture
    grey = torch.tensor([122, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    assert (pixels[:, :120] == grey).all()
    assert (pixels[:, -120:] == grey).all()
    assert (pixels[:, 130:200] != grey).any()


def test_the_pixels_are_a_tensor_of_its_own(backends, photographs):
    pixels = backends[1](photographs["coffee"])
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert pixels.untyped_storage().nbytes() == pixels.numel()


def test_without_simplejpeg(monkeypatch, tmp_path):
    monkeypatch.setattr(image_fast, "simplejpeg", None)
    with pytest.raises(
        SettingError, match=r"simplejpeg is not installed; install the extra .*data"
    ):
        both(tmp_path, CLIPImageProcessorPil(), "square")


def test_a_processor_that_cannot_be_followed(tmp_path):
    with pytest.raises(SettingError, match=r"cannot follow ViTImageProcessorPil.*: pillow"):
        both(tmp_path, ViTImageProcessorPil(), "square")
