"""LoRA adapters as PEFT saves them: read, kept as ours, or merged into their LLM."""

import math
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import few
from lightning_llava.models.interop.names import adapter_name
from lightning_llava.models.interop.weight_files import (
    StoredTensor,
    Tensors,
    read_json,
    read_weights,
    stored,
)
from lightning_llava.specs import LoraSpec

CONFIG = "adapter_config.json"
REFUSED = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "use_qalora",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
"""Fields of adapter_config.json that change what the two matrices mean."""
BASE_CHANGING = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Beginnings of `init_lora_weights` under which peft takes something off the LLM's weights."""


@dataclass
class Adapters:
    """What an adapter folder holds."""

    base: str | None
    """Name of the LLM it was trained on."""
    rank: int
    """Of all matrices, unless `obstacle` says otherwise."""
    alpha: float
    dropout: float
    scales: dict[str, float]
    """By module: what its update is multiplied by."""
    matrices: dict[str, tuple[StoredTensor, StoredTensor]]
    """By module, its path in the LLM: A (rank, inputs) and B (outputs, rank)."""
    whole: Tensors = field(default_factory=dict)
    """Weights that were trained in full beside them."""
    revision: str | None = None
    """Of that LLM."""
    obstacle: str | None = None
    """Why they cannot be kept as adapters of this project."""

    @property
    def spec(self) -> LoraSpec:
        """The same as a setting."""
        return LoraSpec(self.rank, int(self.alpha), self.dropout)


def read_adapters(folder: Path, setting: str) -> Adapters:
    """Read an adapter folder.

    Raises:
        SettingError: no LoRA, one with more than two matrices a module, or a damaged file.
    """
    config = read_json(folder / CONFIG, setting)
    used = [name for name in REFUSED if config.get(name)]
    if str(config.get("init_lora_weights")).startswith(BASE_CHANGING):
        used.append("init_lora_weights")
    if config.get("peft_type") != "LORA" or used:
        raise SettingError(
            f"{setting}: {CONFIG} has peft_type {config.get('peft_type')}"
            + "".join(f", {name}: {config[name]}" for name in used)
            + "; expected plain LoRA: merge it with the code that trained it, and give the result"
        )
    if not isinstance(config.get("lora_alpha"), int | float):
        raise SettingError(
            f"{setting}: {CONFIG} has lora_alpha {config.get('lora_alpha')!r}, expected a number: "
            "updates are scaled by it"
        )
    pairs: dict[str, dict[str, StoredTensor]] = {}
    whole: Tensors = {}
    for name, tensor in read_weights(folder, "adapter_model", setting).items():
        inner = name.removeprefix("base_model.model.").replace(".default.", ".")
        inner = inner.replace(".base_layer.", ".")  # what stands within an adapted module
        if match := re.fullmatch(r"(.+)\.(lora_[AB])\.weight", inner):
            pairs.setdefault(match[1], {})[match[2]] = tensor
        elif ".lora_" in inner:
            raise SettingError(f"{setting}: {name} is no part of plain LoRA; merge it elsewhere")
        else:
            whole[inner.replace(".modules_to_save.", ".")] = tensor
    torn = sorted(module for module, pair in pairs.items() if len(pair) != 2)
    if torn or not pairs:
        raise SettingError(
            f"{setting}: {few('modules have one of the two matrices', torn)}, and {len(pairs)} are "
            "adapted in all; the file of adapters is incomplete"
        )
    matrices = {module: (pair["lora_A"], pair["lora_B"]) for module, pair in pairs.items()}
    return _with_scales(config, matrices, whole)


def _with_scales(
    config: dict[str, Any],
    matrices: dict[str, tuple[StoredTensor, StoredTensor]],
    whole: Tensors,
) -> Adapters:
    alphas = {module: _alpha(config, module) for module in matrices}
    ranks = {module: a.shape[0] for module, (a, _) in matrices.items()}
    rooted = bool(config.get("use_rslora"))
    scales = {
        module: alphas[module] / (math.sqrt(rank) if rooted else rank)
        for module, rank in ranks.items()
    }
    obstacles = {
        "its update is divided by the root of the rank (use_rslora)": rooted,
        "its modules have several ranks": len(set(ranks.values())) > 1,
        "its modules have several alphas": len(set(alphas.values())) > 1,
        "its alpha is no whole number": any(alpha != int(alpha) for alpha in alphas.values()),
        f"it holds {few('whole weights', sorted(whole))} beside the adapters": bool(whole),
    }
    return Adapters(
        base=config.get("base_model_name_or_path"),
        rank=next(iter(ranks.values())),
        alpha=next(iter(alphas.values())),
        dropout=float(config.get("lora_dropout") or 0.0),
        scales=scales,
        matrices=matrices,
        whole=whole,
        revision=config.get("revision"),
        obstacle=next((reason for reason, found in obstacles.items() if found), None),
    )


def _alpha(config: dict[str, Any], module: str) -> float:
    """Return the alpha of a module, whose name a pattern may end (peft: get_pattern_key)."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return alpha
    return config["lora_alpha"]


def keep(
    adapters: Adapters, targets: dict[str, tuple[int, int]], setting: str
) -> dict[str, Tensor]:
    """Write adapters by the names of `Llava`, which has them on every linear layer of the decoder.

    Layers that these leave out get an update of zero, as at the beginning of training.

    Args:
        adapters: what was read.
        targets: our linear layers, with their outputs and inputs.
        setting: what the user named them by.

    Raises:
        SettingError: adapters that must be merged, or that are of another LLM.
    """
    outside = sorted(adapters.matrices.keys() - targets.keys())
    reason = adapters.obstacle
    if reason is None and any(m.split(".")[-1] in ("lm_head", "embed_tokens") for m in outside):
        reason = "it adapts " + ", ".join(outside)
    if reason:
        raise SettingError(
            f"{setting}: the adapter cannot be kept as one, because {reason}; fold it into its LLM "
            "with --merge"
        )
    _check_modules(adapters, targets, setting)
    drawn = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for module, (outputs, inputs) in targets.items():
        a, b = adapters.matrices.get(module) or (
            stored(_fresh(adapters.rank, inputs, drawn)),
            stored(torch.zeros(outputs, adapters.rank)),
        )
        state[adapter_name(module, "lora_A")] = a.read().float().clone()
        state[adapter_name(module, "lora_B")] = b.read().float().clone()
    return state


def merge(base: Tensors, adapters: Adapters, setting: str) -> Tensors:
    """Fold adapters into the weights of their LLM: added in fp32, kept in the type of the LLM.

    Raises:
        SettingError: they are of another LLM.
    """
    merged = base | adapters.whole
    shapes = {
        name.removesuffix(".weight"): (tensor.shape[0], tensor.shape[1])
        for name, tensor in merged.items()
        if name.endswith(".weight") and len(tensor.shape) == 2
    }
    _check_modules(adapters, shapes, setting)
    for module, (a, b) in adapters.matrices.items():
        name = f"{module}.weight"
        read = partial(_merged, merged[name], a, b, adapters.scales[module])
        merged[name] = StoredTensor(merged[name].shape, read)
    return merged


def _check_modules(adapters: Adapters, shapes: dict[str, tuple[int, int]], setting: str) -> None:
    unknown = sorted(adapters.matrices.keys() - shapes.keys())
    reshaped = [
        f"{module} {(b.shape[0], a.shape[1])} instead of {shapes[module]}"
        for module, (a, b) in adapters.matrices.items()
        if module in shapes and (b.shape[0], a.shape[1]) != shapes[module]
    ]
    if unknown or reshaped:
        raise SettingError(
            f"{setting}: the adapter does not fit its LLM: "
            f"{few('unexpected', unknown)}; "
            f"{few('shaped differently', reshaped)}. It was trained on another LLM: name that by "
            f"--base ({CONFIG} says {adapters.base!r})"
        )


def _fresh(rank: int, inputs: int, generator: torch.Generator) -> Tensor:
    """Draw A as peft does: with zeros, neither matrix would ever get a gradient."""
    a = torch.empty(rank, inputs)
    torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
    return a


def _merged(weight: StoredTensor, a: StoredTensor, b: StoredTensor, scale: float) -> Tensor:
    base = weight.read()
    return (base.float() + scale * (b.read().float() @ a.read().float())).to(base.dtype)
