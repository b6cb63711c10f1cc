"""What others call our parameters.

| ours (`Llava`)           | original LLaVA                                   | llava-hf                                 |
|--------------------------|--------------------------------------------------|------------------------------------------|
| `vision_tower.encoder.*` | `model.vision_tower.vision_tower.vision_model.*` | `vision_tower.vision_model.*`            |
| `projector.{0,2}.*`      | `model.mm_projector.{0,2}.*`                     | `multi_modal_projector.linear_{1,2}.*`   |
| `language.model.*`       | `model.*`                                        | `language_model.model.*`                 |
| `language.lm_head.*`     | `lm_head.*`                                      | `language_model.lm_head.*`               |
| `image_newline`          | `model.image_newline`                            | `image_newline`                          |

transformers 4.52 and later have llava-hf as `model.vision_tower.*`,
`model.multi_modal_projector.*`, `model.language_model.*`, `lm_head.*` and `model.image_newline`,
and the tower's `vision_model.` comes and goes. All are read.
"""  # noqa: E501

import re
from collections.abc import Iterable
from typing import Literal

Part = Literal["vision", "projector", "language", "newline"]
Place = tuple[Part, str]
"""A part and the name in it: of the tower without `vision_model.`, of the projector as in a
Sequential, of the LLM as in its causal class."""

NEWLINE = "image_newline"

LEFTOVERS = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Buffers that old versions of transformers saved with the weights; they are computed now."""

Rules = tuple[tuple[re.Pattern[str], Part, str], ...]


def _rules(*rules: tuple[str, Part, str]) -> Rules:
    return tuple((re.compile(pattern), part, name) for pattern, part, name in rules)


ORIGINAL = _rules(
    (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?(.+)", "vision", r"\1"),
    (r"model\.mm_projector\.(.+)", "projector", r"\1"),
    (r"model\.image_newline", "newline", NEWLINE),
    (r"(model\..+|lm_head\..+)", "language", r"\1"),
)
HUGGING_FACE = _rules(
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)", "vision", r"\1"),
    (r"(?:model\.)?multi_modal_projector\.linear_1\.(.+)", "projector", r"0.\1"),
    (r"(?:model\.)?multi_modal_projector\.linear_2\.(.+)", "projector", r"2.\1"),
    (r"(?:model\.)?image_newline", "newline", NEWLINE),
    (r"language_model\.(model\..+|lm_head\..+)", "language", r"\1"),
    (r"(?:model\.)?language_model\.(.+)", "language", r"model.\1"),
    (r"(lm_head\..+)", "language", r"\1"),
)


def place(name: str, rules: Rules) -> Place | None:
    """Say where a weight belongs; None if no rule knows it."""
    for pattern, part, ours in rules:
        if match := pattern.fullmatch(name):
            return part, match.expand(ours)
    return None


def is_leftover(name: str) -> bool:
    """Tell a buffer of old files from a weight."""
    return name.endswith(LEFTOVERS)


def bare_projector_name(name: str) -> str | None:
    """Read a name of `mm_projector.bin` or `non_lora_trainables.bin`; None if it is another part's.

    `NEWLINE`, which may be among them, has no other name.

    The official scripts write `model.mm_projector.0.weight`, beneath PEFT
    `base_model.model.model.mm_projector.0.weight`; FSDP adds wrappers of its own.
    """
    match = re.fullmatch(
        r"(?:.+\.)?(?:mm_projector\.(?:_fsdp_wrapped_module\.)?(.+)|image_newline)", name
    )
    return match and (match[1] or NEWLINE)


def adapter_name(module: str, matrix: str) -> str:
    """Name an adapter's matrix as `Llava` does.

    Args:
        module: path in the LLM, `model.layers.0.self_attn.q_proj`.
        matrix: `lora_A` or `lora_B`.
    """
    return f"language.{module}.{matrix}.default.weight"


def peft_name(name: str) -> str | None:
    """Name an adapter's matrix as PEFT saves it; None for any other weight of `Llava`."""
    match = re.fullmatch(r"language\.(.+\.lora_[AB])\.default\.weight", name)
    return match and f"base_model.model.{match[1]}.weight"


def original_name(name: str) -> str:
    """Name a weight of `Llava`, adapters merged, as the original code does."""
    part, _, rest = name.partition(".")
    if name == NEWLINE:
        return f"model.{NEWLINE}"
    if part == "projector":
        return f"model.mm_projector.{rest}"
    if part == "vision_tower":
        inner = rest.removeprefix("encoder.").removeprefix("vision_model.")
        return f"model.vision_tower.vision_tower.vision_model.{inner}"
    return rest


def with_prefix_of(names: Iterable[str], expected: Iterable[str]) -> str:
    """Return what this version of transformers has in front of a tower's names, perhaps nothing."""
    wrapped = any(name.startswith("vision_model.") for name in expected)
    bare = not any(name.startswith("vision_model.") for name in names)
    return "vision_model." if wrapped and bare else ""
