import numpy as np
import pytest
import torch

from lightning_llava.data.collate import (
    Row,
    collate_packed,
    collate_padded,
    expand_placeholders,
    stack_pixels,
)

IMAGE, IGNORE = -200, -100
SIDE = 2


def image(value):
    return torch.full((3, SIDE, SIDE), value, dtype=torch.uint8)


def row(name, ids, labels, *pixels):
    return Row(name, np.array(ids), np.array(labels), pixels)


@pytest.fixture
def rows():
    """Two images with three features each, then text alone, then one image in front."""
    return [
        row(
            "a", [1, IMAGE, 5, IMAGE, 6], [IGNORE, IGNORE, IGNORE, IGNORE, 6], image(10), image(20)
        ),
        row("b", [1, 7], [IGNORE, 7]),
        row("c", [IMAGE, 8], [IGNORE, 8], image(30)),
    ]


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)  # shape and type included


def test_placeholders_expand_with_their_labels(rows):
    ids, labels = expand_placeholders(rows[0], image_tokens=3)
    same(ids, torch.tensor([1, IMAGE, IMAGE, IMAGE, 5, IMAGE, IMAGE, IMAGE, 6]))
    same(labels, torch.tensor([IGNORE] * 8 + [6]))


def test_packed_row(rows):
    batch = collate_packed(rows, image_tokens=3, image_size=SIDE, rng_seed=7)
    three = [IMAGE] * 3
    same(batch.input_ids, torch.tensor([[1, *three, 5, *three, 6, 1, 7, *three, 8]]))
    same(batch.labels, torch.tensor([[*[IGNORE] * 8, 6, IGNORE, 7, *[IGNORE] * 3, 8]]))
    same(batch.position_ids, torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 1, 2, 3]]))
    same(batch.cu_seqlens, torch.tensor([0, 9, 11, 15], dtype=torch.int32))
    same(batch.pixel_values, torch.stack([image(10), image(20), image(30)]))
    assert batch.sample_ids == ["a", "b", "c"]
    assert batch.rng_seed == 7
    assert batch.attention_mask is None


def test_rows_padded_on_the_right(rows):
    batch = collate_padded(rows[1:], image_tokens=3, image_size=SIDE)
    same(batch.input_ids, torch.tensor([[1, 7, 0, 0], [IMAGE, IMAGE, IMAGE, 8]]))
    same(batch.labels, torch.tensor([[IGNORE, 7, IGNORE, IGNORE], [IGNORE, IGNORE, IGNORE, 8]]))
    same(batch.attention_mask, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool())
    same(batch.position_ids[0, :2], torch.tensor([0, 1]))  # under padding it does not matter
    same(batch.position_ids[1], torch.tensor([0, 1, 2, 3]))
    same(batch.pixel_values, image(30).unsqueeze(0))
    assert batch.sample_ids == ["b", "c"]
    assert batch.cu_seqlens is None


def test_rows_padded_on_the_left(rows):
    batch = collate_padded(rows[1:], image_tokens=3, image_size=SIDE, left=True)
    same(batch.input_ids, torch.tensor([[0, 0, 1, 7], [IMAGE, IMAGE, IMAGE, 8]]))
    same(batch.labels, torch.tensor([[IGNORE, IGNORE, IGNORE, 7], [IGNORE, IGNORE, IGNORE, 8]]))
    same(batch.attention_mask, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]).bool())
    # Padding may hold any position that the rotary table has: none below 0.
    same(batch.position_ids, torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]))


def test_text_alone_gives_an_empty_stack(rows):
    empty = torch.empty(0, 3, SIDE, SIDE, dtype=torch.uint8)
    same(stack_pixels(rows[1:2], SIDE), empty)
    same(collate_packed(rows[1:2], 3, SIDE).pixel_values, empty)
    same(collate_padded(rows[1:2], 3, SIDE).pixel_values, empty)
