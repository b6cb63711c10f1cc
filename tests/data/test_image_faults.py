"""Damaged and unusual images: a sentence, or the same pixels by both backends."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from handmade import picture
from PIL import Image
from transformers import CLIPImageProcessorPil

from lightning_llava.data.images import ImageTransform, decode
from lightning_llava.errors import SettingError
from lightning_llava.specs import VisionSpec

SIDE = 32


@pytest.fixture(scope="module")
def transforms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder)
    spec = VisionSpec(name=str(folder))
    return [
        ImageTransform(spec, mode, backend)
        for mode in ("square", "pad")
        for backend in ("pillow", "fast")
    ]


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def smooth(width=64, height=48):
    """Colours that change slowly, as JPEG keeps them: red to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    colours = [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), np.full_like(x, 90)]
    return Image.fromarray(np.stack(colours, axis=2).astype(np.uint8))


def chunk(kind, content):
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def png(width, height, *chunks, depth=8, colour=2, data=b""):
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pieces = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def jpeg_of_size(width, height):
    """A sound JPEG whose header is made to state another size."""
    encoded = encode(smooth(), "JPEG")
    at = encoded.index(b"\xff\xc0") + 5
    return encoded[:at] + struct.pack(">HH", height, width) + encoded[at + 4 :]


def overwrite(encoded, part):
    at = len(encoded) // 2
    return encoded[:at] + part + encoded[at + len(part) :]


NOISE = {kind: picture(1, (64, 64), kind) for kind in ("JPEG", "PNG", "WEBP")}
ZEROS = zlib.compress(bytes(8 * (8 * 3 + 1)))
LONG_TEXT = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2_000_000))
UNUSABLE = {
    "empty": (b"", "0 bytes"),
    "text": (b"<html>404 Not Found</html>", r"begins with b'<html>40', no whole header"),
    "one byte of a header": (b"\xff", "no whole header"),
    "JPEG's header cut": (NOISE["JPEG"][:20], "no whole header"),
    "JPEG's data cut": (NOISE["JPEG"][: len(NOISE["JPEG"]) // 2], "image file is truncated"),
    "JPEG's last byte cut": (NOISE["JPEG"][:-1], "image file is truncated"),
    "JPEG's middle overwritten": (overwrite(NOISE["JPEG"], b"\xff" * 40), "broken data stream"),
    "PNG's header cut": (NOISE["PNG"][:20], "Truncated File Read"),
    "PNG's data cut": (NOISE["PNG"][: len(NOISE["PNG"]) // 2], "image file is truncated"),
    "PNG's middle overwritten": (overwrite(NOISE["PNG"], bytes(40)), "broken data stream"),
    "WebP's header cut": (NOISE["WEBP"][:20], "could not create decoder object"),
    "WebP's data cut": (NOISE["WEBP"][:-20], "could not create decoder object"),
    "no pixels": (png(0, 5), "no whole header"),
    "PNG bomb": (png(60_000, 60_000), "over the limit of 89,478,485 pixels"),
    "PNG at which Pillow only warns": (
        png(10_000, 9_000),
        r"10000 x 9000: over the limit of 89,478,485 pixels",
    ),
    "JPEG bomb": (jpeg_of_size(60_000, 60_000), "over the limit of 89,478,485 pixels"),
    "longer than a JPEG can be": (
        png(70_000, 1),
        "70000 x 1: over the limit of 65,535 pixels a side",
    ),
    "much text": (png(8, 8, LONG_TEXT, data=ZEROS), "Decompressed data too large"),
    "profile's segment cut": (
        (lambda e: e[: e.index(b"ICC_PROFILE") + 30])(
            encode(smooth(), "JPEG", icc_profile=bytes(500))
        ),
        "Truncated File Read",
    ),
    "32 bits": (
        encode(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"),
        "32 bits a channel, Pillow's mode I, do not say what white is; store it with 8 or 16",
    ),
    "floats": (
        encode(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
        "32 bits a channel, Pillow's mode F",
    ),
    "PostScript, which Pillow would run": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
        "begins with b'%!PS-Ado', no whole header",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_cannot_be_used_is_named(transforms, name):
    encoded, reason = UNUSABLE[name]
    sentence = rf"^the image cannot be decoded \(.*{reason}.*\)$"
    with pytest.raises(SettingError, match=sentence):
        decode(encoded)
    for transform in transforms:
        with pytest.raises(SettingError, match=sentence):
            transform(encoded)


def test_bombs_are_refused_before_memory_is_taken(transforms):
    tracemalloc.start()
    for name in ("PNG bomb", "PNG at which Pillow only warns", "JPEG bomb"):
        for transform in transforms:
            with pytest.raises(SettingError):
                transform(UNUSABLE[name][0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_no_cut_and_no_flipped_bits_are_more_than_an_error(transforms, kind):
    encoded, rng = NOISE[kind], np.random.default_rng(5)
    damaged = [encoded[:length] for length in rng.integers(0, len(encoded), 20)]
    for _ in range(30):
        spoilt = bytearray(encoded)
        for at in rng.integers(0, len(encoded), 3):
            spoilt[at] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(spoilt))
    refused = 0
    for content in damaged:
        found = []
        for transform in transforms[:2]:
            try:
                found.append(transform(content))
            except SettingError as error:
                refused += 1
                found.append(str(error))
        first, second = found
        assert type(first) is type(second)
        assert first == second if isinstance(first, str) else close(first, second)
    assert refused >= 40


def close(first, second):
    return (first.int() - second.int()).abs().max() <= 2


def test_damage_that_libjpeg_tolerates_is_pillows_decision(transforms):
    spoilt = overwrite(NOISE["JPEG"], bytes(40))
    by_pillow, by_fast = (transform(spoilt) for transform in transforms[:2])
    assert torch.equal(by_pillow, by_fast)


PALETTE = smooth().quantize(16)
FRAMES = [smooth(), Image.new("RGB", (64, 48)), smooth().transpose(Image.Transpose.ROTATE_180)]
USABLE = {
    "1 bit": encode(smooth().convert("1")),
    "grey": encode(smooth().convert("L")),
    "grey with alpha": encode(smooth().convert("LA")),
    "alpha": encode(smooth().convert("RGBA")),
    "palette": encode(PALETTE),
    "palette with transparency": encode(PALETTE, transparency=3),
    "16 bits": encode(
        Image.fromarray(np.linspace(0, 65535, 48 * 64, dtype=np.uint16).reshape(48, 64))
    ),
    "WebP": encode(smooth(), "WEBP"),
    "animated WebP": encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
    "animated PNG": encode(FRAMES[0], save_all=True, append_images=FRAMES[1:]),
    "two JPEGs in one": encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
    "GIF": encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
    "JPEG": encode(smooth(), "JPEG", quality=90),
    "grey JPEG": encode(smooth().convert("L"), "JPEG"),
    "progressive JPEG": encode(smooth(), "JPEG", progressive=True),
    "CMYK": encode(smooth().convert("CMYK"), "JPEG"),
    "JPEG stored as RGB": encode(smooth(), "JPEG", keep_rgb=True),
    "not subsampled": encode(smooth(), "JPEG", subsampling=0),
    "subsampled across": encode(smooth(), "JPEG", subsampling=1),
    "1 x 1": encode(smooth(1, 1), "JPEG"),
    "1 x 50": encode(smooth(1, 50), "JPEG"),
    "50 x 1": encode(smooth(50, 1), "JPEG"),
    "very long": encode(smooth(3000, 5), "JPEG"),
    "PNG of 1 pixel": encode(smooth(1, 1)),
    "broken profile": encode(smooth(), "JPEG", icc_profile=b"no profile"),
    "PNG with a cut profile": png(
        8, 8, chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"a" * 200)[:8]), data=ZEROS
    ),
    "bytes behind the end": encode(smooth(), "JPEG") + b"\0" * 100,
}


@pytest.mark.parametrize("name", USABLE)
def test_what_is_unusual_is_seen_alike_by_both_backends(transforms, name):
    encoded = USABLE[name]
    for by_pillow, by_fast in (transforms[:2], transforms[2:]):
        expected, found = by_pillow(encoded), by_fast(encoded)
        assert found.shape == expected.shape == (3, SIDE, SIDE)
        assert found.dtype == expected.dtype == torch.uint8
        assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("name", ["animated WebP", "animated PNG", "two JPEGs in one", "GIF"])
def test_the_first_frame_is_seen(name):
    with Image.open(io.BytesIO(USABLE[name])) as image:
        assert image.n_frames == 3
    decoded = np.asarray(decode(USABLE[name])).astype(int)
    assert np.abs(decoded - np.asarray(smooth())).mean() < 6  # the others are black or turned


def test_cmyk_is_taken_for_inverted_with_adobes_marker_and_without(transforms):
    """Photoshop inverts what it stores and says so by a marker; Pillow inverts back regardless."""
    encoded = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    marker = encoded.index(b"\xff\xee")
    assert encoded[marker + 4 : marker + 9] == b"Adobe"
    length = struct.unpack(">H", encoded[marker + 2 : marker + 4])[0]
    without = encoded[:marker] + encoded[marker + 2 + length :]
    for content in (encoded, without):
        assert np.abs(np.asarray(decode(content)).astype(int) - [255, 0, 0]).max() <= 3
        assert torch.equal(transforms[0](content), transforms[1](content))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_backends_ignore_the_orientation(transforms, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = encode(smooth(), "JPEG", exif=exif)
    with Image.open(io.BytesIO(turned)) as image:
        assert image.getexif()[0x0112] == orientation
    for transform in transforms:
        assert torch.equal(transform(turned), transform(encode(smooth(), "JPEG")))


def test_metadata_that_cannot_be_read_is_no_fault():
    exif = Image.Exif()
    exif[0x010E] = "x" * 300
    encoded = encode(smooth(), "JPEG", exif=exif)
    at = encoded.index(b"Exif") + 14
    spoilt = encoded[:at] + b"\xff" * 200 + encoded[at + 200 :]
    np.testing.assert_array_equal(
        np.asarray(decode(spoilt)), np.asarray(decode(encode(smooth(), "JPEG")))
    )
