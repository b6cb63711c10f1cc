"""The pure parts of grouped answering, by hand."""

import pytest
import torch

from lightning_llava.models.tree import (
    Places,
    common_prefix,
    prefix_places,
    split_passes,
    suffix_places,
    tree_mask,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 9]], 2),
        ([[1, 2], [3, 2]], 0),
        ([[1, 2, 3]], 2),  # something is left over, whose logits are wanted
        ([[1, 2, 3], [1, 2]], 1),
        ([[1, -200, -200, 7, 8], [1, -200, -200, 7, 9]], 4),
        ([[7], [7, 8]], 0),
    ],
)
def test_common_prefix(prompts, length):
    assert common_prefix(prompts) == length
    assert common_prefix(prompts[::-1]) == length


def test_places():
    places = prefix_places(2, CPU).followed_by(suffix_places(2, [3, 1], CPU))
    assert places.owners.tolist() == [-1, -1, 0, 0, 0, 1]
    assert places.positions.tolist() == [0, 1, 2, 3, 4, 2]
    assert places.cut(3).owners.tolist() == [-1, -1, 0]


def drawn(mask):
    return ["".join(".x"[seen] for seen in row) for row in mask.tolist()]


def test_mask_of_suffixes_and_then_of_answers():
    prefix, suffixes = prefix_places(3, CPU), suffix_places(3, [2, 1], CPU)
    keys = prefix.followed_by(suffixes)
    assert drawn(tree_mask(suffixes, keys, None)) == [
        "xxxx..",
        "xxxxx.",
        "xxx..x",
    ]
    answers = Places(torch.tensor([0, 1]), torch.tensor([5, 4]))
    assert drawn(tree_mask(answers, keys.followed_by(answers), None)) == [
        "xxxxx.x.",
        "xxx..x.x",
    ]


def test_mask_with_a_window_counts_positions_and_not_places_in_the_row():
    prefix, suffixes = prefix_places(3, CPU), suffix_places(3, [2, 2], CPU)
    assert drawn(tree_mask(suffixes, prefix.followed_by(suffixes), 3)) == [
        ".xxx...",
        "..xxx..",
        ".xx..x.",
        "..x..xx",
    ]


def test_mask_of_the_prefix_is_causal():
    prefix = prefix_places(3, CPU)
    assert torch.equal(tree_mask(prefix, prefix, None), torch.ones(3, 3).tril().bool())


@pytest.mark.parametrize(
    ("at_once", "most_tokens", "passes"),
    [
        (9, 99, [range(0, 5)]),
        (2, 99, [range(0, 2), range(2, 4), range(4, 5)]),
        (9, 5, [range(0, 2), range(2, 3), range(3, 5)]),
        (9, 1, [range(0, 1), range(1, 2), range(2, 3), range(3, 4), range(4, 5)]),
    ],
)
def test_passes(at_once, most_tokens, passes):
    assert split_passes([2, 3, 7, 1, 4], at_once, most_tokens) == passes
