import json
import re
from dataclasses import asdict

import pytest
from handmade import record, says

from lightning_llava.data.schema import Box, Sample, from_json, to_json
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn

USER, ASSISTANT = Turn("user", "Что это?"), Turn("assistant", "Кот 🐈.")
ABOUT = Turn("user", "<image>?")
WHOLE = Box((0.0, 0.0, 1.0, 1.0), "all")


def test_json_of_a_sample():
    boxes = [Box((0.0, 0.25, 0.5, 1.0), "кот", image=1)]
    question = Turn("user", "<image><image>?")
    sample = Sample("a", [question, ASSISTANT], [b"1", b"2"], "vqav2", "ru", boxes, ["7"])
    written = to_json(sample)
    assert "Кот 🐈." in written.decode()  # readable, not \u043a
    assert json.loads(written) == {
        "version": 1,
        "id": "a",
        "turns": [
            {"role": "user", "text": "<image><image>?"},
            {"role": "assistant", "text": "Кот 🐈."},
        ],
        "source": "vqav2",
        "language": "ru",
        "boxes": [{"xyxy": [0.0, 0.25, 0.5, 1.0], "phrase": "кот", "image": 1}],
        "ids": ["7"],
        "num_images": 2,
    }
    assert from_json(written, [b"1", b"2"]) == sample
    assert sample.problem() is None


def test_text_only_sample_round_trip():
    sample = Sample("b", [USER, ASSISTANT])
    assert from_json(to_json(sample), []) == sample
    assert sample.problem() is None


ALTERNATION = "expected user and assistant in alternation, ending with the assistant"


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([], "no turns"),
        ([USER], f"turns are ['user']…, {ALTERNATION}"),
        ([ASSISTANT, USER], f"turns are ['assistant', 'user']…, {ALTERNATION}"),
        ([USER, USER], f"turns are ['user', 'user']…, {ALTERNATION}"),
        (
            [USER, ASSISTANT, USER, ASSISTANT, USER],
            f"turns are ['user', 'assistant', 'user', 'assistant']…, {ALTERNATION}",
        ),
        ([Turn("user", "<image><image>"), ASSISTANT], "2 <image> placeholders but 1 images"),
        ([USER, ASSISTANT], "0 <image> placeholders but 1 images"),
        # An answer may speak of "<image>"; only questions place images.
        ([USER, Turn("assistant", "<image>")], "0 <image> placeholders but 1 images"),
    ],
)
def test_problems_of_turns(turns, problem):
    assert Sample("a", turns, [b"image"]).problem() == problem


@pytest.mark.parametrize(
    "xyxy",
    [
        (0.5, 0.0, 0.5, 1.0),
        (0.0, 0.6, 1.0, 0.5),
        (-0.1, 0.0, 1.0, 1.0),
        (0.0, 0.0, 1.0, 1.01),
        (0.0, 0.0, float("nan"), 1.0),
    ],
)
def test_problems_of_boxes(xyxy):
    sample = Sample("a", [ABOUT, ASSISTANT], [b"image"], boxes=[WHOLE, Box(xyxy, "x")])
    assert sample.problem() == f"box {xyxy} is not left < right, top < bottom within 0 … 1"


@pytest.mark.parametrize("image", [-1, 1])
def test_a_box_in_an_image_that_is_not_there(image):
    boxes = [WHOLE, Box((0.0, 0.0, 1.0, 1.0), "x", image)]
    sample = Sample("a", [ABOUT, ASSISTANT], [b"image"], boxes=boxes)
    assert sample.problem() == f"a box is in image {image} of 1, counted from 0"


@pytest.mark.parametrize(
    "values",
    [
        {"id": 7},
        {"source": None},
        {"language": ["ru"]},
        {"ids": ["1", 2]},
        {"turns": [USER, Turn("assistant", None)]},
        {"turns": [Turn("user", b"Hi"), ASSISTANT]},
        {"boxes": [Box((0.0, 0.0, 1.0, 1.0), 5)]},
        # Half of a surrogate pair, wherever it stands.
        {"id": "\ud83d"},
        {"ids": ["\udc00"]},
        {"turns": [USER, Turn("assistant", "\ud83d.")]},
        {"boxes": [Box((0.0, 0.0, 1.0, 1.0), "\udfff")]},
    ],
    ids=ascii,
)
def test_what_is_no_text_is_refused_on_write_and_on_read(values):
    assert Sample("a", [USER, ASSISTANT]).problem() is None
    sample = Sample(**{"id": "a", "turns": [USER, ASSISTANT]} | values)
    message = "something else stands where a text is expected ("
    assert sample.problem().startswith(message)
    if any(isinstance(turn.text, bytes) for turn in sample.turns):
        return  # which JSON cannot spell
    written = json.dumps({"version": 1, **asdict(sample), "num_images": 0}).encode()
    with pytest.raises(SettingError, match=f"^{re.escape(message)}"):
        from_json(written, [])


def test_whole_surrogate_pairs_are_text():
    payload = record("a", says("🐈?", "🐈."), boxes=[], ids=["🐈"])
    assert b"\\ud83d\\udc08" in payload
    sample = from_json(payload, [])
    assert ([turn.text for turn in sample.turns], sample.ids) == (["🐈?", "🐈."], ["🐈"])


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (record("a", []), "no turns"),
        (record("a", says("<image>", "Hi")), "1 <image> placeholders but 0 images"),
        (
            record("a", says("Hi", "Hi"), boxes=[asdict(WHOLE)]),
            "a box is in image 0 of 0, counted from 0",
        ),
    ],
)
def test_the_reader_refuses_what_the_writer_would(payload, message):
    with pytest.raises(SettingError, match=f"^{message}$"):
        from_json(payload, [])


def test_other_version():
    payload = record("a", says("Hi", "Hi"), version=2)
    with pytest.raises(SettingError, match=r"^schema version 2, expected 1; convert the data"):
        from_json(payload, [])


def test_other_number_of_images():
    message = "^1 images in the shard, but the record was written with 2$"
    with pytest.raises(SettingError, match=message):
        from_json(record("a", says("<image><image>", "Hi"), num_images=2), [b"1"])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "JSONDecodeError: Expecting value"),
        (b'{"version": 1', "JSONDecodeError: "),
        (b'"\xff"', "UnicodeDecodeError: "),
        (b"[]", "TypeError: "),
        (b"{}", "KeyError: 'version'"),
        (record("a", None), "TypeError: "),
        (record("a", [{"role": "user"}]), "TypeError: .*'text'"),
        (record("a", [{"role": "user", "text": "", "name": ""}]), "TypeError: .*'name'"),
        (b"[" * 100_000, "RecursionError: "),
        # Python's reader of bytes would take both.
        (record("a", says("Hi", "Hi")).replace(b"Hi", b"\xed\xa0\xbd"), "UnicodeDecodeError: "),
        (record("a", says("Hi", "Hi")).decode().encode("utf-16"), "UnicodeDecodeError: "),
        (record("a", [], ids="7"), "TypeError: ids are '7', expected a list"),
        (record("a", [], boxes=[{"xyxy": [0, 0, 1, 1]}]), "KeyError: 'phrase'"),
        (record("a", [], boxes=[{"xyxy": [0, 0, 1]}]), "ValueError: not enough values to unpack"),
        (record("a", [], boxes=[{"xyxy": "left"}]), "ValueError: could not convert string"),
        (record("a", [], boxes=[{"xyxy": [0, 0, 10**400, 1]}]), "OverflowError: int too large"),
        (
            record("a", [], boxes=[{"xyxy": [0, 0, 1, 1], "phrase": "", "image": "0"}]),
            "TypeError: a box is in image '0', expected a number",
        ),
    ],
)
def test_not_a_record(payload, reason):
    with pytest.raises(SettingError, match=rf"^not a record of this schema \({reason}"):
        from_json(payload, [])
