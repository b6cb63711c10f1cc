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
ROLES = ["user", "assistant"]
_decode = json.JSONDecoder().decode  # what `json.loads` calls, for every sample that is read


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
    ids: list[str] = field(default_factory=list)
    """The source's own ids of the questions, in the order of the answers, where it has them."""

    def problem(self) -> str | None:
        """Say what is wrong with the record, or None. Templates check the conversation itself."""
        turns, boxes = self.turns, self.boxes
        texts = [self.id, self.source, self.language, *self.ids, *[turn.text for turn in turns]]
        if boxes:
            texts += [box.phrase for box in boxes]
        if not is_text(texts):
            wrong = next(text for text in texts if not is_text([text]))
            return f"something else stands where a text is expected ({wrong!a:.40})"
        if not turns:
            return "no turns"
        roles = [turn.role for turn in turns]
        if roles != ROLES * (len(roles) // 2):
            return (
                f"turns are {roles[:4]}…, expected user and assistant in alternation, ending with "
                "the assistant"
            )
        placeholders = sum([turn.text.count(IMAGE_PLACEHOLDER) for turn in turns[::2]])
        if placeholders != len(self.images):
            return f"{placeholders} {IMAGE_PLACEHOLDER} placeholders but {len(self.images)} images"
        return next(filter(None, map(self._problem_of, boxes)), None)

    def _problem_of(self, box: Box) -> str | None:
        left, top, right, bottom = box.xyxy
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            return f"box {box.xyxy} is not left < right, top < bottom within 0 … 1"
        if not 0 <= box.image < len(self.images):
            return f"a box is in image {box.image} of {len(self.images)}, counted from 0"
        return None


def is_text(values: list[str]) -> bool:
    """Tell whether all are strings that UTF-8 can hold.

    JSON can spell half of a surrogate pair, and tar may hold any bytes as a name; no tokenizer
    takes them.
    """
    try:
        "".join(values).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def to_json(sample: Sample) -> bytes:
    """Serialise everything but the images."""
    record = {key: value for key, value in asdict(sample).items() if key != "images"}
    return json.dumps(
        {"version": SCHEMA_VERSION, **record, "num_images": len(sample.images)}, ensure_ascii=False
    ).encode()


def from_json(payload: bytes, images: list[bytes]) -> Sample:
    """Read a record back, and check all of it that needs no encoder.

    Args:
        payload: JSON in UTF-8.
        images: the sample's images, or anything of their number.

    Raises:
        SettingError: not this schema, another version, or a record whose parts disagree.
    """
    try:
        sample = _sample(_decode(payload.decode()), images)
    except SettingError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        # ValueError: JSON, UTF-8 and numbers.
        raise SettingError(
            f"not a record of this schema ({type(error).__name__}: {error})"
        ) from error
    if problem := sample.problem():
        raise SettingError(problem)
    return sample


def _sample(record: dict[str, Any], images: list[bytes]) -> Sample:
    if record["version"] != SCHEMA_VERSION:
        raise SettingError(
            f"schema version {record['version']}, expected {SCHEMA_VERSION}; convert the data again"
        )
    if record["num_images"] != len(images):
        raise SettingError(
            f"{len(images)} images in the shard, but the record was written with "
            f"{record['num_images']}"
        )
    if not isinstance(ids := record.get("ids", []), list):
        raise TypeError(f"ids are {ids!a:.40}, expected a list")
    return Sample(
        record["id"],
        [Turn(**turn) for turn in record["turns"]],
        images,
        record["source"],
        record["language"],
        [_box(box) for box in record["boxes"]],
        ids,
    )


def _box(record: dict[str, Any]) -> Box:
    left, top, right, bottom = map(float, record["xyxy"])
    phrase, image = record["phrase"], record["image"]
    if type(image) is not int:
        raise TypeError(f"a box is in image {image!a:.40}, expected a number")
    return Box((left, top, right, bottom), phrase, image)
