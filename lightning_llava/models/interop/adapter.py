"""`--format adapter`: LoRA as PEFT loads it onto the LLM, and the projector beside it."""

from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import few
from lightning_llava.models.interop.names import NEWLINE, peft_name
from lightning_llava.models.interop.source import OUR_PROJECTOR, OUR_SETTINGS, absolute
from lightning_llava.models.interop.template_file import hand_on_template
from lightning_llava.models.interop.weight_files import write_json
from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder

FRONT, BACK = "base_model.model.", ".lora_A.weight"


def export_adapter(
    trained: Trained, encoder: ConversationEncoder, folder: Path, dtype: torch.dtype
) -> None:
    """Write adapter_config.json, adapter_model.safetensors, projector.safetensors and settings.

    Nothing is loaded beside the checkpoint, so an LLM in 4 bits is none of its concern.

    Raises:
        SettingError: there are no adapters, or more than adapters and projector was trained.
    """
    if trained.lora is None:
        raise SettingError(
            f"--format adapter: {str(trained.path)!r} has no adapters (model.lora was null); "
            "export --format hf"
        )
    adapters: dict[str, Tensor] = {}
    projector: dict[str, Tensor] = {}
    other = []
    for name, value in trained.state.items():
        tensor = value.to(dtype).contiguous()
        if (adapter := peft_name(name)) is not None:
            adapters[adapter] = tensor
        elif name.startswith("projector.") or name == NEWLINE:
            projector[name.removeprefix("projector.")] = tensor
        else:
            other.append(name)
    if other:
        raise SettingError(
            f"--format adapter: {few('weights', sorted(other))} were trained beside adapters and "
            "projector, for which a PEFT folder has no place; export --format hf"
        )
    save_file(adapters, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    save_file(projector, folder / OUR_PROJECTOR, metadata={"format": "pt"})
    _config(trained, adapters).save_pretrained(str(folder))
    _write_settings(trained, folder)


def _config(trained: Trained, adapters: dict[str, Tensor]) -> LoraConfig:
    assert trained.lora is not None
    modules = {name for name in adapters if name.endswith(BACK)}
    return LoraConfig(
        base_model_name_or_path=absolute(trained.language.name),
        revision=trained.language.revision,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=trained.lora.r,
        lora_alpha=trained.lora.alpha,
        lora_dropout=trained.lora.dropout,
        bias="none",
        # Whole paths: a suffix such as q_proj would hit a vision tower around the LLM too.
        target_modules=sorted(m.removeprefix(FRONT).removesuffix(BACK) for m in modules),
    )


def _write_settings(trained: Trained, folder: Path) -> None:
    """Write what tools/import_weights.py needs beside the weights."""
    vision, language = asdict(trained.vision), asdict(trained.language)
    for part in (vision, language):
        part["name"] = absolute(part["name"])
    language["template"] = hand_on_template(trained.language.template, folder)
    content = {
        "vision": vision,
        "projector": trained.projector.type,
        "language": language,
        "image_mode": trained.data["data.image_mode"],
    }
    write_json(folder / OUR_SETTINGS, content)
