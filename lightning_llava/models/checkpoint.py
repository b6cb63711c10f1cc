"""What a checkpoint holds (what trained, not the frozen 7B), and loading strict about the rest."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_llava.errors import SettingError
from lightning_llava.models.build import named_parts
from lightning_llava.models.llava import Llava
from lightning_llava.models.sharding import shard_like
from lightning_llava.specs import (
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    ProjectorSpec,
    VisionSpec,
)

SPECS = {
    "model.vision": VisionSpec,
    "model.projector": ProjectorSpec,
    "model.language": LanguageSpec,
    "model.lora": LoraSpec,
    "model.learning_rate": LearningRates,
    "model.optimizer": OptimizerSpec,
}


def checkpoint_names(model: Llava) -> set[str]:
    """Name the parameters a checkpoint holds: all that train or ever did, projector, adapters."""
    return {
        name
        for part, name, parameter in named_parts(model)
        if parameter.requires_grad or part in ("projector", "lora") or name in model.taken_over
    }


def load_checkpoint_state(
    model: Llava, state: dict[str, Tensor], allow_fresh: bool = False
) -> list[str]:
    """Load what `checkpoint_names` lists.

    Args:
        model: the composed model.
        state: name to tensor.
        allow_fresh: parameters that the state lacks may keep their initial values (a new stage adds
            adapters).

    Returns:
        Names that kept their initial values.

    Raises:
        SettingError: missing, unexpected or differently shaped parameters.
    """
    expected, shapes = checkpoint_names(model), {n: p.shape for n, p in model.named_parameters()}
    missing = sorted(expected - state.keys())
    unexpected = sorted(state.keys() - shapes.keys())
    reshaped = [
        f"{n} {tuple(state[n].shape)} instead of {tuple(shapes[n])}"
        for n in sorted(state.keys() & shapes.keys())
        if state[n].shape != shapes[n]
    ]
    if unexpected or reshaped or (missing and not allow_fresh) or not state:
        raise SettingError(
            f"the checkpoint does not fit this model: {few('missing', missing)}; "
            f"{few('unexpected', unexpected)}; "
            f"{few('shaped differently', reshaped)}. {_likely_cause(unexpected, reshaped)}"
        )
    model.load_state_dict(shard_like(model, state), strict=False)
    model.taken_over.update(state)
    return missing


def init_from(model: Llava, path: str, settings: Mapping[str, Any]) -> list[str]:
    """Start from the weights of another stage's checkpoint.

    Args:
        model: the composed model.
        path: a `.ckpt` that `fit` wrote.
        settings: `LlavaModule.settings` of this run.

    Returns:
        Names that the checkpoint does not hold and that start fresh.

    Raises:
        SettingError: no such file, no checkpoint of this project, or one of another architecture.
    """
    checkpoint = read_checkpoint(path, "model.init_from")
    before = with_defaults(checkpoint["model_settings"])
    for key in ("layer", "tokens"):
        was, now = before["model.vision"][key], settings["model.vision"][key]
        if was != now:
            raise SettingError(
                f"model.vision.{key} is {now!r}, but the weights of model.init_from ({path!r}) "
                f"were trained on features of {was!r}; set it to that, or leave it out"
            )
    _check_same_scale(before["model.lora"], settings["model.lora"])
    for part in ("model.vision", "model.language"):
        was, now = before[part]["name"], settings[part]["name"]
        if was != now:  # the same weights may lie elsewhere now, so this is no error
            warnings.warn(
                f"model.init_from: {path!r} was trained with {part}.name {was!r}, and this run has "
                f"{now!r}; unless they are the same weights, what was learnt does not fit",
                stacklevel=2,
            )
    state = {k.removeprefix("llava."): v for k, v in checkpoint["state_dict"].items()}
    return load_checkpoint_state(model, state, allow_fresh=True)


def read_checkpoint(path: str, setting: str) -> dict:
    """Read a checkpoint without running code from it.

    Raises:
        SettingError: no such file, or not a checkpoint.
    """
    if Path(path).is_dir():
        raise SettingError(
            f"{setting}: {path!r} is a folder; name the .ckpt file, of a run folder "
            "checkpoints/last.ckpt"
        )
    if not Path(path).is_file():
        raise SettingError(
            f"{setting}: the file {path!r} does not exist; expected a .ckpt that fit wrote"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"]
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        # Its own words advise to load with code execution on.
        raise SettingError(
            f"{setting}: {path!r} is damaged, or not a checkpoint of this project "
            f"({type(error).__name__}); expected a .ckpt that fit wrote"
        ) from error
    return checkpoint


def with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what was no setting yet when a checkpoint was written: it was as its default says.

    Args:
        settings: sections of `model` by their full keys, as a checkpoint's `model_settings`.
    """
    return {
        key: asdict(SPECS[key]()) | dict(value)
        if key in SPECS and isinstance(value, Mapping)
        else value
        for key, value in settings.items()
    }


def _check_same_scale(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
    """Refuse another alpha: unlike another rank, it changes no shape, only what was learnt.

    Raises:
        SettingError: naming the value that the adapters were trained with.
    """
    if before and now and before["r"] == now["r"] and before["alpha"] != now["alpha"]:
        raise SettingError(
            f"model.lora.alpha is {now['alpha']}, but the adapters of model.init_from were trained "
            f"with {before['alpha']}, which scales them; set it to that"
        )


def few(title: str, names: list[str]) -> str:
    """Count names, and show the first of them."""
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {title}" + (f" ({shown})" if names else "")


def _likely_cause(unexpected: list[str], reshaped: list[str]) -> str:
    if any(".lora_" in name for name in unexpected):
        return "It holds LoRA adapters: set model.lora as it was trained, or merge them first."
    if any(name.startswith("language.") for name in unexpected) and not reshaped:
        return (
            "It holds an LLM that was trained itself. To put adapters on that, take it out by "
            "tools/export.py and in again by tools/import_weights.py; or set model.lora: null."
        )
    if "image_newline" in unexpected:
        return "It was trained with model.vision.any_resolution: true; set that."
    if any(".lora_" in name for name in reshaped):
        return (
            "The adapters have another rank, or the LLM other widths: check model.lora.r and "
            "model.language.name."
        )
    if reshaped:
        return (
            "The parts have other widths: check model.vision.name, model.language.name and "
            "model.projector.type."
        )
    return "Check that the model settings are those it was trained with."
