"""Notice a wrong folder of pictures, or wrong names of them, before hours are spent on it."""

from collections.abc import Iterable, Iterator

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.pictures import PictureReader
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.errors import SettingError

LOOKED_FOR = 100
"""Records with pictures; where all of them lack one, the folder or the names are others."""


def pictures_are_there(
    stream: Iterable[Draft | LeftOut], conversion: Conversion
) -> Iterator[Draft | LeftOut]:
    """Pass a stream on as it is, once a record's pictures are found.

    From the first record that lacks one, all are held back: `LOOKED_FOR` of them at most, and what
    stands between them.

    Raises:
        SettingError: the first `LOOKED_FOR` records with pictures all lack one.
    """
    reader, stream = conversion.pictures(), iter(stream)
    held: list[Draft | LeftOut] = []
    examples: list[str] = []
    for entry in stream:
        held.append(entry)
        if isinstance(entry, Draft) and entry.images:
            if not (lacking := _lacking(entry, reader)):
                break
            examples.append(lacking)
            if len(examples) == LOOKED_FOR:
                raise SettingError(
                    f"the first {LOOKED_FOR} records with pictures all lack them; the first is"
                    f" {examples[0]}; {folder_hint(conversion)}"
                )
        elif not examples:
            yield held.pop()
    yield from held
    yield from stream


def folder_hint(conversion: Conversion) -> str:
    """Say which options decide where pictures are looked for."""
    names = conversion.origin.get("names")
    return f"--images {conversion.images} must be the folder that their paths start from" + (
        f", and --names {names} the form of their names" if names else ""
    )


def _lacking(draft: Draft, reader: PictureReader) -> str:
    """Say which picture is missing; empty when none is, or something else is wrong with it."""
    try:
        for image in draft.images:
            if isinstance(image, str):
                reader.size(image)
    except Unusable as error:
        return str(error) if error.reason == "missing" else ""
    except OSError:
        return ""
    return ""
