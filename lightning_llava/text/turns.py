"""What a conversation is made of, and where its pictures stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_llava.errors import SettingError

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


def place_images(turns: Sequence[Turn], num_images: int) -> list[Turn]:
    """Move placeholders to the front of their turn, one a line (LLaVA: preprocess_multimodal).

    One image that is named several times in a turn is one image.

    Raises:
        SettingError: the user's turns have placeholders for more or fewer images.
    """
    counts = [t.text.count(IMAGE_PLACEHOLDER) if t.role == "user" else 0 for t in turns]
    if sum(counts) != num_images and sum(map(bool, counts)) == num_images:
        counts = [min(count, 1) for count in counts]
    if sum(counts) != num_images:
        raise SettingError(
            f"{sum(counts)} {IMAGE_PLACEHOLDER} placeholders in the user turns but "
            f"{num_images} images"
        )
    return [
        replace(turn, text=_images_first(turn.text, count)) if count else turn
        for turn, count in zip(turns, counts, strict=True)
    ]


def _images_first(text: str, count: int) -> str:
    question = text.replace(IMAGE_PLACEHOLDER, "").strip()
    return (f"{IMAGE_PLACEHOLDER}\n" * count + question).strip()
