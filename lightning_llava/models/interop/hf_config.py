"""What transformers' LLaVA classes can express, and their config."""

from copy import deepcopy
from typing import Any, Literal, cast

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from lightning_llava.errors import SettingError
from lightning_llava.geometry import (
    has_cls,
    load_vision_config,
    num_front_tokens,
    vision_geometry,
)
from lightning_llava.models.head import find_head
from lightning_llava.models.interop.hf_classes import classes_of
from lightning_llava.models.interop.pinpoints import pinpoints_of
from lightning_llava.models.llava import Llava
from lightning_llava.models.trained import Trained
from lightning_llava.specs import VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER

PROJECTOR = "mlp2x_gelu"


def check_parts(trained: Trained) -> None:
    """Refuse what needs no loading to be refused.

    Raises:
        SettingError: a projector that the class does not have, or features that it does not take.
    """
    spec, theirs = trained.vision, f"transformers' {classes_of(trained.vision).name}"
    tower: Any = load_vision_config(spec)
    front, geometry = num_front_tokens(tower), vision_geometry(tower, spec)
    if front > 1:
        raise SettingError(
            f"--format hf: {spec.name!r} puts {front} features before its patches, and {theirs} "
            "leaves out one at most; export --format adapter"
        )
    if geometry.tiling and geometry.image_size != tower.image_size:
        raise SettingError(
            f"--format hf: {spec.name!r} is shown tiles of {geometry.image_size} pixels, and "
            f"{theirs} takes them to be of {tower.image_size}, which its config.json says; export "
            "--format adapter"
        )
    if trained.projector.type != PROJECTOR:
        raise SettingError(
            f"--format hf: model.projector.type is {trained.projector.type}, and {theirs} has "
            f"{PROJECTOR} only; export --format llava"
        )


def check_head(model: Llava, name: str) -> None:
    """Refuse an LLM that makes logits in another way than by one matrix.

    Args:
        model: with the LLM.
        name: `model.language.name`.

    Raises:
        SettingError: saying what is in the way.
    """
    projection: Any = model.language.get_output_embeddings()
    head = find_head(model.language)
    if head is None:
        reason = "makes logits of its last hidden states in a way of its own"
    elif head.cap is not None:
        reason = f"caps its logits at {head.cap:g}"
    elif head.scale != 1.0:
        reason = f"scales its logits by {head.scale:g}"
    elif projection.bias is not None:
        reason = "adds a bias to its logits"
    else:
        return
    raise SettingError(
        f"--format hf: {type(model.language).__name__} ({name!r}) {reason}, which transformers' "
        "LLaVA classes, having a bare output matrix, do not; export --format adapter"
    )


def llava_config(
    trained: Trained,
    model: Llava,
    tower: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
) -> Any:
    """Write the config of the composed model, with the vocabulary as the LLM has it.

    Args:
        trained: says which features of the tower are taken.
        model: with the LLM.
        tower: config of the whole tower.
        tokenizer: of the exported model, image and padding token in it.
        dtype: of the weights.
    """
    text: Any = deepcopy(model.language.config.get_text_config())
    geometry = model.vision_tower.geometry
    tiling = geometry.tiling
    more = {"image_grid_pinpoints": pinpoints_of(tiling.grids, tiling.side)} if tiling else {}
    config = classes_of(trained.vision).config(
        vision_config=deepcopy(tower),
        text_config=text,
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids(IMAGE_PLACEHOLDER)),
        image_seq_length=geometry.image_tokens,
        vision_feature_layer=trained.vision.layer,
        vision_feature_select_strategy=select_strategy(trained.vision, tower),
        tie_word_embeddings=bool(text.tie_word_embeddings),
        **more,
    )
    config.pad_token_id = tokenizer.pad_token_id
    parts: list[Any] = [config, config.text_config, config.vision_config]
    for part in parts:
        part.dtype = dtype
        part._name_or_path = ""  # a folder of this machine
    vars(config.vision_config).pop("picture_size", None)  # ours alone
    return config


def select_strategy(spec: VisionSpec, tower: PreTrainedConfig) -> Literal["default", "full"]:
    """Say in transformers' words whether the first feature is left out."""
    return "default" if has_cls(tower) and spec.tokens == "patch" else "full"


def generation_config(
    encoder: ConversationEncoder, tokenizer: PreTrainedTokenizerBase
) -> GenerationConfig:
    """Generate greedily, up to any stop token of the template."""
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=encoder.stop_ids,
        pad_token_id=tokenizer.pad_token_id,
    )
