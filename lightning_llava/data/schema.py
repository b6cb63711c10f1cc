"""What a training record is, in one place, and the checks that it must pass.

In a shard a sample is `{key}.json` (this schema) beside `{key}.jpg|png|webp`, or `{key}.0.jpg`,
`{key}.1.jpg`, … for several images, in the order in which the turns' `<image>` placeholders consume
them.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

SCHEMA_VERSION = 1
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class Box:
    """A region of an image."""

    xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom as fractions of width and height."""
    phrase: str
    """What is in it."""
    image: int = 0
    """Which of the sample's images."""


@dataclass
class Sample:
    """One conversation about zero or more images."""

    id: str
    """Unique within its source."""
    turns: list[Turn]
    """Alternating, the user first."""
    images: list[bytes] = field(default_factory=list)
    """Encoded images as they are in the source (JPEG, PNG or WebP)."""
    source: str = ""
    """Where the record comes from, e.g. `vqav2`."""
    language: str = "en"
    """ISO 639-1 code of the answers."""
    boxes: list[Box] = field(default_factory=list)
    """Regions the conversation is about (REVIVE)."""

    def problem(self) -> str | None:
        """Say what is wrong with the record, or None. Templates check the conversation itself."""
        if not self.turns:
            return "no turns"
        roles = [turn.role for turn in self.turns]
        expected = ["user", "assistant"] * (len(roles) // 2)
        if roles != expected:
            return (
                f"turns are {roles[:4]}…, expected user and assistant in alternation, ending with "
                "the assistant"
            )
        placeholders = sum(
            turn.text.count(IMAGE_PLACEHOLDER) for turn in self.turns if turn.role == "user"
        )
        if placeholders != len(self.images):
            return f"{placeholders} {IMAGE_PLACEHOLDER} placeholders but {len(self.images)} images"
        for box in self.boxes:
            left, top, right, bottom = box.xyxy
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                return f"box {box.xyxy} is not left < right, top < bottom within 0 … 1"
        return None


def to_json(sample: Sample) -> bytes:
    """Serialise everything but the images."""
    record = {key: value for key, value in asdict(sample).items() if key != "images"}
    return json.dumps(
        {"version": SCHEMA_VERSION, **record, "num_images": len(sample.images)}, ensure_ascii=False
    ).encode()


def from_json(payload: bytes, images: list[bytes]) -> Sample:
    """Read a record back.

    Raises:
        SettingError: not this schema, another version, or a record whose parts disagree.
    """
    try:
        record: dict[str, Any] = json.loads(payload)
        if record["version"] != SCHEMA_VERSION:
            raise SettingError(
                f"schema version {record['version']}, expected {SCHEMA_VERSION}; convert the "
                "data again"
            )
        if record["num_images"] != len(images):
            raise SettingError(
                f"{len(images)} images in the shard, but the record was written with "
                f"{record['num_images']}"
            )
        return Sample(
            id=record["id"],
            turns=[_turn(turn) for turn in record["turns"]],
            images=images,
            source=record["source"],
            language=record["language"],
            boxes=[_box(box) for box in record["boxes"]],
        )
    except SettingError:
        raise
    except (KeyError, TypeError, ValueError) as error:  # ValueError: JSON, UTF-8 and numbers
        raise SettingError(
            f"not a record of this schema ({type(error).__name__}: {error})"
        ) from error


def _turn(record: dict[str, Any]) -> Turn:
    turn = Turn(**record)
    if not isinstance(turn.text, str):
        raise TypeError(f"a turn's text is {turn.text!r}, expected a string")
    turn.text.encode()  # half of a surrogate pair, which JSON can spell and no tokenizer takes
    return turn


def _box(record: dict[str, Any]) -> Box:
    left, top, right, bottom = map(float, record["xyxy"])
    return Box((left, top, right, bottom), record["phrase"], record["image"])
