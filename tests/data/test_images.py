import io
import pickle
import struct
import zlib
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from lightning_llava.data.images import ImageTransform, decode, expand_to_square
from lightning_llava.models.vision import load_vision_tower
from lightning_llava.specs import VisionSpec
from photographs import write_photographs

SIDE = 336
LLAVA_FILL = (122, 116, 104)  # LLaVA's tuple(int(x * 255) for x in image_mean) for CLIP
SHAPES = ["coffee", "flower_tall", "cat_tiny", "moon_grey"]
NAMES = ["astronaut", "coffee", "rocket", "china_wide", "flower_tall", "cat_tiny", "moon_grey"]
NAMES += ["coffee_cmyk", "cat_rotated"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    paths = write_photographs(tmp_path_factory.mktemp("photographs"))
    assert [path.stem for path in paths] == NAMES
    return {path.stem: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def transforms(tmp_path_factory):
    """Both modes for the processor of CLIP ViT-L/14-336."""
    folder = tmp_path_factory.mktemp("processor")
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    return {mode: ImageTransform(VisionSpec(name=str(folder)), mode) for mode in ("square", "pad")}


def reference(mode, side=SIDE):
    """transformers' own processors, that of LLaVA for `pad`."""
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    if mode == "pad":
        return LlavaImageProcessorPil(do_pad=True, **sizes)
    return CLIPImageProcessorPil(**sizes)


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(width, height, channels=3):
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, channels), dtype=np.uint8))


def assert_identical(pixels, encoded, mode, side=SIDE):
    options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    image = Image.open(io.BytesIO(encoded))
    expected = reference(mode, side)(image, **options)["pixel_values"][0]
    assert pixels.dtype == torch.uint8
    np.testing.assert_array_equal(pixels.numpy(), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["square", "pad"])
def test_photographs_as_transformers_prepares_them(photographs, transforms, mode, name):
    pixels = transforms[mode](photographs[name])
    assert pixels.shape == (3, SIDE, SIDE)
    assert_identical(pixels, photographs[name], mode)


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_sizes_round_as_in_transformers(transforms, mode):
    for long, short in [(2, 1), (9, 7), (97, 31), (335, 333), (337, 335), (338, 337), (641, 427)]:
        for size in ((long, short), (short, long)):
            encoded = encode(noise(*size))
            assert_identical(transforms[mode](encoded), encoded, mode)


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_many_sizes_round_as_in_transformers(clip, mode):
    transform = ImageTransform(VisionSpec(name=str(clip)), mode)
    for long in range(31, 80, 3):
        for short in (5, 29, 32, 33):
            encoded = encode(noise(long, short))
            assert_identical(transform(encoded), encoded, mode, side=32)


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_the_tower_sees_what_transformers_would_show_it(photographs, clip, mode):
    spec = VisionSpec(name=str(clip))
    transform, tower = ImageTransform(spec, mode), load_vision_tower(spec, torch.float32)
    processor = reference(mode, side=32)
    for name in SHAPES:
        image = Image.open(io.BytesIO(photographs[name]))
        expected = processor(image, return_tensors="pt")["pixel_values"]
        assert_same_pixels(seen_by(tower, transform(photographs[name])), expected, name)


def test_siglip_as_transformers_prepares_it(photographs, siglip):
    spec = VisionSpec(name=str(siglip))
    transform, tower = ImageTransform(spec, "square"), load_vision_tower(spec, torch.float32)
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    for name in SHAPES:
        image = Image.open(io.BytesIO(photographs[name]))
        expected = processor(image, return_tensors="pt")["pixel_values"]
        assert_same_pixels(seen_by(tower, transform(photographs[name])), expected, name)


def test_siglip_pads_with_its_own_grey(siglip):
    pad = ImageTransform(VisionSpec(name=str(siglip)), "pad")
    assert pad.fill == (127, 127, 127)  # int(0.5 * 255)
    pixels = pad(encode(Image.new("RGB", (64, 32), "red")))
    assert pixels.shape == (3, 32, 32)
    assert pixels[:, 0].unique().tolist() == [127]


def seen_by(tower, pixels):
    caught = []
    with tower.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: caught.append(kwargs["pixel_values"]), with_kwargs=True
    ):
        tower(pixels.unsqueeze(0))
    return caught[0]


def assert_same_pixels(found, expected, name):
    # x / 255 against x * (1 / 255): a few roundings in float32 of values up to 2.7, while one
    # level of a pixel is 0.014 and more.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6, msg=lambda text: name + text)


@pytest.mark.parametrize("size", [(7, 4), (4, 7), (7, 2), (2, 7), (5, 5), (1, 6)])
def test_expand_to_square_as_llava_writes_it(transforms, size):
    image = noise(*size)
    expected = llava_expand2square(image, LLAVA_FILL)
    assert transforms["pad"].fill == LLAVA_FILL
    found = expand_to_square(image, transforms["pad"].fill)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def llava_expand2square(image, fill):
    """LLaVA, mm_utils.py."""
    width, height = image.size
    if width == height:
        return image
    if width > height:
        result = Image.new(image.mode, (width, width), fill)
        result.paste(image, (0, (width - height) // 2))
        return result
    result = Image.new(image.mode, (height, height), fill)
    result.paste(image, ((height - width) // 2, 0))
    return result


def test_padding_cuts_nothing_off(transforms):
    image = Image.new("RGB", (SIDE, SIDE // 2), "blue")
    pixels = transforms["pad"](encode(image))
    blue = (pixels == torch.tensor([0, 0, 255]).view(3, 1, 1)).all(0)
    grey = (pixels == torch.tensor(LLAVA_FILL).view(3, 1, 1)).all(0)
    assert blue[84:252].all()  # 336 wide already, so that nothing is resampled
    assert grey[:84].all()
    assert grey[252:].all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("shape", ["square", "pad"])
def test_every_mode_becomes_rgb_as_in_transformers(transforms, mode, shape):
    encoded = encode(noise(40, 30, channels=4).convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    assert Image.open(io.BytesIO(encoded)).mode == mode
    assert decode(encoded).mode == "RGB"
    assert_identical(transforms[shape](encoded), encoded, shape)


def test_transparency_shows_white():
    pixels = np.zeros((1, 3, 4), np.uint8)  # black everywhere, whatever the alpha
    pixels[0, :, 3] = [255, 51, 0]
    expected = [[[0] * 3, [204] * 3, [255] * 3]]  # 255 * (1 - 51 / 255) = 204
    assert np.asarray(decode(encode(Image.fromarray(pixels)))).tolist() == expected


@pytest.mark.parametrize("transparency", [bytes([0, 255]), 0])
def test_transparent_palette_colour_shows_white(transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.putpixel((1, 0), 1)
    encoded = encode(image, transparency=transparency)
    assert np.asarray(decode(encoded)).tolist() == [[[255] * 3, [9, 8, 7]]]


def test_16_bits_keep_their_high_byte():
    values = np.array([[0, 255, 256, 0x1234, 0x80FF, 65535]], np.uint16)
    encoded = encode(Image.fromarray(values))
    assert Image.open(io.BytesIO(encoded)).mode == "I;16"
    assert np.asarray(decode(encoded))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0x80, 255]
    # Pillow does the same with 16 bits of three channels.
    coloured = np.asarray(decode(png_16_bit_rgb(values.repeat(3))))
    np.testing.assert_array_equal(coloured, np.asarray(decode(encoded)))


def png_16_bit_rgb(values):
    """Write one row of RGB pixels; Pillow cannot."""
    header = struct.pack(">IIBBBBB", len(values) // 3, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + values.astype(">u2").tobytes())
    chunks = [b"IHDR" + header, b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def test_exif_orientation_is_ignored(photographs):
    encoded = photographs["cat_rotated"]
    stored = Image.open(io.BytesIO(encoded))
    assert ImageOps.exif_transpose(stored).size == (451, 300)
    assert decode(encoded).size == (300, 451)
    np.testing.assert_array_equal(np.asarray(decode(encoded)), np.asarray(stored))


ODD = [(500, 333), (337, 336), (336, 337), (1, 1), (1, 9), (9, 1), (640, 425), (375, 500)]


@pytest.mark.parametrize("mode", ["square", "pad"])
def test_any_size_rounds_as_in_transformers(transforms, mode):
    random = Random(20261123)
    sizes = ODD + [(random.randint(1, 700), random.randint(1, 700)) for _ in range(25)]
    sizes += [(random.randint(1, 9), random.randint(9, 90)) for _ in range(5)]
    for size in sizes:
        encoded = encode(noise(*size))
        assert_identical(transforms[mode](encoded), encoded, mode)


PROCESSORS = {
    "crop smaller than the edge": CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=32),
    "bilinear": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32, resample=2),
    "crop larger than the edge": CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=32),
    "no crop, stretched": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    "stretched, then cropped": CLIPImageProcessorPil(
        size={"height": 40, "width": 40}, crop_size=32
    ),
    "stretched bilinear": ViTImageProcessorPil(size={"height": 32, "width": 32}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_of_other_towers(tmp_path, name):
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    transform = ImageTransform(VisionSpec(name=str(tmp_path)), "square")
    followed = "bilinear" not in name and "larger" not in name
    assert (transform.processor is None) == followed
    for size in [(50, 30), (30, 50), (61, 60), (41, 97), (7, 5), (33, 33)]:
        encoded = encode(noise(*size))
        expected = processor(
            Image.open(io.BytesIO(encoded)),
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
        )["pixel_values"][0]
        np.testing.assert_array_equal(transform(encoded).numpy(), expected, err_msg=str(size))


def test_a_transform_goes_to_other_processes(transforms, photographs):
    transform = transforms["pad"]
    pickled = pickle.dumps(transform)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert torch.equal(again(photographs["coffee"]), transform(photographs["coffee"]))
