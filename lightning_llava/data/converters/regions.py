"""Regions of pictures as conversations: box to phrase and phrase to box (the tasks of REVIVE).

Questions and answers have the form of llava_v1_5_mix665k.json. Which way a region is asked depends
on its id alone.

Boxes are written as `[left, top, right, bottom]`, with at most two decimals. LLaVA's are fractions
of the picture *padded to a square*, which is what the model sees in mode `pad`
(haotian-liu/LLaVA, issue 606): `padded`. With `image` they are fractions of the picture itself, for
models that stretch it. `Draft.boxes` are always fractions of the picture itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_llava.data.converters.draft import Draft
from lightning_llava.data.converters.reading import (
    Prompt,
    about_image,
    capitalised,
    stable_hash,
)
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.schema import Box

Coordinates = Literal["padded", "image"]
PROMPTS: dict[Prompt, tuple[str, str]] = {
    "en": (
        "Please provide a short description for this region: {box}.",
        "Please provide the bounding box coordinate of the region this sentence describes: "
        "{phrase}",
    ),
    "ru": (
        "Кратко опиши эту область: {box}.",
        "Укажи координаты рамки области, которую описывает это предложение: {phrase}",
    ),
}


@dataclass(frozen=True)
class Picture:
    """An image that regions lie on."""

    id: str
    path: str
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(frozen=True)
class Region:
    """A box and what is in it."""

    id: str
    box: Box
    written: str
    """The box as text."""


def conversations(
    picture: Picture, regions: list[Region], most: int, prompt: Prompt
) -> Iterator[Draft]:
    """Ask for the regions of an image.

    Args:
        picture: The image.
        regions: In the order in which they are asked for.
        most: Regions a conversation.
        prompt: Language of the questions; phrases stay as they are.
    """
    ask_phrase, ask_box = PROMPTS[prompt]
    parts = [regions[start : start + most] for start in range(0, len(regions), most)]
    for place, part in enumerate(parts):
        pairs = []
        for region in part:
            said = sentence(region.box.phrase)
            if stable_hash(region.id) % 2:
                pairs.append((ask_phrase.format(box=region.written), capitalised(said)))
            else:
                pairs.append((ask_box.format(phrase=said), region.written))
        name = picture.id if len(parts) == 1 else f"{picture.id}-{place}"
        boxes = [region.box for region in part]
        yield Draft(name, about_image(pairs), [picture.path], boxes, [region.id for region in part])


def place_region(
    name: str, corners: Sequence[float], phrase: str, picture: Picture, coordinates: Coordinates
) -> Region:
    """Clip a box to its picture and write it.

    Args:
        name: The region's id.
        corners: Left, top, right, bottom in pixels.
        phrase: What is in the box.
        picture: Where the box lies.
        coordinates: What the written box holds fractions of.

    Raises:
        Unusable: nothing of the box is left, or less than two decimals can say.
    """
    width, height = picture.width, picture.height
    left, right = (min(max(edge, 0.0), width) for edge in (corners[0], corners[2]))
    top, bottom = (min(max(edge, 0.0), height) for edge in (corners[1], corners[3]))
    if not (left < right and top < bottom):
        raise Unusable("record", f"box {list(corners)} is empty within {width} x {height}")
    across, down = width, height
    offset_x = offset_y = 0
    if coordinates == "padded":  # centred, the odd pixel to the right and below
        across = down = max(width, height)
        offset_x, offset_y = (across - width) // 2, (down - height) // 2
    written = [
        round((left + offset_x) / across, 2),
        round((top + offset_y) / down, 2),
        round((right + offset_x) / across, 2),
        round((bottom + offset_y) / down, 2),
    ]
    if not (written[0] < written[2] and written[1] < written[3]):
        detail = f"box {list(corners)} in {width} x {height} is {written} in two decimals"
        raise Unusable("record", detail)
    xyxy = (left / width, top / height, right / width, bottom / height)
    return Region(name, Box(xyxy, phrase), str(written))


def sentence(phrase: str) -> str:
    """End a phrase as prompts have it."""
    return phrase if phrase.endswith((".", "!", "?")) else f"{phrase}."
