"""Which attention implementation on which device."""

from importlib.util import find_spec

import torch

from lightning_llava.errors import SettingError

IMPLEMENTATIONS = ("auto", "sdpa", "eager", "flash_attention_2")


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
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
    obstacles = {
        f"the device is {device.type}": device.type != "cuda",
        "the GPU is older": device.type == "cuda" and not on_ampere,
        "the package is not installed": find_spec("flash_attn") is None,
        "trainer.precision is not bf16-mixed or 16-mixed": dtype == torch.float32,
    }
    reasons = [reason for reason, stands in obstacles.items() if stands]
    if name == "auto":
        return "sdpa" if reasons else "flash_attention_2"
    if name == "flash_attention_2" and reasons:
        raise SettingError(
            "model.attention: flash_attention_2 needs half precision, an Ampere or newer GPU and "
            f"the flash-attn package, but {reasons[0]}; set model.attention: sdpa"
        )
    return name
