"""An exported folder, loaded as anybody will load it, compared with the checkpoint."""

import io
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import Row, collate_padded
from lightning_llava.data.images import ImageTransform
from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete
from lightning_llava.models.interop.hf_classes import classes_of
from lightning_llava.models.trained import Trained, build_trained, read_trained
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

SIZES = ((40, 40), (90, 31), (33, 80), (5, 9))
"""Width and height of the pictures that are compared: square, wide, tall, tiny."""
PIXELS = 1e-5
"""Greatest difference of normalised pixels: the order of fp32 operations."""
LOGITS = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.1}
"""Greatest difference of the logits, as a share of their own size. In 16 bits it is rounding, of
the merged weights above all; another norm, rotation or row of features gives shares near 1."""
ASKED = f"{IMAGE_PLACEHOLDER}\nWhat is this?"
CONVERSATIONS = (
    ([ASKED], 1),
    ([ASKED, "Black", "And  this?"], 1),
    ([f"{IMAGE_PLACEHOLDER}\n{IMAGE_PLACEHOLDER}\nЧто общего?"], 2),
    ([" Without a picture.\n", " yes ", "\nА так?", "Нет, 2", "12 + 1\t= "], 0),
)
"""Texts of user and assistant in turn, and how many pictures they show."""


def verify(
    trained: Trained,
    encoder: ConversationEncoder,
    folder: Path,
    dtype: torch.dtype,
    logits: bool = True,
) -> None:
    """Compare ids, pixels and, if wished, logits.

    Raises:
        SettingError: the folder is another model than the checkpoint.
    """
    # Whatever is installed: torchvision would resize to other pixels.
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    transform = ImageTransform(trained.vision, trained.data["data.image_mode"])
    verify_text(processor, encoder)
    verify_pixels(processor, transform)
    if logits:
        verify_logits(trained, encoder, processor, transform, folder, dtype)


def verify_text(processor: Any, encoder: ConversationEncoder) -> None:
    """Compare the processor's ids with those that the model was trained on.

    Raises:
        SettingError: a conversation that the chat template and tokenizer write otherwise.
    """
    for writer, texts, images in _conversations(encoder):
        turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
        answered = [*turns, Turn("assistant", "Red.")]
        cases = [(turns, writer.prompt(turns, images)[0], True)]
        counts = encoder.count_features(SIZES[:images])
        # Training itself may refuse an answer, or cut it off: then there is nothing to compare.
        with suppress(SettingError):
            encoded = writer.encode(answered, SIZES[:images])
            cases += [(answered, encoded.input_ids, False)] * (not encoded.dropped_turns)
        system = "" if writer is encoder else writer.system
        for said, ids, opened in cases:
            expected = _expanded(ids, counts, processor.image_token_id)
            for messages in (_as_text(said), _as_parts(said)):
                if system:
                    messages.insert(0, {"role": "system", "content": system})
                found = _tokenised(processor, messages, images, opened)
                if found != expected:
                    raise SettingError(
                        f"--format hf: the template {encoder.template.name!r} cannot be written "
                        "exactly for this tokenizer: training had the ids "
                        f"{_difference(expected, found)}, for {[turn.text for turn in said]!r}; "
                        "export --format adapter"
                    )


def verify_pixels(processor: Any, transform: ImageTransform) -> None:
    """Compare the processor's pixels with those that the model was trained on.

    Raises:
        SettingError: a picture that it prepares otherwise.
    """
    own = processor.image_processor
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.image_mean, own.image_std))
    for size in SIZES:
        picture = _picture(size)
        pixels = torch.stack(transform.prepare([_encoded(picture)]).pixels)
        expected = (pixels.float() / 255 - mean) / std
        found = own(picture, return_tensors="pt")["pixel_values"].view(-1, *pixels.shape[1:])
        if found.shape != expected.shape or (found - expected).abs().max() > PIXELS:
            raise SettingError(
                f"--format hf: {type(own).__name__} cannot prepare pictures as training did "
                f"({_way(transform)}; a picture of {size[0]} x {size[1]} becomes another); export "
                "--format adapter"
            )


def verify_logits(
    trained: Trained,
    encoder: ConversationEncoder,
    processor: Any,
    transform: ImageTransform,
    folder: Path,
    dtype: torch.dtype,
) -> None:
    """Compare logits of the folder with those of the checkpoint, adapters not merged.

    One model is in memory at a time.

    Raises:
        SettingError: they differ by more than rounding.
    """
    picture = _picture(SIZES[1])
    ids, _ = encoder.prompt([Turn("user", ASKED)], 1)
    shown = transform.prepare([_encoded(picture)])
    counts = encoder.count_features(shown.sizes)
    row = Row("probe", ids, ids, shown.pixels, shown.sizes, counts)
    expected = _own_logits(trained, encoder, row, dtype)
    inputs = processor.apply_chat_template(
        _as_parts([Turn("user", ASKED)]),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"images": [picture], "return_tensors": "pt"},
    )
    classes = classes_of(trained.vision)
    loaded: Any = classes.model.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    model, info = loaded
    check_complete(info, str(folder), "--format hf")
    with torch.no_grad():
        found = model.eval()(**inputs.to(dtype)).logits[0, :, : expected.shape[-1]].float()
    share = float((found - expected).norm() / (expected - expected.mean()).norm())
    if not share <= LOGITS[dtype]:
        raise SettingError(
            f"--format hf: transformers' {classes.name} computes other logits than the "
            f"checkpoint's model (they differ by {share:.2g} of their size, expected at most "
            f"{LOGITS[dtype]:g}); export --format adapter"
        )


@torch.no_grad()
def _own_logits(
    trained: Trained, encoder: ConversationEncoder, row: Row, dtype: torch.dtype
) -> Tensor:
    fresh = read_trained(trained.path, "--checkpoint")
    model = build_trained(fresh, encoder, dtype).eval()
    geometry = model.vision_tower.geometry
    batch = collate_padded([row], geometry.image_tokens, geometry.image_size)
    return model.logits(batch)[0].float()


def _conversations(
    encoder: ConversationEncoder,
) -> Iterator[tuple[ConversationEncoder, list[str], int]]:
    """List what the template can write: with its own system text, and with another."""
    template = encoder.template
    writers = [encoder]
    if "{system}" in template.begin + template.system_turn + template.first_user:
        writers.append(copy(encoder))
        writers[-1].system = "Be brief."
    for writer in writers:
        for texts, images in CONVERSATIONS:
            fits = template.max_pairs is None or len(texts) // 2 < template.max_pairs
            if fits and (images or not template.needs_image):
                yield writer, texts, images


def _as_text(turns: list[Turn]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def _as_parts(turns: list[Turn]) -> list[dict[str, Any]]:
    messages = []
    for turn in turns:
        images = turn.text.count(IMAGE_PLACEHOLDER)
        text = turn.text.replace(f"{IMAGE_PLACEHOLDER}\n", "")
        content = [*[{"type": "image"}] * images, {"type": "text", "text": text}]
        messages.append({"role": turn.role, "content": content})
    return messages


def _tokenised(
    processor: Any, messages: list[dict[str, Any]], images: int, opened: bool
) -> list[int]:
    pictures = {"images": [_picture(size) for size in SIZES[:images]]} if images else {}
    found = processor.apply_chat_template(
        messages,
        add_generation_prompt=opened,
        tokenize=True,
        return_dict=True,
        processor_kwargs=pictures,
    )
    return [int(index) for index in found["input_ids"][0]]


def _expanded(ids: np.ndarray, image_tokens: Sequence[int], image_id: int) -> list[int]:
    repeats = np.ones_like(ids)
    repeats[ids == IMAGE_TOKEN_INDEX] = image_tokens
    return np.repeat(np.where(ids == IMAGE_TOKEN_INDEX, image_id, ids), repeats).tolist()


def _difference(expected: list[int], found: list[int]) -> str:
    shared = next(
        (n for n, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(found)),
    )
    here = slice(max(0, shared - 2), shared + 4)
    return f"… {expected[here]} … where it writes … {found[here]} …"


def _way(transform: ImageTransform) -> str:
    return "in tiles" if transform.tiling else f"data.image_mode: {transform.mode}"


def _picture(size: tuple[int, int]) -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
