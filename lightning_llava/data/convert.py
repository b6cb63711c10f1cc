"""LLaVA-format JSON plus a folder of images to samples; whatever is left out is counted and named.

The format is that of LLaVA's `docs/Finetune_Custom_Data.md`: a JSON array (or one record a line) of
`{"id", "image", "conversations": [{"from": "human" | "gpt", "value"}]}`; `image` is a path inside
the images folder, a list of those, or missing.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError

from lightning_llava.data.schema import Sample
from lightning_llava.data.shards import image_extension
from lightning_llava.errors import SettingError
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn, place_images

Reason = Literal["missing", "corrupt", "path", "format", "conversation", "record"]
Language = Literal["auto", "en", "ru"]
ROLES: dict[str, Literal["user", "assistant"]] = {"human": "user", "gpt": "assistant"}
# Records that are read and decoded side by side; bounds how many encoded images are in memory.
RECORDS_AT_ONCE = 32


@dataclass(frozen=True)
class LeftOut:
    """A record that did not become a sample."""

    record: int
    """Position in the JSON file, from 0."""
    id: str
    reason: Reason
    """`missing` or `corrupt` image, refused `path` or `format` of an image, unusable
    `conversation`, or not a `record` of this format at all."""
    detail: str


@dataclass
class Report:
    """What became of the records; complete when the samples have been read to their end."""

    records: int = 0
    written: int = 0
    images: int = 0
    image_bytes: int = 0
    text_only: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    left_out: list[LeftOut] = field(default_factory=list)

    def count(self, sample: Sample) -> None:
        """Count a sample."""
        self.written += 1
        self.images += len(sample.images)
        self.image_bytes += sum(map(len, sample.images))
        self.text_only += not sample.images
        self.languages[sample.language] += 1

    def reasons(self) -> Counter[str]:
        """Count what was left out by reason."""
        return Counter(record.reason for record in self.left_out)

    def to_json(self, shards: Iterable[Path]) -> str:
        """Serialise, with the shards and their sizes in bytes."""
        content = {
            **asdict(self),
            "left_out_by_reason": dict(sorted(self.reasons().items())),
            "languages": dict(sorted(self.languages.items())),
            "shards": {path.name: path.stat().st_size for path in shards},
        }
        return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def read_records(path: Path) -> list[Any]:
    """Read a JSON array, or JSON lines.

    Raises:
        SettingError: no such file, or not JSON (with the line).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read {path}: {error}; expected a UTF-8 JSON file") from error
    try:
        if text.lstrip().startswith("["):
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingError(f"{path} is not a JSON array: {error}") from error
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            records += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            message = f"{path}, line {number}: {error}; expected a JSON array or one record a line"
            raise SettingError(message) from error
    return records


def llava_samples(
    records: Iterable[Any], images: Path, source: str, language: Language, report: Report
) -> Iterator[Sample]:
    """Turn LLaVA records into samples, in their order.

    Images stay byte for byte what they are in the folder, EXIF orientation included; each is
    decoded once in full, and a record whose image cannot be is left out.

    Args:
        records: As `read_records` gives them.
        images: The folder that the records' paths start from; nothing outside it is read.
        source: Becomes `Sample.source`.
        language: `auto` takes `ru` when more than half of the letters of the answers are Cyrillic
            (of all turns, when the answers have no letters), else `en`.
        report: Filled while the samples are read.

    Raises:
        SettingError: the images folder does not exist.
    """
    if not images.is_dir():
        raise SettingError(f"images folder {images} does not exist")
    convert = partial(_convert, images=images.resolve(), source=source, language=language)
    numbered = enumerate(records)
    seen: set[str] = set()
    with ThreadPoolExecutor() as pool:
        while group := list(islice(numbered, RECORDS_AT_ONCE)):
            # Pillow only warns of images that are merely suspiciously large; the filter is global,
            # so it is set out here, not in the threads.
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                results = list(pool.map(convert, group))
            for (number, _), result in zip(group, results, strict=True):
                report.records += 1
                if isinstance(result, LeftOut):
                    report.left_out.append(result)
                    continue
                # Many records of LLaVA's own mixture share an id: it names the image there.
                result.id = f"{result.id}@{number}" if result.id in seen else result.id
                seen.add(result.id)
                report.count(result)
                yield result


def conversation(record: Any) -> tuple[list[Turn], int]:
    """Read the turns of a LLaVA record, and how many images it names; the images are not opened.

    Raises:
        SettingError: not a record of this format, or an unusable conversation.
    """
    try:
        if not isinstance(record, dict):
            raise _Unusable("record", f"{type(record).__name__}, expected an object")
        turns = _turns(record.get("conversations"))
        return turns, len(_image_paths(record.get("image")))
    except _Unusable as error:
        raise SettingError(f"{error.reason}: {error}") from error


class _Unusable(Exception):  # noqa: N818 - carries a reason to the report, not an error to the user
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


def _convert(
    numbered: tuple[int, Any], images: Path, source: str, language: Language
) -> Sample | LeftOut:
    number, record = numbered
    name = f"record {number}"
    try:
        if not isinstance(record, dict):
            raise _Unusable("record", f"{type(record).__name__}, expected an object")
        name = str(record.get("id", name))
        turns = _turns(record.get("conversations"))
        encoded = [_read_image(images, path) for path in _image_paths(record.get("image"))]
        turns = _one_placeholder_an_image(turns, len(encoded))
        spoken = spoken_language(turns) if language == "auto" else language
        sample = Sample(name, turns, encoded, source, spoken)
        if problem := sample.problem():
            raise _Unusable("conversation", problem)
        return sample
    except _Unusable as error:
        return LeftOut(number, name, error.reason, str(error))


def _turns(conversations: Any) -> list[Turn]:
    if not isinstance(conversations, list):
        raise _Unusable("record", "no list of `conversations`")
    turns = [_turn(position, message) for position, message in enumerate(conversations)]
    # LLaVA (train.py, preprocess_v1) begins with the first question too.
    turns = turns[1:] if turns and turns[0].role == "assistant" else turns
    for turn in turns:
        if turn.role == "assistant" and not turn.text.strip():
            raise _Unusable("conversation", "an answer is empty")
    return turns


def _one_placeholder_an_image(turns: list[Turn], num_images: int) -> list[Turn]:
    """Write an image that a question names twice once, as LLaVA's own training does."""
    asked = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in turns if turn.role == "user")
    try:
        return turns if asked == num_images else place_images(turns, num_images)
    except SettingError as error:
        raise _Unusable("conversation", str(error)) from error


def _turn(position: int, message: Any) -> Turn:
    role = ROLES.get(str(message.get("from"))) if isinstance(message, dict) else None
    text = message.get("value") if role else None
    if role is None or not isinstance(text, str):
        found = message.get("from") if isinstance(message, dict) else message
        raise _Unusable(
            "record",
            f"turn {position} is from {found!r} or has no text in `value`; expected human or gpt",
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _Unusable("conversation", f"turn {position} holds half of a surrogate pair")
    return Turn(role, text)


def _image_paths(value: Any) -> list[str]:
    paths = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(path, str) and path for path in paths):
        raise _Unusable("record", "`image` is neither a path nor a list of paths")
    return paths


def _read_image(folder: Path, name: str) -> bytes:
    path = _inside(folder, name)
    try:
        if not path.is_file():
            raise _Unusable("missing", f"{name}: no such file")
        encoded = path.read_bytes()
    except OSError as error:
        raise _Unusable("missing", f"{name}: {error.strerror}") from error
    if not encoded:
        raise _Unusable("corrupt", f"{name}: empty file")
    if image_extension(encoded) is None:
        detail = f"{name}: begins with {encoded[:8]!r}, expected JPEG, PNG or WebP"
        raise _Unusable("format", detail)
    try:
        with Image.open(BytesIO(encoded), formats=("JPEG", "PNG", "WEBP")) as image:
            image.load()
    except UnidentifiedImageError as error:
        raise _Unusable("corrupt", f"{name}: its header cannot be read") from error
    except Exception as error:  # a decoder fed with damaged bytes may raise anything
        raise _Unusable("corrupt", f"{name}: {type(error).__name__}: {error}") from error
    return encoded


def _inside(folder: Path, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise _Unusable("path", f"{name}: expected a path inside the images folder")
    try:
        path = (folder / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # name too long, links in a circle, NUL
        raise _Unusable("path", f"{name!r}: {error}") from error
    if not path.is_relative_to(folder):
        raise _Unusable("path", f"{name}: a link that leads out of the images folder")
    return path


def spoken_language(turns: list[Turn]) -> str:
    """Tell `ru` from `en` by the letters of the answers, or of all turns where those have none."""
    answers = "".join(turn.text for turn in turns if turn.role == "assistant")
    letters = [letter for letter in answers if letter.isalpha()]
    if not letters:  # `2` is an answer in both languages
        letters = [letter for turn in turns for letter in turn.text if letter.isalpha()]
    cyrillic = sum("\u0400" <= letter <= "\u04ff" for letter in letters)
    return "ru" if cyrillic * 2 > len(letters) else "en"
