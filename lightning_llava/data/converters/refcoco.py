"""RefCOCO, RefCOCO+ and RefCOCOg."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.published import (
    check_form,
    entries,
    is_parquet,
    parquet_rows,
    read_json,
)
from lightning_llava.data.converters.reading import (
    Prompt,
    identifier,
    name_of,
    numbers,
    read_each,
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
from lightning_llava.data.converters.vqa import CocoNames, coco_name

REGIONS = 9
"""LLaVA-1.5 cuts conversations into pieces of fewer than ten (its appendix A)."""


@dataclass(frozen=True)
class Reference:
    """A box in a picture, with everything that was said of it."""

    picture: Picture
    corners: Sequence[float]
    """Left, top, right, bottom in pixels."""
    phrases: list[dict[str, Any]]
    """Each an `id` and a `phrase`, not checked."""


def read_refcoco(
    refs: Path,
    prompt: Prompt = "en",
    coordinates: Coordinates = "padded",
    names: CocoNames = "train2014",
) -> Iterator[Draft | LeftOut]:
    """Read RefCOCO, RefCOCO+ or RefCOCOg; an image's regions are cut into conversations of nine.

    Published: MDETR's finetune_refcoco_train.json and the like (COCO's form, one `images` entry a
    phrase), or the parquet of jxu124/refcoco, refcocoplus, refcocog on the Hugging Face hub, a file
    or a folder of one split. The original `refs(unc).p` is a pickle and is never read.

    Args:
        refs: The file.
        prompt: Language of the questions; phrases stay as they are.
        coordinates: What written boxes hold fractions of.
        names: How COCO's images are called.

    Raises:
        SettingError: not these files, or pyarrow is missing.
    """
    images: dict[str, tuple[Picture, list[Region]]] = {}
    for number, reference in enumerate(read_references(refs)):
        if isinstance(reference, LeftOut):
            yield reference
            continue
        picture = replace(reference.picture, path=coco_name(int(reference.picture.id), names))
        for phrase in reference.phrases:
            try:
                name, what = identifier(phrase, "id"), text(phrase, "phrase")
                region = place_region(name, reference.corners, what, picture, coordinates)
                images.setdefault(picture.id, (picture, []))[1].append(region)
            except Unusable as error:
                yield LeftOut(name_of(phrase, "id", number), error.reason, str(error))
    for picture, regions in images.values():
        yield from conversations(picture, regions, REGIONS, prompt)


def read_references(refs: Path) -> Iterator[Reference | LeftOut]:
    """Read the boxes and what was said of them; see `read_refcoco` for the files.

    Raises:
        SettingError: not these files, or pyarrow is missing.
    """
    return _hub_references(refs) if is_parquet(refs) else _mdetr_references(refs)


def _mdetr_references(path: Path) -> Iterator[Reference | LeftOut]:
    expected = (
        "MDETR's finetune_refcoco*_*.json, or a parquet of jxu124/refcoco*; the original refs(*).p"
        " is a pickle"
    )
    content = read_json(path, expected, drop=("tokens_positive", "tokens_negative", "segmentation"))
    boxes: dict[str, list[Any]] = {}
    for annotation in entries(content, "annotations", path, expected):
        boxes.setdefault(name_of(annotation, "image_id", 0), []).append(annotation)

    def convert(image: Any) -> Reference:
        name, caption = identifier(image, "id"), value(image, "caption")
        found = boxes.get(name, [])
        if len(found) != 1:
            raise Unusable("record", f"{len(found)} boxes for one phrase")
        x, y, width, height = numbers(value(found[0], "bbox"), 4, "`bbox`")
        phrases = [{"id": name, "phrase": caption}]
        return Reference(_coco_picture(image), (x, y, x + width, y + height), phrases)

    images = entries(content, "images", path, expected)
    yield from read_each(check_form(images, "caption", path, expected), "id", convert)


def _hub_references(path: Path) -> Iterator[Reference | LeftOut]:
    expected = "the parquet of jxu124/refcoco, refcocoplus or refcocog"

    def convert(row: dict[str, Any]) -> Reference:
        try:
            image = json.loads(text(row, "raw_image_info"))
        except (ValueError, RecursionError) as error:
            raise Unusable("record", f"`raw_image_info` is not JSON: {error}") from error
        said = value(row, "sentences")
        if not (isinstance(said, list) and said and all(isinstance(s, dict) for s in said)):
            raise Unusable("record", f"`sentences` is {said!r:.80}, expected a list of sentences")
        phrases = [{"id": each.get("sent_id"), "phrase": each.get("sent")} for each in said]
        corners = numbers(value(row, "bbox"), 4, "`bbox`")
        return Reference(_coco_picture(image), corners, phrases)

    columns = ("ref_id", "sentences", "raw_image_info", "bbox")
    yield from read_each(parquet_rows(path, columns, expected), "ref_id", convert)


def _coco_picture(record: Any) -> Picture:
    name = text(record, "file_name")
    if not (found := re.search(r"(?:^|[_/])(\d{12})\.jpg$", name)):
        detail = f"`file_name` is {name!r:.80}, expected COCO_train2014_000000000009.jpg"
        raise Unusable("record", detail)
    size = whole_number(record, "width"), whole_number(record, "height")
    return Picture(str(int(found[1])), name, *size)
