"""What a conversation is made of, what it must be, and where its pictures stand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_llava.errors import SettingError
from lightning_llava.text.template import Template

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


def check_turns(turns: Sequence[Turn], num_images: int, template: Template) -> None:
    """Refuse what LLaVA would mask silently, or what the template cannot write.

    Raises:
        SettingError: saying which turn, and what is wrong with it.
    """
    if not turns or len(turns) % 2:
        raise SettingError(f"{len(turns)} turns; expected pairs of question and answer")
    for position, turn in enumerate(turns):
        expected = "assistant" if position % 2 else "user"
        if turn.role != expected:
            raise SettingError(f"turn {position} is the {turn.role}'s, expected {expected}")
        empty = not turn.text.strip() if position % 2 else not turn.text
        if empty:
            name = "answer" if position % 2 else "question"
            raise SettingError(f"turn {position}: the {name} is empty; drop the pair or fill it in")
    most = template.max_pairs
    if most is not None and len(turns) // 2 > most:
        raise SettingError(
            f"{len(turns) // 2} question-answer pairs; the template {template.name!r} "
            f"takes {most}: leave this source out of data.sources (the align stage takes "
            "captions), or set data.prompt: chat"
        )
    if template.needs_image and not num_images:
        raise SettingError(
            f"no image; the template {template.name!r} writes nothing else before the "
            "answer: leave text-only records out of this stage, or set data.prompt: chat"
        )
