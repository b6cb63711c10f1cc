"""The projector: tower features to the LLM's embedding width.

To add one: write a function `(vision_width, llm_width) -> nn.Module` and a branch in
`build_projector`. Widths are handed in, derived from the loaded parts; no setting holds them, so
swapping a 13B LLM (5120) for a 7B one (4096) needs no change.
"""

import re

from torch import nn

from lightning_llava.errors import SettingError


def build_projector(kind: str, vision_width: int, llm_width: int) -> nn.Module:
    """Build a projector of the given kind (LLaVA: multimodal_projector/builder.py).

    Args:
        kind: `linear`, `mlpNx_gelu` with N >= 1 linear layers, or `identity`.
        vision_width: features of a patch.
        llm_width: width of the LLM's embeddings.

    Raises:
        SettingError: no such kind, or `identity` between different widths.
    """
    if kind == "linear":
        return nn.Linear(vision_width, llm_width)
    if kind == "identity":
        if vision_width != llm_width:
            raise SettingError(
                "model.projector.type: identity needs equal widths, but the tower gives "
                f"{vision_width} and the LLM takes "
                f"{llm_width}; use linear or mlp2x_gelu"
            )
        return nn.Identity()
    if match := re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind):
        return mlp(int(match[1]), vision_width, llm_width)
    raise SettingError(
        f"model.projector.type: found {kind!r}; expected linear, mlpNx_gelu (N = 1, 2, …) or "
        "identity"
    )


def mlp(depth: int, vision_width: int, llm_width: int) -> nn.Sequential:
    """Build linear layers with GELU between them; keys 0, 2, … as in LLaVA's mm_projector.bin."""
    layers: list[nn.Module] = [nn.Linear(vision_width, llm_width)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(llm_width, llm_width)]
    return nn.Sequential(*layers)
