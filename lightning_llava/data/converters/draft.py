"""What a reader takes out of a published file, before any image has been opened."""

from dataclasses import dataclass, field
from typing import Literal

from lightning_llava.data.schema import Box
from lightning_llava.text.turns import Turn

Reason = Literal["missing", "corrupt", "path", "format", "conversation", "record"]
"""`missing` or `corrupt` image, refused `path` or `format` of an image, unusable `conversation`,
or a `record`, or part of one, that lacks something or contradicts itself."""


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


@dataclass(frozen=True)
class LeftOut:
    """Something that did not become a sample, or a part of one."""

    id: str
    """As the source names it; `record N` (its N-th, from 0) where it has no usable name."""
    reason: Reason
    detail: str
