"""LLaVA's own format: LCS-558K, mix665k, and whatever users write for LLaVA.

The format is that of LLaVA's `docs/Finetune_Custom_Data.md`: a JSON array (or one record a line) of
`{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`; `image` is a path inside
the images folder, a list of those, or missing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lightning_llava.data.converters.draft import LEADING_ANSWER, MERGED, Draft, LeftOut
from lightning_llava.data.converters.published import check_form, json_records
from lightning_llava.data.converters.reading import name_of
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn, place_images

EXPECTED = "LLaVA's JSON: a JSON array, or one record a line"
ROLES: dict[str, Literal["user", "assistant"]] = {"human": "user", "gpt": "assistant"}


def read_llava(json: Path) -> Iterator[Draft | LeftOut]:
    """Read LLaVA's JSON in its order, one record at a time; no image is opened.

    As in LLaVA's training, an answer before the first question is dropped, and one image that a
    question names several times is named once; both are noted.

    Raises:
        SettingError: no such file, not JSON (with where), or another data set's.
    """
    records = check_form(json_records(json, EXPECTED), "conversations", json, EXPECTED)
    for number, record in enumerate(records):
        name = name_of(record, "id", number)
        try:
            turns, paths = _turns_and_images(record)
            notes = [LEADING_ANSWER] if len(turns) < len(record["conversations"]) else []
            placed = _one_placeholder_an_image(turns, len(paths))
            yield Draft(name, placed, [*paths], notes=notes + [MERGED] * (placed != turns))
        except Unusable as error:
            yield LeftOut(name, error.reason, str(error))


def read_records(path: Path) -> list[Any]:
    """Read all records of LLaVA's JSON.

    Raises:
        SettingError: no such file, or not JSON (with where).
    """
    return list(json_records(path, EXPECTED))


def conversation(record: Any) -> tuple[list[Turn], int]:
    """Read the turns of a LLaVA record, and how many images it names; the images are not opened.

    Raises:
        SettingError: not a record of this format, or an unusable conversation.
    """
    try:
        turns, paths = _turns_and_images(record)
        return turns, len(paths)
    except Unusable as error:
        raise SettingError(f"{error.reason}: {error}") from error


def _turns_and_images(record: Any) -> tuple[list[Turn], list[str]]:
    """Take the conversation, and the paths of its images.

    Raises:
        Unusable: not a record of this format, or an unusable conversation.
    """
    if not isinstance(record, dict):
        raise Unusable("record", f"{type(record).__name__}, expected an object")
    return _turns(record.get("conversations")), _image_paths(record.get("image"))


def _turns(conversations: Any) -> list[Turn]:
    if not isinstance(conversations, list):
        raise Unusable("record", f"no list of `conversations`; found {conversations!r:.80}")
    turns = [_turn(position, message) for position, message in enumerate(conversations)]
    # LLaVA (train.py, preprocess_v1) begins with the first question too.
    turns = turns[1:] if turns and turns[0].role == "assistant" else turns
    for turn in turns:
        if turn.role == "assistant" and not turn.text.strip():
            raise Unusable("conversation", "an answer is empty")
    return turns


def _one_placeholder_an_image(turns: list[Turn], num_images: int) -> list[Turn]:
    """Write the only image of a record once where one question names it several times.

    LLaVA's own training does so (train.py, preprocess_multimodal); of several images it would not
    be known which is meant.
    """
    asked = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in turns if turn.role == "user")
    if asked == num_images:
        return turns
    try:
        if num_images == 1:
            return place_images(turns, num_images)
    except SettingError as error:
        raise Unusable("conversation", str(error)) from error
    found = f"{asked} {IMAGE_PLACEHOLDER} placeholders in the user turns but {num_images} images"
    raise Unusable("conversation", found)


def _turn(position: int, message: Any) -> Turn:
    role = ROLES.get(str(message.get("from"))) if isinstance(message, dict) else None
    text = message.get("value") if role else None
    if role is None or not isinstance(text, str):
        found = message.get("from") if isinstance(message, dict) else message
        raise Unusable(
            "record",
            f"turn {position} is from {found!r} or has no text in `value`; expected human or gpt",
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise Unusable("conversation", f"turn {position} holds half of a surrogate pair")
    return Turn(role, text)


def _image_paths(value: Any) -> list[str]:
    paths = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(path, str) and path for path in paths):
        raise Unusable("record", f"`image` is {value!r:.80}, expected a path or a list of paths")
    return paths
