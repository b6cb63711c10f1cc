"""What every rung trains on: the sizes of the model and one seeded stream of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.data.collate import Row, collate_packed, collate_padded
from lightning_llava.data.plan import best_fit_decreasing

TEXT_ONLY = 0.06
"""Share of samples without an image, as in mix665k."""
SUPERVISED = 0.38
"""Share of the text that is answers: about 100 tokens a sample."""
WINDOW = 128
"""Samples that are packed or grouped together."""
PICTURES = 16
"""Different images; their contents change no time."""
SPARE_IDS = 64
"""Rows at the end of the vocabulary that no text uses, as in llava-hf's checkpoints: the baseline
keeps the id of its image placeholder there."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model and of the samples."""

    vision: dict[str, Any]
    """Of CLIP's vision config."""
    text: dict[str, Any]
    """Of Mistral's config."""
    rank: int
    """Of the adapters; alpha is twice that."""
    median: float
    """Text tokens of a sample: lognormal."""
    sigma: float
    max_length: int
    """Tokens of a sample at most."""
    pack_tokens: int
    batches: tuple[int, ...]
    """Samples of a padded batch: the baseline's, and what is tried without checkpointing."""
    samples: int
    """In the stream, which then begins again."""
    rate: float
    """Learning rate."""

    @property
    def image_tokens(self) -> int:
        """Features per image."""
        return (self.vision["image_size"] // self.vision["patch_size"]) ** 2

    @property
    def image_id(self) -> int:
        """The baseline's placeholder: an id that an embedding can look up."""
        return self.text["vocab_size"] - SPARE_IDS


FULL = Sizes(
    vision={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 768,
    },
    text={
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000 + SPARE_IDS,
        "max_position_embeddings": 32768,
        "sliding_window": None,
    },
    rank=128,
    median=160,
    sigma=1.0,
    max_length=2048,
    pack_tokens=8192,
    batches=(16, 8, 4, 2, 1),
    samples=512,
    rate=2e-4,
)
TINY = Sizes(
    vision={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "projection_dim": 32,
    },
    text={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 200 + SPARE_IDS,
        "max_position_embeddings": 256,
        "sliding_window": None,
        # Far from zero, so that attention matters to the loss.
        "initializer_range": 0.1,
    },
    rank=8,
    median=20,
    sigma=0.6,
    max_length=64,
    pack_tokens=160,
    batches=(4, 2),
    samples=32,
    rate=1e-2,
)


def make_samples(sizes: Sizes, seed: int) -> list[Row]:
    """Draw the stream: random ids, an image at the front of most, the answer at the end."""
    rng = np.random.default_rng(seed)
    side = sizes.vision["image_size"]
    pictures = rng.integers(0, 256, (PICTURES, 3, side, side), dtype=np.uint8)
    rows = []
    for number in range(sizes.samples):
        has_image = rng.random() >= TEXT_ONLY
        length = int(rng.lognormal(np.log(sizes.median), sizes.sigma))
        length = min(max(length, 8), sizes.max_length - sizes.image_tokens * has_image)
        ids = rng.integers(3, sizes.image_id, length)
        learnt = max(2, round(SUPERVISED * length))
        labels = np.where(np.arange(length) >= length - learnt, ids, IGNORE_INDEX)
        images = [torch.from_numpy(pictures[number % PICTURES])] if has_image else []
        if has_image:
            ids = np.insert(ids, 1, IMAGE_TOKEN_INDEX)
            labels = np.insert(labels, 1, IGNORE_INDEX)
        rows.append(Row(str(number), ids, labels, images))
    return rows


def length_of(row: Row, sizes: Sizes) -> int:
    """Count a sample's tokens, image features among them."""
    return len(row.input_ids) + len(row.pixels) * (sizes.image_tokens - 1)


def padded_batches(
    rows: Sequence[Row], sizes: Sizes, size: int, by_length: bool = False
) -> list[Batch]:
    """Pad to the right, in the stream's order.

    Args:
        rows: samples.
        sizes: of the model.
        size: samples of a batch; what is left over makes a smaller one.
        by_length: first sort every window by length, as LLaVA's `group_by_modality_length` does.
    """
    if by_length:
        parts = [rows[i : i + WINDOW] for i in range(0, len(rows), WINDOW)]
        rows = [row for part in parts for row in sorted(part, key=lambda r: length_of(r, sizes))]
    return [
        collate_padded(rows[i : i + size], sizes.image_tokens, sizes.vision["image_size"])
        for i in range(0, len(rows), size)
    ]


def packed_batches(rows: Sequence[Row], sizes: Sizes) -> list[Batch]:
    """Pack every window of the stream by best fit, as the product does."""
    batches = []
    for start in range(0, len(rows), WINDOW):
        part = rows[start : start + WINDOW]
        lengths = np.asarray([length_of(row, sizes) for row in part])
        for members in best_fit_decreasing(lengths, sizes.pack_tokens):
            pack = [part[i] for i in members]
            batches.append(collate_packed(pack, sizes.image_tokens, sizes.vision["image_size"]))
    return batches
