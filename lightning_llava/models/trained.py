"""A checkpoint of `fit` as a model again: what it says of its run, and the parts put together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_llava.errors import SettingError
from lightning_llava.models.build import build_llava
from lightning_llava.models.checkpoint import load_checkpoint_state, read_checkpoint
from lightning_llava.models.language import CPU
from lightning_llava.models.llava import Llava
from lightning_llava.specs import (
    LanguageSpec,
    LearningRates,
    LoraSpec,
    ProjectorSpec,
    VisionSpec,
)
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import check_vocabulary

Settings = dict[str, Any]


@dataclass
class Trained:
    """What a checkpoint holds."""

    path: Path
    state: dict[str, Tensor]
    """What trained, by the names of `Llava`'s parameters."""
    model: Settings
    """Sections of `model` it was trained with, e.g. `vision`, `language`, `lora`."""
    data: Settings
    """Settings of the data, by their full keys (`data.image_mode`)."""
    steps: int
    """Optimizer steps."""

    @property
    def is_imported(self) -> bool:
        """Whether tools/import_weights.py wrote it, and no run."""
        return "seed_everything" not in self.data

    @property
    def vision(self) -> VisionSpec:
        """The tower."""
        return VisionSpec(**self.model["vision"])

    @property
    def projector(self) -> ProjectorSpec:
        """What joins tower and LLM."""
        return ProjectorSpec(**self.model["projector"])

    @property
    def language(self) -> LanguageSpec:
        """The LLM and its template."""
        return LanguageSpec(**self.model["language"])

    @property
    def lora(self) -> LoraSpec | None:
        """The adapters, if there are any."""
        return LoraSpec(**self.model["lora"]) if self.model["lora"] else None


def read_trained(checkpoint: Path, setting: str) -> Trained:
    """Read a checkpoint without loading the frozen parts.

    Args:
        checkpoint: a `.ckpt` that `fit` wrote.
        setting: what the user named it by, for the error.

    Raises:
        SettingError: no such file, or no checkpoint of this project.
    """
    content = read_checkpoint(str(checkpoint), setting)
    try:
        return Trained(
            checkpoint,
            {name.removeprefix("llava."): value for name, value in content["state_dict"].items()},
            {key.removeprefix("model."): v for key, v in content["model_settings"].items()},
            content["ShardDataModule"]["settings"],
            content["global_step"],
        )
    except KeyError as error:
        raise SettingError(
            f"{setting}: {str(checkpoint)!r} has no {error} in it; expected a .ckpt that fit wrote"
        ) from error


def build_trained(
    trained: Trained,
    encoder: ConversationEncoder,
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Llava:
    """Load the parts that a checkpoint names and put what was trained into them.

    Args:
        trained: the checkpoint; its weights are let go.
        encoder: writes for the same LLM.
        dtype: of frozen weights, and what a quantized LLM is multiplied in.
        device: where a quantized LLM is loaded; everything else is on the CPU.

    Raises:
        SettingError: a part that cannot be loaded, or weights that do not fit.
    """
    model = build_llava(
        trained.vision,
        trained.projector,
        trained.language,
        trained.lora,
        LearningRates(**trained.model["learning_rate"]),
        base_dtype=dtype,
        compute_dtype=dtype,
        device=device,
    )
    table: Any = model.language.get_input_embeddings()
    check_vocabulary(encoder, int(table.weight.shape[0]), trained.language.name)
    load_checkpoint_state(model, trained.state)
    trained.state = {}
    return model
