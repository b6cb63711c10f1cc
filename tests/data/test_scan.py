import io
import pickle
import struct
import tarfile
import warnings
import zlib

import pytest
from handmade import picture, record, says, write_tar
from PIL import Image, UnidentifiedImageError
from webdataset.tariterators import base_plus_ext

from lightning_llava.data.image_decode import decode
from lightning_llava.data.scan import Scan, countable, image_size, scan_shard, split_name
from lightning_llava.errors import SettingError

QUESTION = says("<image>\nWhat is it?", "A cat.")
ONE, GOOD = record("a", QUESTION, 1), record("good", says("Hi", "Hello"))
PNG = picture(0)
NO_TEXT = "something else stands where a text is expected"


def scan(*members, full=False):
    """Scan a shard of these members: what was found, what was left out, what was noted."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return scan_bytes(stream.getvalue(), full)


def scan_bytes(whole, full=False):
    result = Scan()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = list(scan_shard(io.BytesIO(whole), len(whole), result, full))
    assert not told
    return found, result.quarantine, result.notes


def reason_of(*members, full=False):
    """Scan a bad sample beside a good one; return what is said of it."""
    found, quarantine, _ = scan(("good.json", GOOD), *members, full=full)
    assert [sample.key for sample in found] == ["good"]
    ((key, reason),) = quarantine
    assert key == "bad"
    return reason


def png_header(width, height):
    """A PNG up to its first data, of any size."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.jpg",
            "a.b.jpg",
            "./x.y/a.jpg",
            ".hidden.jpg",
            "noending",
            "f/a.",
            "._a.jpg",
        ),
        *("x.y/noending", "a..jpg", "/etc/a.json", "../a.0.png", "f//a.json"),
    ],
)
def test_keys_are_webdatasets(name):
    key, ending = base_plus_ext(name)
    assert split_name(name) == (None if key is None else (key, ending))


def test_what_is_found():
    members = [("f/a.json", ONE), ("f/a.PNG", PNG), ("b.json", GOOD)]
    (a, b), quarantine, notes = scan(*members)
    assert (a.key, b.key, quarantine, notes) == ("f/a", "b", [], {})
    assert [image.size for image in a.images] == [(20, 12)]
    assert (a.record.id, a.record.images, b.images) == ("a", [b""], [])
    # Header, record, header, image, and so on: the writer pads to 512 bytes.
    assert a.extent == (512, len(ONE))
    assert a.images[0].extent == (1536, len(PNG))


def test_dotted_names_are_never_merged():
    members = [
        (f"img.v{i}.{end}", PNG if end == "jpg" else ONE) for i in "12" for end in ("jpg", "json")
    ]
    found, ((key, reason),), _ = scan(*members, ("ok.json", GOOD))
    assert [sample.key for sample in found] == ["ok"]
    assert key == "img"
    assert reason == (
        "a name has more dots than the one before its ending, and webdataset ends the key of a "
        "sample at the first: rename the members ('img.v1.jpg')"
    )
    assert "more dots" in reason_of(("bad.1.json", ONE), ("bad.1.jpg", PNG))
    assert "more dots" in reason_of(("bad.20240131120000.jpg", PNG), ("bad.json", ONE))


def test_members_apart_are_joined_and_counted():
    members = [("a.png", PNG), ("b.json", GOOD), ("a.json", ONE), ("c.json", GOOD)]
    found, quarantine, notes = scan(*members)
    assert [sample.key for sample in found] == ["a", "b", "c"]
    assert [len(sample.images) for sample in found] == [1, 0, 0]
    assert quarantine == []
    assert notes == {"samples joined whose members do not stand together": 1}


def test_duplicates():
    image, json = ("bad.png", PNG), ("bad.json", ONE)
    assert reason_of(image, json, image) == "a member is there twice (png and png)"
    assert reason_of(json, image, ("x.txt", b""), json) == "a member is there twice (json and json)"
    assert reason_of(json, image, ("bad.0.jpg", PNG)) == "a member is there twice (png and 0.jpg)"
    assert reason_of(json, image, ("bad.PNG", PNG)) == "a member is there twice (png and png)"


def test_missing_and_superfluous_members():
    assert reason_of(("bad.png", PNG)) == "the .json member is missing"
    one = "the record was written with 1"
    assert reason_of(("bad.json", ONE)) == f"0 images in the shard, but {one}"
    members = [("bad.json", ONE), ("bad.0.png", PNG), ("bad.1.png", PNG)]
    assert reason_of(*members) == f"2 images in the shard, but {one}"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not a record of this schema (JSONDecodeError: "),
        (b"{", "not a record of this schema (JSONDecodeError: "),
        (b"[]", "not a record of this schema (TypeError: "),
        (b'{"\xff', "not a record of this schema (UnicodeDecodeError: "),
        ("{é".encode("latin-1"), "not a record of this schema (UnicodeDecodeError: "),
        (b"[" * 100_000, "not a record of this schema (RecursionError: "),
        (record("a", says("\ud83d", "Hi")), f"{NO_TEXT} ('\\ud83d')"),
        (record("a", says("?", "!"), source=None), f"{NO_TEXT} (None)"),
        (record("a", says("?", "!"), language=["ru"]), f"{NO_TEXT} (['ru'])"),
        (record("a", says("Hi", "Hi"), version=3), "schema version 3, expected 1"),
        (record("a", []), "no turns"),
        (record("a", says("<image>", "Hi")), "1 <image> placeholders but 0 images"),
        (
            record(
                "a", says("?", "!"), boxes=[{"xyxy": [0, 0, 10**400, 1], "phrase": "", "image": 0}]
            ),
            "not a record of this schema (OverflowError: ",
        ),
    ],
)
def test_bad_records(payload, reason):
    assert reason_of(("bad.json", payload)).startswith(reason)


def test_a_record_too_long_to_be_read(monkeypatch):
    monkeypatch.setattr("lightning_llava.data.scan.RECORD_LIMIT", 1000)
    reason = reason_of(("bad.json", b" " * 1001))
    assert reason == "the record takes more than 1000 bytes (1001)"


def jpeg(**options):
    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "image 0 is empty"),
        (
            b"GIF89a" + bytes(99),
            "image 0 has no header of a JPEG, PNG or WebP (begins with b'GIF89a",
        ),
        (b"not an image", "image 0 has no header of a JPEG, PNG or WebP (begins with b'not an i')"),
        (PNG[:20], "image 0 has a header that cannot be read (OSError: Truncated File Read)"),
        (jpeg()[:15], "image 0 has a header that cannot be read (OSError: Truncated File Read)"),
        (jpeg()[:3], "image 0 has no header of a JPEG, PNG or WebP (begins with "),
        (png_header(0, 5), "image 0 has "),
        (
            png_header(60_000, 60_000),
            "image 0 cannot be decoded (over the limit of 89,478,485 pixels: Image size (36000000",
        ),
    ],
)
def test_bad_image_headers(encoded, reason):
    assert reason_of(("bad.json", ONE), ("bad.png", encoded)).startswith(reason)


def test_the_reason_names_the_image():
    two = record("a", says("<image><image>Same?", "No."), 2)
    members = [("bad.json", two), ("bad.0.png", PNG), ("bad.1.png", b"")]
    assert reason_of(*members) == "image 1 is empty"


def test_the_limit_is_that_of_training():
    for side, left in ((9459, 1), (9460, 0)):  # 89,472,681 and 89,491,600 pixels
        found, quarantine, _ = scan(("a.json", ONE), ("a.png", png_header(side, side)))
        assert (len(found), len(quarantine)) == (left, 1 - left)
    reason = "image 0 cannot be decoded (9460 x 9460: over the limit of 89,478,485 pixels)"
    assert quarantine == [("a", reason)]
    with pytest.raises(SettingError) as error:
        decode(png_header(9460, 9460))
    assert reason == str(error.value).replace("the image", "image 0")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (700, 3), (301, 299)])
def test_sizes_are_pillows(kind, size):
    encoded = picture(1, size, kind)
    assert image_size(encoded) == size
    (found,), _, _ = scan(("a.json", ONE), ("a.jpg", encoded))
    assert found.images[0].size == size


def test_headers_longer_than_the_first_read():
    encoded = jpeg(icc_profile=bytes(50_000))  # in front of the size
    with pytest.raises(SettingError):
        image_size(encoded[: 16 << 10])
    (found,), quarantine, _ = scan(("a.json", ONE), ("a.jpg", encoded))
    assert (found.images[0].size, quarantine) == ((30, 20), [])


def test_only_a_full_decode_finds_a_cut_image():
    members = [("bad.json", ONE), ("bad.jpg", picture(2, (64, 64), "JPEG")[:-300])]
    found, quarantine, _ = scan(*members)
    assert ([sample.key for sample in found], quarantine) == (["bad"], [])
    reason = reason_of(*members, full=True)
    assert reason.startswith("image 0 cannot be decoded (image file is tr")
    assert countable(reason) == "image 0 cannot be decoded"


def test_no_address_in_any_reason():
    """What is quarantined must read the same every time."""
    with pytest.raises(UnidentifiedImageError, match="0x"):
        Image.open(io.BytesIO(b"GIF8"))
    assert "0x" not in reason_of(("bad.json", ONE), ("bad.png", b"GIF8"), full=True)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ((tarfile.SYMTYPE, "/etc/passwd"), "symbolic link"),
        ((tarfile.LNKTYPE, "good.json"), "hard link"),
        ((tarfile.CHRTYPE, ""), "device"),
        ((tarfile.FIFOTYPE, ""), "named pipe"),
    ],
)
def test_only_files_are_read(kind, name):
    reason = f"a {name}, which is never followed; store the file itself ('bad.json')"
    assert reason_of(("bad.png", PNG), ("bad.json", kind)) == reason
    found, quarantine, notes = scan(("good.json", GOOD), ("latest", kind))
    assert (len(found), quarantine) == (1, [])
    assert notes == {"members ignored that end in .latest": 1}


def test_sparse_files_are_not_read():
    first = tarfile.TarInfo("x")
    first.type, first.pax_headers = tarfile.REGTYPE, {"GNU.sparse.name": "bad.json"}
    first.size = len(GOOD)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(first, io.BytesIO(GOOD))
    found, quarantine, _ = scan_bytes(stream.getvalue())
    assert found == []
    reason = "a sparse file, which is never followed; store the file itself ('bad.json')"
    assert quarantine == [("bad", reason)]


@pytest.mark.parametrize("name", ["/etc/bad", "../bad", "a/../../bad", "a\\..\\bad", "a/../bad"])
def test_names_that_leave_the_folder(name):
    found, ((key, reason),), _ = scan((f"{name}.json", GOOD), ("good.json", GOOD))
    assert [sample.key for sample in found] == ["good"]
    told = ascii(f"{name}.json")
    assert (key, reason) == (
        split_name(f"{name}.json")[0],
        f"its name leaves the folder of the shard ({told})",
    )


def test_names_that_are_no_text():
    found, quarantine, _ = scan(("\udcff.json", GOOD))
    assert found == []
    assert quarantine == [("\udcff", r"its name is no UTF-8 ('\udcff.json')")]


def test_foreign_members_are_noted_and_never_decoded(tmp_path):
    poison = b"cos\nsystem\n(S'touch %s'\ntR." % bytes(tmp_path / "ran")  # a pickle
    members = [(f"a.{end}", poison) for end in ("pyd", "pth", "pickle", "cls", "PYD", "jpg!")]
    found, quarantine, notes = scan(*members, ("a.json", GOOD), ("f", (tarfile.DIRTYPE, "")))
    assert ([sample.key for sample in found], quarantine) == (["a"], [])
    assert notes == {
        "members ignored that end in .pyd": 2,
        "members ignored that end in .pth": 1,
        "members ignored that end in .pickle": 1,
        "members ignored that end in .cls": 1,
        "members ignored that end in .…": 1,
    }
    assert not (tmp_path / "ran").exists()
    pickle.loads(poison)  # it is poison indeed
    assert (tmp_path / "ran").exists()


def test_shards_without_samples():
    assert scan() == ([], [("", "the shard holds no sample")], {})
    found, quarantine, notes = scan(("readme.txt", b"nothing"))
    assert (found, quarantine) == ([], [("", "the shard holds no sample")])
    assert notes == {"members ignored that end in .txt": 1}


def cut(whole, at):
    found, quarantine, _ = scan_bytes(whole[:at])
    return [sample.key for sample in found], quarantine


def test_damage_costs_what_follows_and_no_more(tmp_path):
    """Headers lie at 0, 1024, 2560, 3584; contents take one block, images two."""
    pixels = PNG
    assert len(ONE) <= 512 < len(pixels) <= 1024
    members = [
        (f"{key}.{end}", ONE if end == "json" else pixels)
        for key in "ab"
        for end in ("json", "png")
    ]
    whole = write_tar(tmp_path / "a.tar", *members).read_bytes()
    lost = "the shard is damaged and what follows is lost (at byte {}: {})"
    ended = "the zero blocks that end a tar are missing"
    at_b = "stands where the shard is damaged ({})"
    none = "0 images in the shard, but the record was written with 1"
    assert cut(whole, None) == (["a", "b"], [])
    # Between two samples; between the members of one; inside a header; inside a content.
    assert cut(whole, 2560) == (["a"], [("", lost.format(2560, ended))])
    assert cut(whole, 3584) == (
        ["a"],
        [("", lost.format(3584, ended)), ("b", at_b.format(none))],
    )
    short = "only 16 of a header's 512 bytes are there"
    assert cut(whole, 3600) == (
        ["a"],
        [("", lost.format(3600 - 16, short)), ("b", at_b.format(none))],
    )
    early = f"the content of 'b.png' ends {4096 + len(pixels) - 4500} bytes early"
    assert cut(whole, 4500) == (
        ["a"],
        [("", lost.format(4500, early)), ("b", at_b.format(early))],
    )
    # The end alone is missing: nothing is.
    assert cut(whole, 5120) == (["a", "b"], [("", lost.format(5120, ended))])
    garbage = whole[:2560] + b"\xa7" * 512 + whole[3072:]
    assert cut(garbage, None) == (
        ["a"],
        [("", lost.format(2560, "no tar header: invalid header"))],
    )


def test_a_cut_in_a_foreign_member_costs_no_sample(tmp_path):
    whole = write_tar(tmp_path / "a.tar", ("a.json", GOOD), ("a.txt", bytes(900))).read_bytes()
    keys, ((key, reason),) = cut(whole, 2000)
    assert (keys, key) == (["a"], "")
    assert reason.endswith("(at byte 2000: the content of 'a.txt' ends 436 bytes early)")


def test_reasons_are_counted_without_what_differs():
    assert countable("image 0 is empty") == "image 0 is empty"
    assert countable("x is damaged (at byte 5: no header (bad))") == "x is damaged"
    assert countable("leave it out (or not), please") == "leave it out (or not), please"
