"""What travels from the data to the model. Both sides import it; neither imports the other."""

from dataclasses import dataclass, field, replace

from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from lightning_llava.tiling import Size

IGNORE_INDEX = -100
"""Label of a position that is not supervised (the value torch's cross-entropy ignores)."""

IMAGE_TOKEN_INDEX = -200
"""Id that stands where image features go (LLaVA's constant); never looked up in the embedding
table."""


@dataclass
class Batch:
    """One micro-batch: either a single packed row or padded rows.

    A packed row holds several samples one after another; `position_ids` restart at 0 with each of
    them and `attention_mask` is None. Padded rows hold one sample each and say with
    `attention_mask` what is padding. Placeholders are expanded: an image of 576 patches takes 576
    ids `IMAGE_TOKEN_INDEX`, in reading order of `pixel_values`; with any resolution more, by its
    size.
    """

    input_ids: Int[Tensor, "rows tokens"]
    labels: Int[Tensor, "rows tokens"]
    position_ids: Int[Tensor, "rows tokens"]
    pixel_values: UInt8[Tensor, "images 3 height width"]
    """Raw pixels; the tower normalises them on its device, so that a quarter of the bytes
    travels. With any resolution these are overviews and tiles."""
    image_sizes: list[Size] = field(default_factory=list)
    """Width and height of each image before it was resized. Plain numbers: what any resolution does
    with them happens on the CPU."""
    attention_mask: Bool[Tensor, "rows tokens"] | None = None
    cu_seqlens: Int[Tensor, " samples_plus_1"] | None = None
    """Packed rows only: int32 offsets of the samples in the row, from 0 to the row's length."""
    longest: int | None = None
    """Packed rows only: length of the longest sample. Kernels want it as a plain number, and to
    count it on a GPU would make the CPU wait."""
    sample_ids: list[str] = field(default_factory=list)
    micro_batch: int | None = None
    """Number of this micro-batch in the whole run, over all ranks."""
    substituted: list[str] = field(default_factory=list)
    """What could not be read: a line per sample that is blank here, with shard, key and reason."""
    rng_seed: int | None = None
    """Seed of everything random in this micro-batch (dropout): a function of (seed, global
    micro-batch) alone."""

    def pin_memory(self) -> "Batch":
        """Copy the tensors to pinned memory; torch's loader calls this."""
        tensors = {k: v.pin_memory() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)
