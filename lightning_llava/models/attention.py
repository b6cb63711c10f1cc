"""Which attention implementation on which device."""

from importlib.util import find_spec

import torch
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.packed_attention import BY_MASK, is_causal_kernel, torch_varlen

IMPLEMENTATIONS = ("auto", "flash_attention_2", "varlen", "segments", "sdpa", "eager")

_NEEDS = {
    "flash_attention_2": (
        "flash_attention_2 needs half precision, an Ampere or newer GPU and the flash-attn package"
    ),
    "varlen": "varlen needs half precision, an Ampere or newer GPU and torch's varlen_attn",
}


def candidates(device: torch.device, dtype: torch.dtype) -> list[str]:
    """List what may run, best first; none of them is run or imported here.

    Flash kernels where GPU, precision and packages allow; on other devices SDPA sample by sample;
    last what keeps samples apart by a dense mask.
    """
    return [name for name in _preferred(device) if not obstacles(name, device, dtype)]


def passed_over(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Say of each implementation that the device would prefer why it cannot run."""
    found = {name: obstacles(name, device, dtype) for name in _preferred(device)}
    return [f"{name}: {reasons[0]}" for name, reasons in found.items() if reasons]


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Resolve `model.attention` to the name that transformers knows.

    This looks at device, precision and packages alone; `settle_attention` tries the loaded LLM.

    Raises:
        SettingError: an implementation asked for where it cannot run.
    """
    if name not in IMPLEMENTATIONS:
        raise SettingError(
            f"model.attention: found {name!r}; expected one of {', '.join(IMPLEMENTATIONS)}"
        )
    best = candidates(device, dtype)[0]
    if name == "auto":
        return best
    if reasons := obstacles(name, device, dtype):
        raise SettingError(
            f"model.attention: {_NEEDS[name]}, but {reasons[0]}; set model.attention: {best}"
        )
    return name


def obstacles(name: str, device: torch.device, dtype: torch.dtype) -> list[str]:
    """List what keeps an implementation from running."""
    if name not in _NEEDS:
        return []
    is_there = {
        "flash_attention_2": find_spec("flash_attn") is not None,
        "varlen": is_causal_kernel(torch_varlen),
    }
    missing = {
        "flash_attention_2": "the package is not installed",
        "varlen": f"torch {torch.__version__} has none that can be causal",
    }
    reasons = {
        f"the device is {device.type}": device.type != "cuda",
        "the GPU is older": device.type == "cuda" and _capability(device) < (8, 0),
        missing[name]: not is_there[name],
        "trainer.precision is not bf16-mixed or 16-mixed": dtype == torch.float32,
    }
    return [reason for reason, stands in reasons.items() if stands]


def caps_scores(language: PreTrainedModel) -> bool:
    """Tell whether the LLM caps its scores.

    SDPA does not, and up to 5.20 transformers runs it all the same.
    """
    config = language.config.get_text_config()
    return bool(getattr(config, "attn_logit_softcapping", None))


def _preferred(device: torch.device) -> tuple[str, ...]:
    if device.type != "cuda":
        return ("segments", *BY_MASK)
    # flash-attn's kernels are tuned up to Hopper; torch brings its own for data-centre Blackwell.
    if _capability(device)[0] == 10:
        return ("varlen", "flash_attention_2", *BY_MASK)
    return ("flash_attention_2", "varlen", *BY_MASK)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
