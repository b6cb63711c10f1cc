"""Write a model of others as `fit` and tools/evaluate.py read it: folders, a checkpoint, a YAML."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.models.interop.fitting import (
    compare,
    fit_language,
    fit_projector,
    fit_tower,
    language_skeleton,
    table_of,
)
from lightning_llava.models.interop.names import NEWLINE
from lightning_llava.models.interop.peft_adapter import keep
from lightning_llava.models.interop.pictures import shown_pictures
from lightning_llava.models.interop.read_hugging_face import read_hugging_face
from lightning_llava.models.interop.read_original import (
    load_base_config,
    load_tower_config,
    read_bare,
    read_full,
    read_lora,
)
from lightning_llava.models.interop.read_peft import read_exported_adapter, read_language_adapter
from lightning_llava.models.interop.source import (
    SETTING,
    Kind,
    Request,
    Source,
    absolute,
    check_options,
    fetch,
    recognise,
)
from lightning_llava.models.interop.template_file import hand_on_template
from lightning_llava.models.interop.tokenizer_files import copy_tokenizer
from lightning_llava.models.interop.weight_files import save_weights
from lightning_llava.models.lora import lora_targets
from lightning_llava.specs import (
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    ProjectorSpec,
    VisionSpec,
)
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import check_vocabulary
from lightning_llava.text.tokenizer import load_tokenizer, tokenizer_family

READERS: dict[Kind, Callable[[Path, Request], Source]] = {
    "llava": read_full,
    "llava_lora": read_lora,
    "projector": read_bare,
    "hf": read_hugging_face,
    "adapter": read_exported_adapter,
    "peft": read_language_adapter,
}
TEMPLATES = {
    "llama_2": "vicuna_v1",
    "mistral_v1": "mistral_instruct",
    "llama_3": "llama3",
    "qwen_2": "qwen",
}
"""What LLaVAs were trained with, by the family of their tokenizer."""


@dataclass
class Imported:
    """What was written."""

    kind: Kind
    vision: VisionSpec | None
    language: LanguageSpec
    lora: LoraSpec | None
    image_mode: str
    notes: list[str]


def import_weights(request: Request, folder: Path, output: Path) -> Imported:
    """Read a model of others and write it into a folder.

    Everything is checked by names and shapes before a weight is read.

    Args:
        request: what to read.
        folder: an empty folder to write into.
        output: where it will lie in the end; paths in what is written say so.

    Raises:
        SettingError: what was read is damaged, of another kind, or does not fit its other parts.
    """
    path = fetch(request.source, request.revision, SETTING)
    kind = request.kind or recognise(path)
    check_options(request, kind)
    source = READERS[kind](path, request)
    language = _check_language(source, folder)
    _keep_template(source, folder, output)
    if source.vision is None:
        spec = _write_language(source, folder, output)
        _write_yaml(folder, {"language": _chosen(spec)})
        return Imported(kind, None, spec, None, source.image_mode, source.notes)
    source.vision = shown_pictures(source, request)
    projector = _check_projector(source, language)
    vision, tower = replace(source.vision, name=absolute(source.vision.name)), source.tower
    if tower:
        tower, vision = fit_tower(_own(source.tower_config), tower, vision, SETTING)
    state = _projector_state(source) | _adapter_state(source, language)
    spec = _write_language(source, folder, output)
    if tower:
        save_weights(_saved_part(folder / "vision", _own(source.tower_config)), tower)
        source.processor.save_pretrained(folder / "vision")
        vision = replace(vision, name=str(output / "vision"), revision=None)
    lora = source.adapters.spec if source.adapters else None
    _write_checkpoint(folder / "weights.ckpt", state, (vision, projector, spec, lora), source)
    sections = {"vision": asdict(vision), "projector": asdict(projector), "language": _chosen(spec)}
    _write_yaml(folder, sections)
    return Imported(kind, vision, spec, lora, source.image_mode, source.notes)


def _check_language(source: Source, folder: Path) -> Any:
    """Check weights, tokenizer and template of the LLM; return it without weights.

    Config and tokenizer of an LLM with weights of its own are written: beside the config of a
    LLaVA, transformers may take the tokenizer for another one.
    """
    spec = source.language
    if source.llm is None:
        config: Any = load_base_config(spec)
        spec.name = absolute(spec.name)
        place = spec
    else:
        config = _own(source.llm_config)
        source.llm = fit_language(config, source.llm, SETTING)
        place = _write_tokenizer(source, folder / "language")
    language = language_skeleton(config)
    try:
        spec.template = spec.template or _template(place, source)
        encoder = ConversationEncoder(replace(place, template=spec.template), image_tokens=1)
        check_vocabulary(encoder, table_of(language).weight.shape[0], place.name)
    except SettingError as error:
        published = (source.tokenizer or place).name  # the copy will be gone
        raise SettingError(str(error).replace(place.name, published)) from error
    return language


def _write_tokenizer(source: Source, part: Path) -> LanguageSpec:
    """Write config and tokenizer of an LLM with weights of its own; name where they lie now."""
    config, place, tensors = _own(source.llm_config), source.tokenizer, source.llm
    assert tensors is not None
    if place is None or not place.name:
        raise SettingError(
            f"{SETTING}: it has no tokenizer; name a folder or hub model that has it by --base"
        )
    config.architectures = [type(language_skeleton(config)).__name__]
    config.dtype = next(iter(tensors.values())).read().dtype
    _saved_part(part, config)
    # llava-hf keeps its processor's chat template there, for messages of another kind.
    copy_tokenizer(place, part, chat_template=source.kind != "hf")
    return LanguageSpec(name=str(part))


def _template(place: LanguageSpec, source: Source) -> str:
    """Choose the template that nobody named."""
    tokenizer = load_tokenizer(place)
    if source.vision is None:
        found = "auto" if tokenizer.chat_template is not None else None
    else:
        found = TEMPLATES.get(tokenizer_family(tokenizer) or "")
    if found is None:
        raise SettingError(
            f"--template: the tokenizer of {place.name!r} does not say how conversations are "
            "written; name the template that the LLM was trained with (docs/conversations.md)"
        )
    source.notes.append(f"template {found}, by its tokenizer; --template names another")
    return found


def _check_projector(source: Source, language: Any) -> ProjectorSpec:
    assert source.vision is not None
    assert source.projector is not None
    config: Any = source.tower_config or load_tower_config(source.vision)
    widths = (config.hidden_size, table_of(language).weight.shape[1])
    names = f"{source.vision.name} and {source.language.name or 'its own LLM'}"
    kind = fit_projector(source.projector, source.projector_type, widths, SETTING, names)
    if source.newline:
        newline = {NEWLINE: source.newline}
        compare({NEWLINE: widths[1:]}, newline, SETTING, f"a projector between {names}")
    return ProjectorSpec(kind)


def _keep_template(source: Source, folder: Path, output: Path) -> None:
    """Copy a conversation template that is a file, and name it where it will lie."""
    template = source.language.template
    if (name := hand_on_template(template, folder / "templates")) != template:
        source.language.template = str(output / "templates" / name)


def _projector_state(source: Source) -> dict[str, Tensor]:
    tensors = {f"projector.{name}": tensor for name, tensor in (source.projector or {}).items()}
    if source.newline:
        tensors[NEWLINE] = source.newline
    return {name: tensor.read().float().clone() for name, tensor in tensors.items()}


def _adapter_state(source: Source, language: Any) -> dict[str, Tensor]:
    if source.adapters is None:
        return {}
    targets = {
        name: tuple(language.get_submodule(name).weight.shape) for name in lora_targets(language)
    }
    return keep(source.adapters, targets, SETTING)


def _write_language(source: Source, folder: Path, output: Path) -> LanguageSpec:
    """Write the weights of an LLM that has its own; return where it will lie."""
    if source.llm is None:
        return source.language
    save_weights(folder / "language", source.llm)
    return replace(source.language, name=str(output / "language"), revision=None)


def _saved_part(folder: Path, config: PretrainedConfig) -> Path:
    folder.mkdir()
    config.save_pretrained(folder)
    return folder


def _write_checkpoint(path: Path, state: dict[str, Tensor], parts: Any, source: Source) -> None:
    """Write what `fit` writes of these parts; a run starts from it with `model.init_from`."""
    vision, projector, language, lora = parts
    rates = LearningRates(lora=LearningRates().lora if lora else None)
    sections = {
        "vision": asdict(vision),
        "projector": asdict(projector),
        "language": asdict(language),
        "lora": lora and asdict(lora),
        "learning_rate": asdict(rates),
        "optimizer": asdict(OptimizerSpec()),
    }
    content = {
        "state_dict": {f"llava.{name}": tensor for name, tensor in state.items()},
        "model_settings": {f"model.{name}": section for name, section in sections.items()},
        "ShardDataModule": {
            "settings": {
                "data.prompt": "chat",
                "data.image_mode": source.image_mode,
                "data.image_backend": "pillow",
            }
        },
        "global_step": 0,
    }
    torch.save(content, path)


def _chosen(spec: LanguageSpec) -> dict[str, Any]:
    """Name LLM and template, and what is not the default; quantization is up to the hardware."""
    defaults = asdict(LanguageSpec(quantization=spec.quantization))
    return {
        key: value
        for key, value in asdict(spec).items()
        if key in ("name", "template") or value != defaults[key]
    }


def _write_yaml(folder: Path, sections: dict[str, Any]) -> None:
    text = yaml.safe_dump({"model": sections}, sort_keys=False, allow_unicode=True)
    head = (
        "# Written by tools/import_weights.py; paths are absolute: change them with the folder.\n"
    )
    (folder / "model.yaml").write_text(head + text, encoding="utf-8")


def _own(config: PretrainedConfig | None) -> PretrainedConfig:
    assert config is not None
    return config
