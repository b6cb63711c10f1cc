"""Compare the settings of a checkpoint with those of the run that wants to continue from it."""

from collections.abc import Mapping
from typing import Any

from lightning_llava.errors import SettingError


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys; tuples become lists, as they do in a file."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


MODEL_KEYS = ("vision", "projector", "language", "lora", "learning_rate", "optimizer")
"""Sections of `model` that must not change when a run continues."""


def refuse_differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuse to continue a run under other settings than it began with.

    Raises:
        SettingError: naming each differing key and both values.
    """
    before, now = flatten(saved), flatten(present)
    differing = [
        key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    if differing:
        shown = "; ".join(
            f"{key} is {now.get(key, 'absent')!r} but the checkpoint has "
            f"{before.get(key, 'absent')!r}"
            for key in differing[:5]
        )
        raise SettingError(
            f"--ckpt_path continues a run as it was: {shown}. Restore the checkpoint's value, "
            "or start a new stage from its "
            "weights with model.init_from"
        )
