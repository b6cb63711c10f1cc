"""Fields out of records that others wrote, and conversations out of questions and answers."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, TypeVar

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

T = TypeVar("T")
Prompt = Literal["en", "ru"]
"""Language of what a converter itself writes into a question."""


@dataclass(frozen=True)
class Answered:
    """A question about an image, and its answer."""

    image: str
    """Its id."""
    path: str
    question: str
    answer: str
    id: str | None = None
    """The question's, where it has one."""


def value(record: Any, key: str) -> Any:
    """Take a field.

    Raises:
        Unusable: the record is no object, or lacks the field.
    """
    if not isinstance(record, dict):
        raise Unusable("record", f"{type(record).__name__}, expected an object")
    if record.get(key) is None:
        raise Unusable("record", f"no `{key}`")
    return record[key]


def text(record: Any, key: str) -> str:
    """Take a text, without the white space around it.

    Raises:
        Unusable: it is missing, no text, empty, or cannot be a turn's.
    """
    found = value(record, key)
    if not isinstance(found, str):
        raise Unusable("record", f"`{key}` is {found!r:.80}, expected a text")
    if problem := problem_of(found):
        raise Unusable("conversation", f"`{key}` {problem}")
    return found.strip()


def identifier(record: Any, key: str) -> str:
    """Take a whole number or a text that names something.

    Raises:
        Unusable: it is missing or something else.
    """
    found = value(record, key)
    if isinstance(found, bool) or not isinstance(found, int | str) or found == "":
        raise Unusable("record", f"`{key}` is {found!r:.80}, expected a number or a text")
    return str(found)


def whole_number(record: Any, key: str) -> int:
    """Take a whole number, not below 0.

    Raises:
        Unusable: it is missing or something else.
    """
    found = value(record, key)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise Unusable("record", f"`{key}` is {found!r:.80}, expected a whole number")
    return found


def numbers(found: Any, count: int, what: str) -> list[float]:
    """Take a list of finite numbers, none of them astronomic.

    Raises:
        Unusable: it is something else.
    """
    if not (
        isinstance(found, list)
        and len(found) == count
        and all(isinstance(n, int | float) and abs(n) < 1e9 for n in found)  # no NaN either
    ):
        raise Unusable("record", f"{what} is {found!r:.80}, expected {count} numbers")
    return [float(number) for number in found]


def texts(record: Any, key: str) -> list[str]:
    """Take a list of texts, as they are.

    Raises:
        Unusable: it is missing or something else.
    """
    found = value(record, key)
    if not (isinstance(found, list) and all(isinstance(item, str) for item in found)):
        raise Unusable("record", f"`{key}` is {found!r:.80}, expected a list of texts")
    return found


def problem_of(turn: str) -> str | None:
    """Say why a text cannot be a turn, or None. `<image>` would count as a picture."""
    if not turn.strip():
        return "is empty"
    if IMAGE_PLACEHOLDER in turn:
        return f"holds {IMAGE_PLACEHOLDER}, which stands for a picture"
    if any("\ud800" <= letter <= "\udfff" for letter in turn):
        return "holds half of a surrogate pair"
    return None


def capitalised(answer: str) -> str:
    """Write the first letter large, as mix665k does with answers that are published small."""
    return answer[:1].upper() + answer[1:]


def stable_hash(name: str) -> int:
    """Choose by a name alone: the same on every machine and in every order of records."""
    return int.from_bytes(blake2b(name.encode(errors="replace"), digest_size=8).digest(), "big")


def name_of(record: Any, key: str, number: int) -> str:
    """Name a record that may be unusable; `number` is its place in the file, from 0."""
    name = record.get(key) if isinstance(record, dict) else None
    usable = isinstance(name, int | str) and name != ""
    return str(name) if usable else f"record {number}"


def read_each(
    records: Iterable[Any], key: str, convert: Callable[[Any], T]
) -> Iterator[T | LeftOut]:
    """Convert records one by one; the unusable ones become what was left out.

    Args:
        records: As the file holds them.
        key: Where a record's id is.
        convert: Raises `Unusable` where it cannot.
    """
    for number, record in enumerate(records):
        try:
            yield convert(record)
        except Unusable as error:
            yield LeftOut(name_of(record, key, number), error.reason, str(error))


def merge_by_image(
    answered: Iterable[Answered | LeftOut], ending: Callable[[str], str]
) -> Iterator[Draft | LeftOut]:
    """Merge all questions about an image into one conversation, as LLaVA-1.5 does.

    What was left out comes first, then the images in the order of their first question. The
    prompt for short answers stands once, after the first question (mix665k).

    Args:
        answered: In the order of the published file; held in memory.
        ending: What to write behind the first question, given the image's id.
    """
    images: dict[str, list[Answered]] = {}
    for item in answered:
        if isinstance(item, LeftOut):
            yield item
        else:
            images.setdefault(item.image, []).append(item)
    for name, pairs in images.items():
        turns = about_image([(pair.question, pair.answer) for pair in pairs], ending(name))
        yield Draft(name, turns, [pairs[0].path], ids=[pair.id for pair in pairs if pair.id])


def about_image(pairs: Iterable[tuple[str, str]], ending: str = "") -> list[Turn]:
    """Write questions and answers about one image; the image stands first."""
    turns: list[Turn] = []
    for question, answer in pairs:
        asked = question if turns else f"{IMAGE_PLACEHOLDER}\n{question}{ending}"
        turns += [Turn("user", asked), Turn("assistant", answer)]
    return turns
