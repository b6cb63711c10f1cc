"""Tokenised samples to a `Batch`. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.tiling import Size


@dataclass(frozen=True)
class Row:
    """One tokenised sample with its pixels; an image is still one `IMAGE_TOKEN_INDEX`.

    With any resolution `pixels` are those of overview and tiles, image by image.
    """

    id: str
    input_ids: Int[np.ndarray, " tokens"]
    labels: Int[np.ndarray, " tokens"]
    pixels: Sequence[UInt8[Tensor, "3 height width"]]
    image_sizes: Sequence[Size] = ()
    """Of each image."""
    image_tokens: Sequence[int] | None = None
    """Features of each image; None where all have as many."""


def expand_placeholders(
    row: Row, image_tokens: int
) -> tuple[Int[Tensor, " expanded"], Int[Tensor, " expanded"]]:
    """Repeat every image id, and its ignored label, once per feature of the image."""
    repeats = np.ones_like(row.input_ids)
    counts = image_tokens if row.image_tokens is None else row.image_tokens
    repeats[row.input_ids == IMAGE_TOKEN_INDEX] = counts
    ids, labels = np.repeat(row.input_ids, repeats), np.repeat(row.labels, repeats)
    return torch.from_numpy(ids), torch.from_numpy(labels)


def collate_packed(
    rows: Sequence[Row], image_tokens: int, image_size: int, rng_seed: int | None = None
) -> Batch:
    """Lay samples one after another in a single row; positions restart with each.

    Args:
        rows: the pack's samples.
        image_tokens: features per image, where the rows do not say.
        image_size: side of the pixels, for packs without images.
        rng_seed: of the micro-batch.
    """
    expanded = [expand_placeholders(row, image_tokens) for row in rows]
    lengths = [ids.numel() for ids, _ in expanded]
    return Batch(
        input_ids=torch.cat([ids for ids, _ in expanded]).unsqueeze(0),
        labels=torch.cat([labels for _, labels in expanded]).unsqueeze(0),
        position_ids=torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0),
        pixel_values=stack_pixels(rows, image_size),
        image_sizes=_sizes(rows),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
        longest=max(lengths),
        sample_ids=[row.id for row in rows],
        rng_seed=rng_seed,
    )


def collate_padded(
    rows: Sequence[Row], image_tokens: int, image_size: int, left: bool = False
) -> Batch:
    """Lay samples below one another, padded: right for a plain forward, left for generation."""
    expanded = [expand_placeholders(row, image_tokens) for row in rows]
    longest = max(ids.numel() for ids, _ in expanded)

    def pad(values: Tensor, fill: int) -> Tensor:
        missing = longest - values.numel()
        return torch.nn.functional.pad(values, (missing, 0) if left else (0, missing), value=fill)

    attention_mask = torch.stack([pad(torch.ones_like(ids), 0) for ids, _ in expanded]).bool()
    return Batch(
        input_ids=torch.stack([pad(ids, 0) for ids, _ in expanded]),
        labels=torch.stack([pad(labels, IGNORE_INDEX) for _, labels in expanded]),
        position_ids=(attention_mask.long().cumsum(1) - 1).clamp(min=0),
        pixel_values=stack_pixels(rows, image_size),
        image_sizes=_sizes(rows),
        attention_mask=attention_mask,
        sample_ids=[row.id for row in rows],
    )


def _sizes(rows: Sequence[Row]) -> list[Size]:
    return [size for row in rows for size in row.image_sizes]


def stack_pixels(rows: Sequence[Row], image_size: int) -> UInt8[Tensor, "images 3 height width"]:
    """Stack the images of all rows in reading order; none gives an empty stack."""
    pixels = [image for row in rows for image in row.pixels]
    return (
        torch.stack(pixels)
        if pixels
        else torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)
    )
