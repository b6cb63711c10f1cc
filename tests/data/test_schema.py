import json

import pytest
from handmade import record, says

from lightning_llava.data.schema import Box, Sample, from_json, to_json
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import Turn

USER, ASSISTANT = Turn("user", "Что это?"), Turn("assistant", "Кот 🐈.")


def test_json_of_a_sample():
    boxes = [Box((0.0, 0.25, 0.5, 1.0), "кот", image=1)]
    question = Turn("user", "<image><image>?")
    sample = Sample("a", [question, ASSISTANT], [b"1", b"2"], "vqav2", "ru", boxes)
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
    whole = Box((0.0, 0.0, 1.0, 1.0), "all")
    sample = Sample("a", [USER, ASSISTANT], boxes=[whole, Box(xyxy, "x")])
    assert sample.problem() == f"box {xyxy} is not left < right, top < bottom within 0 … 1"


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
        (record("a", says(None, "Hi")), "TypeError: a turn's text is None, expected a string"),
        (record("a", says("\ud83d", "Hi")), "UnicodeEncodeError: .*surrogates not allowed"),
        (record("a", [], boxes=[{"xyxy": [0, 0, 1, 1]}]), "KeyError: 'phrase'"),
        (record("a", [], boxes=[{"xyxy": [0, 0, 1]}]), "ValueError: not enough values to unpack"),
        (record("a", [], boxes=[{"xyxy": "left"}]), "ValueError: could not convert string"),
    ],
)
def test_not_a_record(payload, reason):
    with pytest.raises(SettingError, match=rf"^not a record of this schema \({reason}"):
        from_json(payload, [])
