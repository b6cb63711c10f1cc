"""Visual Genome's regions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.published import (
    check_form,
    json_records,
    other_form,
    read_json,
)
from lightning_llava.data.converters.reading import (
    Prompt,
    identifier,
    name_of,
    numbers,
    read_each,
    stable_hash,
    text,
    value,
    whole_number,
)
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.converters.regions import (
    Coordinates,
    Picture,
    Region,
    conversations,
    place_region,
)

REGIONS = 10
"""LLaVA-1.5 samples so many of each image (its appendix A)."""


def read_vg(
    regions: Path,
    image_data: Path,
    prompt: Prompt = "en",
    coordinates: Coordinates = "padded",
    per_image: Literal["ten", "all"] = "ten",
) -> Iterator[Draft | LeftOut]:
    """Read Visual Genome's region descriptions; records are its images.

    Published: region_descriptions.json and image_data.json, version 1.2
    (homes.cs.washington.edu/~ranjay/visualgenome). Images are `VG_100K/….jpg` and
    `VG_100K_2/….jpg`. The regions are read image by image.

    Args:
        regions: Boxes and phrases.
        image_data: Sizes and addresses of the images.
        prompt: Language of the questions; phrases stay as they are.
        coordinates: What written boxes hold fractions of.
        per_image: `ten` regions, chosen by their ids (LLaVA-1.5), or `all`, cut into conversations
            of ten.

    Raises:
        SettingError: not these files.
    """
    expected = "Visual Genome's region_descriptions.json"
    pictures = _vg_pictures(image_data)
    records = check_form(json_records(regions, expected), "regions", regions, expected)
    for number, entry in enumerate(records):
        try:
            name, found = identifier(entry, "id"), value(entry, "regions")
            if not (isinstance(found, list) and found):
                raise Unusable("record", f"`regions` is {found!r:.80}, expected a list")
            if name not in pictures:
                raise Unusable("record", f"no usable entry of image {name} in {image_data.name}")
        except Unusable as error:
            yield LeftOut(name_of(entry, "id", number), "record", str(error))
            continue
        picture, usable = pictures[name], []
        for place, region in enumerate(found):
            try:
                usable.append(_vg_region(region, picture, coordinates))
            except Unusable as error:
                region_name = f"{name}, region {name_of(region, 'region_id', place)}"
                yield LeftOut(region_name, error.reason, str(error))
        if per_image == "ten":
            order = sorted(range(len(usable)), key=lambda i: stable_hash(f"{usable[i].id} of ten"))
            usable = [usable[i] for i in sorted(order[:REGIONS])]
        yield from conversations(picture, usable, REGIONS, prompt)


def _vg_pictures(path: Path) -> dict[str, Picture]:
    """Read sizes and paths of Visual Genome's images.

    Raises:
        SettingError: not this file.
    """
    expected = "Visual Genome's image_data.json"
    content = read_json(path, expected)
    if not isinstance(content, list):
        other_form(content, path, f"{expected}, an array")
    records = check_form(content, "url", path, expected)
    found = (item for item in read_each(records, "image_id", _vg_picture))
    return {item.id: item for item in found if isinstance(item, Picture)}


def _vg_picture(record: Any) -> Picture:
    path = "/".join(text(record, "url").split("/")[-2:])
    width, height = whole_number(record, "width"), whole_number(record, "height")
    return Picture(identifier(record, "image_id"), path, width, height)


def _vg_region(record: Any, picture: Picture, coordinates: Coordinates) -> Region:
    name, phrase = identifier(record, "region_id"), text(record, "phrase")
    sizes = [value(record, key) for key in ("x", "y", "width", "height")]
    x, y, width, height = numbers(sizes, 4, "the box")
    return place_region(name, (x, y, x + width, y + height), phrase, picture, coordinates)
