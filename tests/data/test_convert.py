import json
import os
import tarfile
import tempfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.llava import read_llava, read_records
from lightning_llava.data.converters.run import convert as write
from lightning_llava.data.schema import from_json
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn
from photographs import write_photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    return images


def record(image=None, question="<image>\nWhat is this?", answer="A cat.", **changes):
    conversations = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": image, "conversations": conversations} | changes


def says(*messages):
    """Write a conversation as `human: …` and `gpt: …` lines."""
    parts = [message.split(": ", 1) for message in messages]
    return [{"from": role, "value": text} for role, text in parts]


def convert(records, images, **options):
    """Convert LLaVA records for real, and read the shards back with tarfile."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.json"
        path.write_text(json.dumps(records))
        conversion = Conversion(Path(folder) / "shards", "a", "test", images, **options)
        report, shards, report_path = write(read_llava(path), conversion)
        assert report_path.is_file()
        samples = [sample for shard in shards for sample in read(shard)]
    dropped = len(report.duplicates) if report.duplicates_dropped else 0
    assert report.records == len(records) == report.written + len(report.left_out) + dropped
    assert report.written == len(samples)
    return samples, report


def read(shard):
    with tarfile.open(shard) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    keys = sorted({name.split(".")[0] for name in members})
    images = {
        key: [
            members[name]
            for name in sorted(members)
            if name.startswith(key) and not name.endswith(".json")
        ]
        for key in keys
    }
    return [from_json(members[f"{key}.json"], images[key]) for key in keys]


def left_out(bad, images, **options):
    """Convert one bad record between two good ones, and return what is said of it."""
    good = record(conversations=says("human: Hi", "gpt: Hi"))
    samples, report = convert([good, bad, good], images, **options)
    assert len(samples) == 2
    ((position, entry),) = report.left_out.items()
    assert position == 1
    return entry


def write_jpeg(path, **options):
    noise = Image.effect_noise((64, 64), 64)
    noise.save(path, "JPEG", **options)
    return path.read_bytes()


def test_photographs_of_all_shapes_stay_byte_for_byte(photographs):
    paths = sorted(photographs.iterdir())
    assert len(paths) == 9
    samples, report = convert([record(path.name) for path in paths], photographs)
    assert [sample.images for sample in samples] == [[path.read_bytes()] for path in paths]
    assert (report.written, report.images, report.text_only) == (9, 9, 0)
    assert report.image_bytes == sum(path.stat().st_size for path in paths)


def test_an_image_named_twice_in_a_question_is_one_image(photographs):
    twice = record("coffee.jpg", question="Is <image> the same as <image>?")
    (sample, _), report = convert([twice, record("coffee.jpg")], photographs)
    # As LLaVA's preprocess_multimodal writes it.
    assert sample.turns[0].text == "<image>\nIs  the same as ?"
    assert report.notes == {"placeholders of one picture merged": 1}


@pytest.mark.parametrize(
    ("images", "turns", "found"),
    [
        (["coffee.jpg"], says("human: <image>\nA?", "gpt: B", "human: <image> C?", "gpt: D"), 2),
        (
            ["coffee.jpg", "cat_tiny.jpg"],
            says("human: <image><image>A?", "gpt: B", "human: <image>C?", "gpt: D"),
            3,
        ),
        (["coffee.jpg", "cat_tiny.jpg"], says("human: <image>A?", "gpt: B"), 1),
    ],
)
def test_placeholders_are_merged_only_where_there_is_one_image_to_mean(
    photographs, images, turns, found
):
    entry = left_out(record(images, conversations=turns), photographs)
    assert entry.reason == "conversation"
    assert entry.detail.startswith(f"{found} <image> placeholders in the user turns but ")


def test_turns_and_placeholders_are_kept(photographs):
    conversations = says(
        "human: <image>\nand <image>: which is a cat?",
        "gpt: The second.",
        "human: Sure?",
        "gpt: Yes",
    )
    images = ["coffee.jpg", "cat_tiny.jpg"]
    (sample,), _ = convert([record(images, conversations=conversations)], photographs)
    assert sample.turns == [
        Turn("user", "<image>\nand <image>: which is a cat?"),
        Turn("assistant", "The second."),
        Turn("user", "Sure?"),
        Turn("assistant", "Yes"),
    ]
    assert sample.images == [(photographs / name).read_bytes() for name in images]


def test_leading_answer_is_dropped(folder):
    conversations = says("gpt: ", "human: Hi", "gpt: Hello")
    (sample,), report = convert([record(conversations=conversations)], folder)
    assert sample.turns == [Turn("user", "Hi"), Turn("assistant", "Hello")]
    assert report.notes == {"answers before the first question dropped": 1}


@pytest.mark.parametrize("image", [{}, {"image": None}, {"image": ""}, {"image": []}])
def test_text_only(folder, image):
    text_only = {"id": 7, "conversations": says("human: Hi", "gpt: Hello"), **image}
    (sample,), report = convert([text_only], folder)
    assert (sample.id, sample.images, sample.source) == ("7", [], "test")
    assert (report.text_only, report.images) == (1, 0)


def test_shared_ids_are_told_apart(folder):
    hello = says("human: Hi", "gpt: Hello")
    records = [{"id": name, "conversations": hello} for name in ("a", "b", "a", "a")]
    samples, _ = convert([*records, {"conversations": hello}], folder)
    assert [sample.id for sample in samples] == ["a", "b", "a@2", "a@3", "record 4"]


@pytest.mark.parametrize(
    ("question", "answer", "language"),
    [
        ("What is this?", "Это кот по имени Cat.", "ru"),
        ("Что это?", "This is кот", "en"),
        ("Что?", "кот cat", "en"),  # exactly half is not more than half
        ("Сколько котов?", "2", "ru"),
        ("How many?", "2", "en"),
    ],
)
def test_language_from_the_letters_of_the_answers(folder, question, answer, language):
    (sample,), report = convert([record(question=question, answer=answer)], folder)
    assert sample.language == language
    assert report.languages == {language: 1}


def test_language_can_be_told(folder):
    (sample,), _ = convert([record(question="Hi", answer="Hello")], folder, language="ru")
    assert sample.language == "ru"


def test_missing_image(folder):
    entry = left_out(record("coco/1.jpg", id="c1"), folder)
    assert (entry.id, entry.reason) == ("c1", "missing")
    assert entry.detail == (
        f"coco/1.jpg: no such file in {folder.resolve()}, under no other ending either"
    )
    (folder / "coco").mkdir()
    assert left_out(record("coco"), folder).detail == f"coco: no such file in {folder.resolve()}"


def test_one_missing_image_of_two_leaves_the_record_out(photographs):
    two = record(["coffee.jpg", "gone.jpg"], question="<image><image> Same?")
    assert left_out(two, photographs).detail.startswith("gone.jpg: no such file in ")


def test_truncated_image(folder):
    encoded = write_jpeg(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes(encoded[: len(encoded) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "head.png").write_bytes(b"\x89PNG\r\n\x1a\n and no chunks")
    assert convert([record("whole.jpg")], folder)[1].written == 1
    assert "truncated" in left_out(record("cut.jpg"), folder).detail
    assert left_out(record("empty.jpg"), folder).reason == "corrupt"
    assert left_out(record("head.png"), folder).detail == "head.png: its header cannot be read"


def test_what_training_would_refuse_is_left_out(folder):
    Image.new("L", (70_000, 1)).save(folder / "long.png")
    Image.new("F", (8, 8)).save(folder / "float.tiff")
    assert "65,535 pixels a side" in left_out(record("long.png"), folder).detail
    assert "32 bits" in left_out(record("float.tiff"), folder, reencode=True).detail


def test_png_with_a_flipped_bit(folder):
    stream = BytesIO()
    Image.effect_noise((64, 64), 64).save(stream, "PNG")
    encoded = bytearray(stream.getvalue())
    encoded[len(encoded) // 2] ^= 1
    (folder / "bit.png").write_bytes(encoded)
    assert left_out(record("bit.png"), folder).reason == "corrupt"


@pytest.mark.parametrize("side", [10_000, 30_000])  # Pillow warns of the first, refuses the second
def test_decompression_bomb(folder, side):
    header = side.to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 1000), b"IEND"]
    with (folder / "bomb.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for chunk in chunks:
            file.write((len(chunk) - 4).to_bytes(4, "big"))
            file.write(chunk + zlib.crc32(chunk).to_bytes(4, "big"))
    entry = left_out(record("bomb.png"), folder)
    assert entry.reason == "corrupt"
    assert "DecompressionBomb" in entry.detail
    assert f"exceeds limit of {Image.MAX_IMAGE_PIXELS * (2 if side == 30_000 else 1)} pixels" in (
        entry.detail
    )


@pytest.mark.parametrize("format_name", ["BMP", "GIF"])
def test_other_formats(folder, format_name):
    Image.new("RGB", (8, 8)).save(folder / "named.jpg", format_name)
    entry = left_out(record("named.jpg"), folder)
    assert entry.reason == "format"
    assert entry.detail.endswith("expected JPEG, PNG or WebP")


@pytest.mark.parametrize(("name", "format_name"), [("a.webp", "WEBP"), ("b.jpg", "PNG")])
def test_other_names_of_good_formats(folder, name, format_name):
    Image.new("RGB", (8, 8)).save(folder / name, format_name)
    samples, _ = convert([record(name)], folder)
    assert samples[0].images == [(folder / name).read_bytes()]


def test_paths_stay_inside_the_folder(folder, tmp_path):
    write_jpeg(tmp_path / "outside.jpg")
    write_jpeg(folder / "inside.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "parent").symlink_to(tmp_path)
    (folder / "circle.jpg").symlink_to(folder / "circle.jpg")
    (folder / "good_link.jpg").symlink_to(folder / "inside.jpg")
    outside = str(tmp_path / "outside.jpg")
    for name in ("../outside.jpg", "a/../inside.jpg", outside, "link.jpg", "parent/outside.jpg"):
        assert left_out(record(name), folder).reason == "path", name
    assert left_out(record("nul\0.jpg"), folder).reason == "path"
    assert left_out(record("circle.jpg"), folder).reason in ("path", "missing")
    assert left_out(record("long" * 1000), folder).reason in ("path", "missing")
    assert convert([record("good_link.jpg")], folder)[1].written == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_image(folder):
    write_jpeg(folder / "a.jpg")
    (folder / "a.jpg").chmod(0)
    assert left_out(record("a.jpg"), folder).reason == "missing"


@pytest.mark.parametrize(
    ("conversations", "reason", "detail"),
    [
        (says("human: Hi", "gpt: Hi", "human: Bye"), "conversation", "ending with the assistant"),
        (says("human: Hi", "human: Hi", "gpt: Hi"), "conversation", "in alternation"),
        (says("gpt: Hi"), "conversation", "no turns"),
        ([], "conversation", "no turns"),
        (
            says("human: <image> Hi", "gpt: Hi"),
            "conversation",
            "1 <image> placeholders in the user turns but 0 images",
        ),
        (says("human: Hi", "gpt:  "), "conversation", "an answer is empty"),
        (says("human: Hi", "gpt: \ud83d"), "conversation", "half of a surrogate pair"),
        (says("system: Be good", "human: Hi", "gpt: Hi"), "record", "turn 0"),
        ([{"from": "human", "value": 3}], "record", "turn 0"),
        ([{"from": ["human"], "value": "Hi"}], "record", "turn 0"),
        (["Hi"], "record", "turn 0"),
        ("Hi", "record", "no list of `conversations`; found 'Hi'"),
    ],
)
def test_bad_conversations(folder, conversations, reason, detail):
    entry = left_out(record(conversations=conversations), folder)
    assert entry.reason == reason
    assert detail in entry.detail


@pytest.mark.parametrize("bad", [3, [], record(3), record(["a.jpg", 3]), record({"path": "a.jpg"})])
def test_not_a_record(folder, bad):
    assert left_out(bad, folder).reason == "record"


def test_many_records_keep_their_order(folder):
    records = [
        record(id=number, conversations=says("human: Hi", "gpt: Hi")) for number in range(80)
    ]
    records[40] = None
    samples, report = convert(records, folder)
    assert [sample.id for sample in samples] == [str(n) for n in range(80) if n != 40]
    assert [*report.left_out] == [40]


def test_another_data_set_is_refused(folder):
    questions = {"info": {}, "questions": [{"question_id": 1}]}
    for content in ([questions], [{"question": "Hi"}] * 3, [3]):
        with pytest.raises(
            SettingError, match=r"records\.json holds .*; expected LLaVA's JSON: .* `conversations`"
        ):
            convert(content, folder)


def test_images_folder_must_exist(tmp_path):
    with pytest.raises(SettingError, match=r"--images .*nowhere is no folder"):
        convert([record()], tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": 1},\n {"id": 2}]',
        '{"id": 1}\n\n{"id": 2}\n',
        '\ufeff[{"id": 1}, {"id": 2}]',
        '{"id": 1}\r\n{"id": 2}',
    ],
)
def test_read_array_or_lines(tmp_path, text):
    (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
    assert read_records(tmp_path / "a.json") == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1}\n{"id": 2', "line 2: .*expected LLaVA's JSON: .* or one record a line"),
        (b'[{"id": 1}', "not a whole JSON array"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "cannot read .*No such file"),
    ],
)
def test_read_broken_file(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingError, match=message):
        read_records(path)


def test_report_as_json(photographs, tmp_path):
    records = [
        record("coffee.jpg"),
        record("gone.jpg", id="\ud83d"),
        record("cat_tiny.jpg", answer="Кот"),
        record("coffee.jpg", id="again"),
    ]
    _, report = convert(records, photographs)
    assert json.loads(report.to_json({"a-000000.tar": 5})) == {
        "records": 4,
        "written": 3,
        "questions": 3,
        "images": 3,
        "image_bytes": sum(
            (photographs / f"{name}.jpg").stat().st_size
            for name in ("coffee", "cat_tiny", "coffee")
        ),
        "text_only": 0,
        "other_extension": 0,
        "reencoded": 0,
        "languages": {"en": 2, "ru": 1},
        "notes": {},
        "left_out": [
            {
                "position": 1,
                "id": "\ud83d",
                "reason": "missing",
                "detail": f"gone.jpg: no such file in {photographs.resolve()}, under no other"
                " ending either",
            }
        ],
        "duplicates": [{"position": 3, "id": "again", "same_as": 0}],
        "duplicates_dropped": False,
        "left_out_by_reason": {"missing": 1},
        "shards": {"a-000000.tar": 5},
    }


def test_half_a_surrogate_in_an_id(folder):
    entry = left_out(record(id="\ud83d"), folder)
    assert (entry.id, entry.reason) == ("\ud83d", "conversation")  # no image for its placeholder
    entry = left_out(record(id="\ud83d", conversations=says("human: Hi", "gpt: Ho")), folder)
    assert (entry.reason, "\\ud83d" in entry.detail) == ("conversation", True)


def test_duplicates_are_counted_and_dropped_when_asked(photographs):
    records = [
        record("coffee.jpg", id="a"),
        record("coffee.jpg", id="b"),
        record("cat_tiny.jpg", id="c"),
        record("coffee.jpg", id="a", answer="Another."),
        record("coffee.jpg", id="a"),
    ]
    samples, report = convert(records, photographs)
    assert [sample.id for sample in samples] == ["a", "b", "c", "a@3", "a@4"]
    assert [(entry.position, entry.id, entry.same_as) for entry in report.duplicates] == [
        (1, "b", 0),
        (4, "a", 0),
    ]
    samples, report = convert(records, photographs, drop_duplicates=True)
    assert [sample.id for sample in samples] == ["a", "c", "a@3"]
    assert (report.written, len(report.duplicates), report.left_out) == (3, 2, {})


def test_an_id_that_looks_like_a_made_one(folder):
    hello = says("human: Hi", "gpt: Hello")
    records = [{"id": name, "conversations": hello} for name in ("a", "a@2", "a")]
    samples, _ = convert(records, folder)
    assert [sample.id for sample in samples] == ["a", "a@2", "a@2@2"]


def test_the_same_stem_with_another_extension(folder):
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    Image.new("RGB", (8, 8)).save(folder / "2.GIF", "GIF")
    Image.new("RGB", (9, 9)).save(folder / "3.jpg")
    Image.new("RGB", (8, 8)).save(folder / "3.png")
    (folder / "link.png").symlink_to(folder / "3.jpg")
    names = ["1.jpg", "2.jpg", "3.jpg", "link.png"]
    samples, report = convert([record(name) for name in names], folder)
    assert [sample.images for sample in samples] == [
        [(folder / name).read_bytes()] for name in ("1.png", "3.jpg", "3.jpg")
    ]
    assert report.other_extension == 1
    assert {at: entry.reason for at, entry in report.left_out.items()} == {1: "format"}
    assert left_out(record("1"), folder).reason == "missing"  # no extension, nothing to vary
    assert left_out(record("1.txt"), folder).reason == "missing"


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 200), (90, 60)), ((90, 40), None), ((1, 900), (1, 90))]
)
def test_larger_images_are_scaled_when_asked(folder, size, expected):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (sample,), report = convert([record("a.png")], folder, max_side=90)
    (encoded,) = sample.images
    if expected is None:
        assert encoded == (folder / "a.png").read_bytes()
        assert report.reencoded == 0
        return
    scaled = Image.fromarray(pixels).resize(expected, Image.Resampling.LANCZOS)
    stream = BytesIO()
    scaled.save(stream, "JPEG", quality=95)
    assert encoded == stream.getvalue()
    assert report.reencoded == 1


@pytest.mark.parametrize(
    ("format_name", "stored"),
    [
        ("BMP", "PNG"),
        ("GIF", "PNG"),
        ("TIFF", "PNG"),
        ("PPM", "PNG"),
        ("JPEG2000", "JPEG"),
    ],
)
def test_other_formats_are_encoded_anew_when_asked(folder, format_name, stored):
    original = Image.effect_noise((20, 10), 64)
    original.save(folder / "a.jpg", format_name)
    (sample,), report = convert([record("a.jpg")], folder, reencode=True)
    with Image.open(BytesIO(sample.images[0])) as image:
        assert (image.format, image.size, report.reencoded) == (stored, (20, 10), 1)
        difference = np.asarray(image.convert("L"), int) - np.asarray(original, int)
    assert np.abs(difference).max() <= (0 if stored == "PNG" else 12)


def test_transparency_goes_onto_white_and_orientation_is_left_alone(folder):
    Image.new("LA", (8, 8), (0, 0)).save(folder / "clear.tiff")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    Image.new("RGB", (100, 50)).save(folder / "lying.jpg", exif=exif)
    names = ["clear.tiff", "lying.jpg"]
    records = [record(name) for name in names]
    samples, _ = convert(records, folder, reencode=True, max_side=40)
    clear, lying = (Image.open(BytesIO(sample.images[0])) for sample in samples)
    assert clear.getcolors() == [(64, (255, 255, 255))]
    assert (lying.size, lying.getexif().get(0x0112)) == ((40, 20), None)


def test_what_is_no_image_stays_out_when_reencoding(folder):
    (folder / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    entry = left_out(record("a.jpg"), folder, reencode=True)
    assert entry.reason == "format"
    assert "expected one of JPEG, PNG, WEBP, BMP" in entry.detail
    write_jpeg(folder / "b.jpg")
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
    assert left_out(record("b.jpg"), folder, max_side=8).reason == "corrupt"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_samples": 0}, "--max-samples must be at least 1"),
        ({"max_side": 0}, "--max-side is 0 pixels; it must be at least 1"),
    ],
)
def test_wrong_numbers(folder, options, message):
    with pytest.raises(SettingError, match=message):
        convert([record()], folder, **options)
