"""`--format hf`: a folder for transformers' LlavaForConditionalGeneration, or LlavaNext's.

The class itself says what its weights are called and how they are split into files. It is built
without memory for its weights, and handed those that are there: what is held at most is the model
once, and one shard.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.models.interop.hf_classes import Classes, classes_of
from lightning_llava.models.interop.hf_config import (
    check_head,
    check_parts,
    generation_config,
    llava_config,
)
from lightning_llava.models.interop.hf_processor import llava_processor
from lightning_llava.models.interop.merged import load_merged
from lightning_llava.models.interop.source import TEMPLATE_FIELD
from lightning_llava.models.interop.template_file import hand_on_template
from lightning_llava.models.interop.weight_files import write_json
from lightning_llava.models.llava import Llava
from lightning_llava.models.trained import Trained
from lightning_llava.models.vision import load_encoder
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.portable import portable_tokenizer

SHARD = "5GB"
MULTIPLE = 64
"""Vocabularies that grow are padded to it, as llava-hf's are."""


def export_hf(
    trained: Trained,
    encoder: ConversationEncoder,
    folder: Path,
    dtype: torch.dtype,
    max_shard_size: str = SHARD,
) -> None:
    """Write merged weights, config, processor, chat template and generation settings.

    Raises:
        SettingError: a model that the class cannot express.
    """
    check_parts(trained)
    model = load_merged(trained, encoder, dtype)
    check_head(model, trained.language.name)
    tower = _whole_tower(trained, model, dtype)
    tokenizer = portable_tokenizer(encoder)
    config = llava_config(trained, model, tower.config, tokenizer, dtype)
    template = hand_on_template(trained.language.template, folder, derived=encoder.template)
    setattr(config, TEMPLATE_FIELD, template)
    classes = classes_of(trained.vision)
    composed = _compose(classes, config, model, tower, trained.language.name)
    _grow_vocabulary(composed, model, max(tokenizer.get_vocab().values()) + 1)
    empty = [name for name, value in composed.named_parameters() if value.is_meta]
    assert not empty, empty
    composed.generation_config = generation_config(encoder, tokenizer)
    composed.save_pretrained(
        folder, state_dict=_published_names(composed), max_shard_size=max_shard_size
    )
    geometry, mode = model.vision_tower.geometry, trained.data["data.image_mode"]
    llava_processor(trained.vision, tower.config, geometry, mode, tokenizer).save_pretrained(folder)
    _name_plainly(folder / "tokenizer_config.json")


def _whole_tower(trained: Trained, model: Llava, dtype: torch.dtype) -> PreTrainedModel:
    """Load the tower with the layers that ours does without, and put ours into it."""
    tower = load_encoder(trained.vision, dtype)
    ours = model.vision_tower.encoder.state_dict()
    assert not tower.load_state_dict(ours, strict=False).unexpected_keys
    return tower


def _compose(
    classes: Classes, config: Any, model: Llava, tower: PreTrainedModel, name: str
) -> PreTrainedModel:
    """Build the class around weights that are there."""
    language: Any = model.language
    projector: Any = model.projector
    try:
        with torch.device("meta"):
            composed: Any = classes.model(config)
        _hand_over(composed.model.vision_tower, tower)
        _hand_over(composed.model.language_model, language.base_model)
    except (RuntimeError, ValueError) as error:
        raise SettingError(
            f"--format hf: transformers' {classes.name} cannot be built around the parts, "
            f"{type(language).__name__} ({name!r}) and {type(tower).__name__} "
            f"({' '.join(str(error).split())[:300]}); export --format adapter"
        ) from error
    joint = composed.model.multi_modal_projector
    joint.linear_1, joint.linear_2 = projector[0], projector[2]
    if model.image_newline is not None:
        composed.model.image_newline = model.image_newline
    return composed


def _grow_vocabulary(composed: Any, model: Llava, tokens: int) -> None:
    """Take over embeddings and output matrix, with rows for all tokens.

    A table that has room for them already (Qwen's) stays as it is.
    """
    projection: Any = model.language.get_output_embeddings()
    table: Tensor = composed.get_input_embeddings().weight
    size = table.shape[0]
    if tokens > size:
        size = -(-tokens // MULTIPLE) * MULTIPLE
    embeddings = _padded(table, size)
    composed.get_input_embeddings().weight = embeddings
    tied = composed.config.tie_word_embeddings
    composed.lm_head.weight = embeddings if tied else _padded(projection.weight, size)
    composed.config.text_config.vocab_size = size


def _published_names(composed: Any) -> dict[str, Tensor]:
    """Name weights as llava-hf's releases do, for programs that know no other names.

    `save_pretrained` does so too, but for a level of CLIP and SigLIP that transformers 5 has lost.
    """
    state: dict[str, Tensor] = composed.state_dict()
    if composed.config.vision_config.model_type not in ("clip_vision_model", "siglip_vision_model"):
        return state
    ours = "model.vision_tower."
    return {
        f"{ours}vision_model.{name.removeprefix(ours)}" if name.startswith(ours) else name: value
        for name, value in state.items()
    }


def _hand_over(part: nn.Module, loaded: nn.Module) -> None:
    part.load_state_dict(loaded.state_dict(), strict=True, assign=True)


def _padded(table: Tensor, size: int) -> nn.Parameter:
    """Add rows for new tokens: the mean of the others.

    In the output matrix a new token's logit is then the mean of all, and so never the greatest.
    """
    more = size - table.shape[0]
    mean = table.data.float().mean(dim=0).to(table.dtype)
    rows = torch.cat([table.data, mean.expand(more, -1)]) if more else table.data
    return nn.Parameter(rows, requires_grad=False)


def _name_plainly(file: Path) -> None:
    """Name the tokenizer's class and its tokens as transformers 4 knows them, too."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    content["tokenizer_class"] = "PreTrainedTokenizerFast"
    content["additional_special_tokens"] = content.pop("extra_special_tokens")
    write_json(file, content)
