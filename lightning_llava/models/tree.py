"""Many prompts behind one prefix in a single row: who stands where, and who sees whom. Pure.

Three questions of two tokens behind a prefix of three; rows are queries, x is what they see:

               prefix   a    b    c
    a          x x x   x .  . .  . .
               x x x   x x  . .  . .
    b          x x x   . .  x .  . .
               x x x   . .  x x  . .
    c          x x x   . .  . .  x .
               x x x   . .  . .  x x

Positions go on from the prefix for each of them anew. An answer's tokens belong to its question,
wherever in the row they stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PREFIX = -1
"""Owner of the tokens that all prompts share."""


@dataclass(frozen=True)
class Places:
    """Whose each token of a row is, and where in its own prompt it stands."""

    owners: Int[Tensor, " tokens"]
    positions: Int[Tensor, " tokens"]

    def followed_by(self, other: "Places") -> "Places":
        """Join two parts of a row."""
        return Places(
            torch.cat([self.owners, other.owners]), torch.cat([self.positions, other.positions])
        )

    def cut(self, length: int) -> "Places":
        """Keep the first tokens alone."""
        return Places(self.owners[:length], self.positions[:length])


def prefix_places(length: int, device: torch.device) -> Places:
    """Place what all prompts begin with."""
    positions = torch.arange(length, device=device)
    return Places(torch.full_like(positions, PREFIX), positions)


def suffix_places(prefix: int, lengths: Sequence[int], device: torch.device) -> Places:
    """Place what is left of each prompt behind a prefix, one prompt after another."""
    owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    positions = torch.cat([prefix + torch.arange(length) for length in lengths])
    return Places(owners.to(device), positions.to(device))


def tree_mask(queries: Places, keys: Places, window: int | None) -> Bool[Tensor, "queries keys"]:
    """Tell which keys each query sees: the prefix and its own prompt, up to itself.

    Args:
        queries: the tokens that ask.
        keys: all tokens of the row, the queries among them.
        window: a token sees that many, itself among them; None: all before it.
    """
    shared = keys.owners == PREFIX
    seen = shared | (queries.owners[:, None] == keys.owners)
    distance = queries.positions[:, None] - keys.positions
    seen &= distance >= 0
    return seen if window is None else seen & (distance < window)


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Count the ids that all prompts begin with, but leave at least one of each prompt over."""
    # What the smallest and the largest share, all between them share too.
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    shortest = min(map(len, prompts))
    pairs = zip(first, last, strict=False)
    shared = next((i for i, (one, other) in enumerate(pairs) if one != other), shortest)
    return min(shared, shortest - 1)


def split_passes(lengths: Sequence[int], at_once: int, most_tokens: int) -> list[range]:
    """Cut a sequence of suffixes into passes.

    Args:
        lengths: tokens of every suffix.
        at_once: most suffixes in a pass.
        most_tokens: most tokens in a pass; a longer suffix gets one of its own.
    """
    passes: list[range] = []
    start = tokens = 0
    for index, length in enumerate(lengths):
        if index > start and (index - start == at_once or tokens + length > most_tokens):
            passes.append(range(start, index))
            start, tokens = index, 0
        tokens += length
    return [*passes, range(start, len(lengths))]
