"""Phrase to box: how well a box named in an answer covers the right one.

Boxes are written as `data.converters.regions` writes them: `[left, top, right, bottom]`, fractions
of the picture or of the picture padded to a square.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from lightning_llava.evaluation.scorers.counting import CountingMetric, check_lengths, ratio

Corners = tuple[float, float, float, float]
"""Left, top, right, bottom, as fractions of width and height."""
Size = tuple[int, int]
"""Width and height in pixels."""

_NUMBER = r"\s*(-?\d+(?:\.\d+)?|-?\.\d+)\s*"
_BOX = re.compile(rf"\[{','.join([_NUMBER] * 4)}\]")
THRESHOLD = 0.5


class RegionCounts(NamedTuple):
    """What the scores are made of; the counts of parts add up element by element."""

    hits: int
    iou_sum: float
    unparsed: int
    total: int


def parse_box(answer: str) -> Corners | None:
    """Find the first `[left, top, right, bottom]` in an answer; None without one."""
    if not (found := _BOX.search(answer)):
        return None
    left, top, right, bottom = map(float, found.groups())
    return left, top, right, bottom


def pad(box: Corners, size: Size) -> Corners:
    """Turn fractions of the picture into fractions of the picture padded to a square."""
    width, height = size
    side = max(size)
    offset_x, offset_y = (side - width) // 2, (side - height) // 2
    left, top, right, bottom = box
    return (
        (left * width + offset_x) / side,
        (top * height + offset_y) / side,
        (right * width + offset_x) / side,
        (bottom * height + offset_y) / side,
    )


def unpad(box: Corners, size: Size) -> Corners:
    """Turn fractions of the picture padded to a square into fractions of the picture itself."""
    width, height = size
    side = max(size)
    # As the converters pad: centred, the odd pixel to the right and below.
    offset_x, offset_y = (side - width) // 2, (side - height) // 2
    left, top, right, bottom = (edge * side for edge in box)
    return (
        (left - offset_x) / width,
        (top - offset_y) / height,
        (right - offset_x) / width,
        (bottom - offset_y) / height,
    )


def iou(first: Corners, second: Corners) -> float:
    """Divide the area both boxes share by the area either covers; an empty box covers none.

    The same in pixels and in fractions, for stretching changes both areas alike.
    """
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / (_area(first) + _area(second) - shared)


def _area(box: Corners) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def regions_update(
    answers: Sequence[str], boxes: Sequence[Corners], padded: Sequence[Size] | None = None
) -> RegionCounts:
    """Compare answered boxes with the right ones; an answer without a box covers nothing.

    Args:
        answers: raw answers of the model.
        boxes: the right ones, as fractions of the picture itself (`schema.Box.xyxy`).
        padded: the pictures' sizes where the answers are fractions of the picture padded to a
            square; None where they are fractions of the picture itself.

    Raises:
        SettingError: the columns differ in length.
    """
    sizes = [None] * len(answers) if padded is None else list(padded)
    check_lengths(answers=answers, boxes=boxes, sizes=sizes)
    hits, iou_sum, unparsed = 0, 0.0, 0
    for answer, box, size in zip(answers, boxes, sizes, strict=True):
        found = parse_box(answer)
        if found is None:
            unparsed += 1
            continue
        overlap = iou(found if size is None else unpad(found, size), box)
        hits += overlap >= THRESHOLD
        iou_sum += overlap
    return RegionCounts(hits, iou_sum, unparsed, len(answers))


def regions_compute(counts: RegionCounts) -> dict[str, float]:
    """Turn counts into unrounded fractions and `total`.

    Returns:
        `accuracy`: the share with an IoU of 0.5 or more; `mean_iou`; `unknown_rate`: the share of
        answers without a box, which count as an IoU of 0; `correct` and `total`.
    """
    return {
        "accuracy": ratio(counts.hits, counts.total),
        "mean_iou": ratio(counts.iou_sum, counts.total),
        "unknown_rate": ratio(counts.unparsed, counts.total),
        "correct": counts.hits,
        "total": counts.total,
    }


class Regions(CountingMetric):
    """Accuracy and mean IoU of answered boxes over batches and processes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(len(RegionCounts._fields), torch.float64, **kwargs)

    def update(
        self,
        answers: Sequence[str],
        boxes: Sequence[Corners],
        padded: Sequence[Size] | None = None,
    ) -> None:
        """Add raw answers and the right boxes; see `regions_update`."""
        self.add(regions_update(answers, boxes, padded))

    def compute(self) -> dict[str, float]:
        """Return `regions_compute` over everything seen, by all processes."""
        return regions_compute(RegionCounts(*self.counts.tolist()))
