"""What a reader takes out of a published file, before any image has been opened."""

from dataclasses import dataclass, field
from typing import Literal

from lightning_llava.data.schema import Box
from lightning_llava.text.turns import Turn

Reason = Literal["missing", "corrupt", "path", "format", "conversation", "record"]
REASONS: dict[Reason, str] = {
    "missing": "a picture is not in the folder, or cannot be read there",
    "corrupt": "a picture cannot be decoded to its end",
    "path": "a picture's path is absolute, holds `..` or leads out of the folder by a link",
    "format": "a picture is no JPEG, PNG or WebP",
    "conversation": "a text is empty or broken, turns do not alternate, or there are not as many"
    " placeholders as pictures",
    "record": "a field is missing or of the wrong type, or fields contradict each other",
}
"""Why something is left out, for people."""
MERGED = "placeholders of one picture merged"
LEADING_ANSWER = "answers before the first question dropped"
TRAILING_QUESTION = "questions after the last answer dropped"
SYSTEM_TURN = "system turns dropped"
PLACED = "picture placed before the first question"


@dataclass
class Draft:
    """A sample whose images are still to be read."""

    id: str
    """As the source names it; made unique later."""
    turns: list[Turn]
    """Alternating, the user first; one `<image>` for each image."""
    images: list[str | bytes] = field(default_factory=list)
    """Paths inside the images folder, or encoded images where the file itself holds them
    (parquet)."""
    boxes: list[Box] = field(default_factory=list)
    """Regions the conversation is about."""
    ids: list[str] = field(default_factory=list)
    """The source's own ids of the questions, in the order of the answers, where it has them."""
    language: str | None = None
    """ISO 639-1 code of the answers; None goes by their letters."""
    notes: list[str] = field(default_factory=list)
    """What the reader changed in a published conversation; counted in the report."""


@dataclass(frozen=True)
class LeftOut:
    """Something that did not become a sample, or a part of one."""

    id: str
    """As the source names it; `record N` (its N-th, from 0) where it has no usable name."""
    reason: Reason
    detail: str
