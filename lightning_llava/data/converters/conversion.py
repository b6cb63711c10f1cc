"""What a conversion is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lightning_llava.data.converters.pictures import PictureReader
from lightning_llava.data.schema import SCHEMA_VERSION
from lightning_llava.data.shards import check_prefix
from lightning_llava.errors import SettingError

Language = Literal["auto", "en", "ru"]


@dataclass(frozen=True)
class Conversion:
    """Everything that decides what the shards hold; how many processes write them does not."""

    output: Path
    """Where the shards and the report go; created when missing."""
    prefix: str
    """Start of their names."""
    source: str
    """Becomes `Sample.source`."""
    images: Path | None = None
    """The folder that the drafts' image paths start from; nothing outside it is read."""
    language: Language = "auto"
    """`auto` takes what the draft says, else `ru` when more than half of the letters of the answers
    are Cyrillic (of all turns, when the answers have no letters), else `en`."""
    max_samples: int = 5000
    """Drafts per shard; a shard holds fewer samples when some of them are left out."""
    drop_duplicates: bool = False
    """Leave a record out that has the turns and images of an earlier one."""
    max_side: int | None = None
    """Pixels; larger images become JPEGs of this longer side."""
    reencode: bool = False
    """Make PNGs or JPEGs of images in other formats, instead of leaving their records out."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """What the drafts are read from; only compared when an interrupted conversion goes on."""

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            SettingError: a wrong prefix, number or folder.
        """
        check_prefix(self.prefix)
        if self.max_samples < 1:
            raise SettingError(
                f"{self.max_samples} samples per shard; --max-samples must be at least 1"
            )
        if self.max_side is not None and self.max_side < 1:
            raise SettingError(f"--max-side is {self.max_side} pixels; it must be at least 1")
        if self.images is not None and not self.images.is_dir():
            raise SettingError(
                f"--images {self.images} is no folder; it must be where image paths start"
            )

    def pictures(self) -> PictureReader:
        """Make the reader of the images."""
        folder = self.images.resolve() if self.images is not None else None
        return PictureReader(folder, self.max_side, self.reencode)

    def settings(self) -> dict[str, Any]:
        """Name whatever must not change while a conversion is unfinished."""
        return {
            "schema version": SCHEMA_VERSION,
            **self.origin,
            "images": str(self.images.resolve()) if self.images is not None else None,
            "source": self.source,
            "language": self.language,
            "max-samples": self.max_samples,
            "drop-duplicates": self.drop_duplicates,
            "max-side": self.max_side,
            "reencode": self.reencode,
        }
