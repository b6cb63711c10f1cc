"""Rotary positions that are others in longer texts (longrope, dynamic NTK)."""

from typing import Any

from transformers import PretrainedConfig


def rotation_limit(language: PretrainedConfig) -> tuple[int, str] | None:
    """Tell from which length on the rotations of every position change, if there is one.

    transformers goes by the longest sample of a batch or pack, and then turns all of them so.

    Returns:
        The greatest length with the usual ones, and what the kind is called.
    """
    config: Any = language.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = str(part.get("rope_type"))
        if "dynamic" in kind or kind == "longrope":
            limit = part.get("original_max_position_embeddings") or config.max_position_embeddings
            return limit, kind
    return None
