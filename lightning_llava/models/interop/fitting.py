"""Whether weights are those of a part: compared by name and shape before any of them is read."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from lightning_llava.errors import SettingError
from lightning_llava.models.checkpoint import few
from lightning_llava.models.interop.names import is_leftover, with_prefix_of
from lightning_llava.models.interop.weight_files import Tensors, stored
from lightning_llava.models.projector import build_projector
from lightning_llava.models.vision import AFTER_THE_LAYERS
from lightning_llava.specs import VisionSpec

LAYER = re.compile(r"layers?\.(\d+)\.")
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


def language_skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """Build a causal LLM without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def table_of(language: PreTrainedModel) -> nn.Embedding:
    """Return the embeddings, whose shape is vocabulary and width."""
    return cast(nn.Embedding, language.get_input_embeddings())


def fit_language(config: PretrainedConfig, tensors: Tensors, setting: str) -> Tensors:
    """Check that these are the weights of an LLM; its config learns whether the head is tied.

    Returns:
        What is to be saved: leftovers of old files and the copy of a tied head are dropped.

    Raises:
        SettingError: missing, unexpected or differently shaped weights.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not is_leftover(name)}
    if config.tie_word_embeddings and HEAD in tensors and TABLE in tensors:
        if torch.equal(tensors[HEAD].read(), tensors[TABLE].read()):
            del tensors[HEAD]
        else:
            config.tie_word_embeddings = False
    skeleton = language_skeleton(config)
    names = {name for name, _ in (*skeleton.named_parameters(), *skeleton.named_buffers())}
    tied = skeleton.state_dict().keys() - names  # second names of a weight
    expected = published_shapes(skeleton, tensors)
    wanted = {n: shape for n, shape in expected.items() if n not in tied or n in tensors}
    compare(wanted, tensors, setting, "the LLM")
    return tensors


def fit_tower(
    config: PretrainedConfig, tensors: Tensors, spec: VisionSpec, setting: str
) -> tuple[Tensors, VisionSpec]:
    """Check that these are the weights of a vision tower; a pooling head is dropped.

    Where only the layers up to the selected one are there, that becomes the last layer in config
    and spec, and the norm above it, which plays no part, is filled with zeros.

    Raises:
        SettingError: missing, unexpected or differently shaped weights.
    """
    if config.model_type.startswith("siglip"):
        config.vision_use_head = False
    depth = config.num_hidden_layers
    layers = {int(match[1]) for name in tensors if (match := LAYER.search(name))}
    cut = len(layers) < depth and len(layers) == spec.layer % (depth + 1)
    if cut:
        config.num_hidden_layers, spec = len(layers), replace(spec, layer=-1)
    with torch.device("meta"):
        skeleton: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    prefix = with_prefix_of(tensors, skeleton.state_dict())
    tensors = {
        prefix + name: tensor
        for name, tensor in tensors.items()
        if not is_leftover(name) and not name.startswith("head.")
    }
    expected = published_shapes(skeleton, tensors)
    for name, shape in expected.items() if cut else ():
        if name not in tensors and name.removeprefix(prefix).startswith(AFTER_THE_LAYERS):
            tensors[name] = stored(torch.zeros(shape))
    compare(expected, tensors, setting, "the vision tower")
    return tensors, spec


def fit_projector(
    tensors: Tensors, declared: str | None, widths: tuple[int, int], setting: str, parts: str
) -> str:
    """Tell the kind of a projector, and check that it joins these two widths.

    Args:
        tensors: by their names in a Sequential.
        declared: the kind that the source names, if any.
        widths: of the tower's features and of the LLM's embeddings.
        setting: what the user named the weights by.
        parts: the names of tower and LLM, for the error.

    Raises:
        SettingError: another kind than declared, or other widths.
    """
    kind = _projector_kind(tensors)
    undeclared = "linear or mlpNx_gelu"  # identity has no weights, and must not mean lost ones
    if kind is None or declared not in ((None, kind) if tensors else (kind,)):
        raise SettingError(
            f"{setting}: the projector's weights are {few('names', sorted(tensors))}, expected "
            f"those of {declared or undeclared}; projectors of another kind cannot be "
            "imported"
        )
    with torch.device("meta"):
        expected = shapes_of(build_projector(kind, *widths))
    compare(expected, tensors, setting, f"a projector between {parts}")
    return kind


def published_shapes(model: PreTrainedModel, found: Tensors) -> dict[str, tuple[int, ...]]:
    """Name a model's weights with their shapes, as files do: not always as the model itself."""
    own = shapes_of(model)
    if own.keys() <= found.keys():
        return own
    published = revert_weight_conversion(model, model.state_dict())
    return {name: tuple(value.shape) for name, value in published.items()}


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name a module's weights with their shapes."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def compare(
    expected: Mapping[str, tuple[int, ...]], found: Tensors, setting: str, part: str
) -> None:
    """Refuse weights that are not exactly those that are expected.

    Raises:
        SettingError: listing what is missing, unexpected and differently shaped, and the likely
            cause.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    reshaped = [
        f"{name} {found[name].shape} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name]
    ]
    if missing or unexpected or reshaped:
        raise SettingError(
            f"{setting}: the weights do not fit {part}: {few('missing', missing)}; "
            f"{few('unexpected', unexpected)}; {few('shaped differently', reshaped)}. "
            f"{_likely_cause(part, missing, unexpected, reshaped)}"
        )


def _projector_kind(tensors: Tensors) -> str | None:
    if not tensors:
        return "identity"
    if tensors.keys() == {"weight", "bias"}:
        return "linear"
    layers = {name.partition(".")[0] for name in tensors}
    if layers == {str(2 * index) for index in range(len(layers))}:
        return f"mlp{len(layers)}x_gelu"
    return None


def _likely_cause(part: str, missing: list[str], unexpected: list[str], reshaped: list[str]) -> str:
    if part.startswith("a projector"):
        return (
            "It was trained between other parts: name its tower by --vision and its LLM by --base."
        )
    if any(".lora_" in name for name in unexpected):
        return "They hold adapters: give the folder with their adapter_config.json."
    if any(name.startswith((TABLE, HEAD)) for name in reshaped) and not missing + unexpected:
        return (
            "The vocabulary is not the one that config.json says: the config is of another "
            "version of this model, or --base names another LLM."
        )
    if missing and not unexpected and not reshaped:
        return "The folder is incomplete: download it again."
    return "config.json is of another model than the weights, or --base or --vision is."
