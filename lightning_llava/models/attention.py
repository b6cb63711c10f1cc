"""Which attention implementation on which device."""

from importlib.util import find_spec

import torch

from lightning_llava.errors import SettingError

IMPLEMENTATIONS = ("auto", "sdpa", "eager", "flash_attention_2")


def choose_attention(name: str, device: torch.device) -> str:
    """Resolve `model.attention` to the name that transformers knows.

    `auto` takes flash-attn where it is installed and the GPU is Ampere or newer, else torch's own
    SDPA. The package is not imported here.

    Raises:
        SettingError: flash attention asked for where it cannot run.
    """
    if name not in IMPLEMENTATIONS:
        raise SettingError(
            f"model.attention: found {name!r}; expected one of {', '.join(IMPLEMENTATIONS)}"
        )
    on_ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    installed = find_spec("flash_attn") is not None
    if name == "auto":
        return "flash_attention_2" if on_ampere and installed else "sdpa"
    if name == "flash_attention_2" and not (on_ampere and installed):
        reason = (
            "the flash-attn package is not installed"
            if on_ampere
            else f"the device is {device.type}"
        )
        raise SettingError(
            "model.attention: flash_attention_2 needs an Ampere or newer GPU and the "
            f"flash-attn package, but {reason}; "
            "set model.attention: sdpa"
        )
    return name
