"""`--format llava`: a full checkpoint of the original LLaVA code (haotian-liu/LLaVA)."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lightning_llava.errors import SettingError
from lightning_llava.models.interop.merged import load_merged
from lightning_llava.models.interop.names import NEWLINE, original_name
from lightning_llava.models.interop.pinpoints import pinpoints_of, turned
from lightning_llava.models.interop.source import TEMPLATE_FIELD, absolute
from lightning_llava.models.interop.template_file import hand_on_template
from lightning_llava.models.interop.tokenizer_files import copy_tokenizer
from lightning_llava.models.interop.weight_files import save_weights, stored, write_json
from lightning_llava.models.llava import Llava
from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder

ARCHITECTURES = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM"}
LEFT_OUT = (
    *("rope_parameters", "layer_types", "dtype", "transformers_version"),
    *("_name_or_path", "id2label", "label2id"),
)
"""Fields that the transformers of that code (4.37) spells otherwise or lacks, or that are idle."""
OLD_ROPE = ("default", "linear", "dynamic")


def export_llava(
    trained: Trained, encoder: ConversationEncoder, folder: Path, dtype: torch.dtype
) -> None:
    """Write merged weights, `mm_projector.bin`, config and tokenizer.

    The tower is named only, as LLaVA 1.5 names it, unless it was trained.

    Raises:
        SettingError: an LLM or a tower that the original code does not have.
    """
    with_tower = any(name.startswith("vision_tower.") for name in trained.state)
    model = load_merged(trained, encoder, dtype)
    config = _config(model, trained)
    config[TEMPLATE_FIELD] = hand_on_template(trained.language.template, folder)
    config["unfreeze_mm_vision_tower"] = with_tower
    write_json(folder / "config.json", config)
    tensors = {
        original_name(name): parameter.detach()
        for name, parameter in model.named_parameters()
        if with_tower or not name.startswith("vision_tower.")
    }
    save_weights(folder, {name: stored(tensor) for name, tensor in tensors.items()})
    joint = {name: t for name, t in tensors.items() if "mm_projector" in name or NEWLINE in name}
    torch.save(joint, folder / "mm_projector.bin")
    copy_tokenizer(trained.language, folder)
    GenerationConfig(
        bos_token_id=encoder.tokenizer.bos_token_id,
        eos_token_id=encoder.stop_ids,
        pad_token_id=encoder.tokenizer.pad_token_id,
    ).save_pretrained(folder)


def _config(model: Llava, trained: Trained) -> dict[str, Any]:
    language: Any = model.language.config
    _check(model, trained)
    text = {key: value for key, value in language.to_dict().items() if key not in LEFT_OUT}
    rope = dict(language.rope_parameters)
    kind, theta = rope.pop("rope_type", "default"), rope.pop("rope_theta")
    return text | {
        "model_type": f"llava_{language.model_type}",
        "architectures": [ARCHITECTURES[language.model_type]],
        "torch_dtype": str(model.language.dtype).removeprefix("torch."),
        "rope_theta": theta,
        "rope_scaling": None if kind == "default" else {"type": kind, "factor": rope["factor"]},
        "use_mm_proj": True,
        "mm_vision_tower": absolute(trained.vision.name),
        "mm_hidden_size": model.vision_tower.width,
        "mm_projector_type": trained.projector.type,
        "mm_vision_select_layer": trained.vision.layer,
        "mm_vision_select_feature": trained.vision.tokens,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        **_pictures(model, trained.data["data.image_mode"]),
        "tokenizer_model_max_length": trained.language.max_length,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": False,
        "freeze_mm_mlp_adapter": False,
    }


def _pictures(model: Llava, image_mode: str) -> dict[str, Any]:
    """Say how pictures become what the tower takes (LLaVA mm_utils.py: process_images)."""
    tiling = model.vision_tower.geometry.tiling
    if tiling is None:
        return {"mm_patch_merge_type": "flat", "image_aspect_ratio": image_mode}
    return {
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": turned(pinpoints_of(tiling.grids, tiling.side)),
    }


def _check(model: Llava, trained: Trained) -> None:
    """Refuse what the original code would compute otherwise, or cannot load."""
    language: Any = model.language.config
    heads = language.hidden_size // language.num_attention_heads
    wrong = {
        f"model.language.name: {trained.language.name!r} is of type {language.model_type!r}, and "
        "the original code knows Llama and Mistral": language.model_type not in ARCHITECTURES,
        f"model.vision.name: {trained.vision.name!r} is of type "
        f"{model.vision_tower.encoder.config.model_type!r}, and the original code knows CLIP": (
            not model.vision_tower.encoder.config.model_type.startswith("clip")
        ),
        f"model.language.name: its rotations are of type {_rope_type(language)!r}, which the "
        "transformers of the original code does not know": _rope_type(language) not in OLD_ROPE,
        "model.language.name: its heads are not as wide as the original code takes them to be": (
            getattr(language, "head_dim", None) not in (None, heads)
        ),
        "model.language.name: its MLPs have biases, which the original code lacks": bool(
            getattr(language, "mlp_bias", False)
        ),
    }
    if reason := next((reason for reason, found in wrong.items() if found), None):
        raise SettingError(f"--format llava: {reason}; export --format hf")


def _rope_type(language: Any) -> str:
    return (getattr(language, "rope_parameters", None) or {}).get("rope_type", "default")
