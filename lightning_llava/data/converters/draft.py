"""What a reader takes out of a published file, before any image has been opened."""

from dataclasses import dataclass, field
from typing import Literal

from lightning_llava.data.schema import Box
from lightning_llava.text.turns import Turn

Reason = Literal["missing", "corrupt", "path", "format", "conversation", "record"]
"""`missing` or `corrupt` image, refused `path` or `format` of an image, unusable `conversation`,
or not a `record` of this format at all."""


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
    language: str | None = None
    """ISO 639-1 code of the answers; None goes by their letters."""


@dataclass(frozen=True)
class LeftOut:
    """A record that did not become a sample."""

    record: int
    """Position among the records of the source, from 0."""
    id: str
    reason: Reason
    detail: str
