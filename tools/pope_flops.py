"""POPE's structure, and how many FLOPs a decoder takes to answer it."""

from collections.abc import Callable

from transformers import MistralConfig

ROWS = 18
"""Rows of POPE about each of its 500 images: six in each of three splits."""
IMAGES = {10: 373, 11: 127}
"""Images by their distinct questions: 5,127 in all. POPE has those 5,127 spread more widely."""
SUFFIXES = range(15, 26)
"""Tokens that are a question's own: its object, the short-answer prompt, the template's end."""
WAYS: tuple[str, ...] = ("a forward per question", "prefix shared", "and deduplicated")


def suffix_lengths(questions: int) -> list[int]:
    """Say how many tokens are each question's own, the same for every image."""
    return [SUFFIXES[7 * number % len(SUFFIXES)] for number in range(questions)]


def pope_totals(
    forward: Callable[[int], float], group: Callable[[list[int]], float]
) -> dict[str, float]:
    """Add up POPE's 9,000 answers, as far as their first tokens, in each of the ways.

    Args:
        forward: FLOPs of a prompt with that many tokens of its own.
        group: FLOPs of prompts about one image, answered together.
    """
    totals = dict.fromkeys(WAYS, 0.0)
    for distinct, images in IMAGES.items():
        lengths = suffix_lengths(distinct)
        rows = [lengths[row % distinct] for row in range(ROWS)]
        costs = (sum(map(forward, rows)), group(rows), group(lengths))
        for way, cost in zip(WAYS, costs, strict=True):
            totals[way] += images * cost
    return totals


def decoder_flops(config: MistralConfig, tokens: int, pairs: float, answers: int) -> float:
    """Count a decoder's products: matrices, attention over pairs of tokens, logits of answers."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    head_size = config.head_dim or config.hidden_size // heads
    keys = (config.num_key_value_heads or heads) * head_size
    width, inner = config.hidden_size, heads * head_size
    matrices = width * (2 * inner + 2 * keys + 3 * config.intermediate_size)
    return (
        2 * layers * matrices * tokens
        + 4 * layers * inner * pairs
        + 2 * width * config.vocab_size * answers
    )


def pope_by_formula(config: MistralConfig, prefix: int) -> dict[str, float]:
    """Compute the FLOPs of POPE for a decoder of any size.

    A causal kernel skips half of the pairs; behind a prefix, with a mask, none are skipped.
    """

    def forward(length: int) -> float:
        tokens = prefix + length
        return decoder_flops(config, tokens, tokens**2 / 2, 1)

    def group(lengths: list[int]) -> float:
        own = sum(lengths)
        pairs = prefix**2 / 2 + own * (prefix + own)
        return decoder_flops(config, prefix + own, pairs, len(lengths))

    return pope_totals(forward, group)
