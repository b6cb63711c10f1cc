"""Read the original LLaVA: full checkpoints, LoRA folders, bare projectors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_image_processor, load_vision_config
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.models.checkpoint import few
from lightning_llava.models.interop.fitting import HEAD, TABLE
from lightning_llava.models.interop.names import (
    HUGGING_FACE,
    NEWLINE,
    ORIGINAL,
    bare_projector_name,
    is_leftover,
    place,
)
from lightning_llava.models.interop.peft_adapter import Adapters, merge, read_adapters
from lightning_llava.models.interop.pinpoints import (
    PUBLISHED,
    Pinpoints,
    parse_pinpoints,
    turned,
)
from lightning_llava.models.interop.source import (
    BESIDE_LORA,
    PROJECTOR_FILES,
    SETTING,
    TEMPLATE_FIELD,
    ImageMode,
    Kind,
    Request,
    Source,
    fetch,
)
from lightning_llava.models.interop.template_file import find_template
from lightning_llava.models.interop.tokenizer_files import has_tokenizer
from lightning_llava.models.interop.weight_files import (
    StoredTensor,
    Tensors,
    read_file,
    read_json,
    read_weights,
)
from lightning_llava.models.language import load_language_config
from lightning_llava.specs import LanguageSpec, VisionSpec

LANGUAGE_TYPES = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
}
"""Decoders of the original code; others (MPT, …) compute in ways of their own."""
DEFAULT_TOWER = VisionSpec().name


def read_full(folder: Path, request: Request) -> Source:
    """Read a full checkpoint; its tower may be inside, or be named only."""
    config = read_json(folder / "config.json", SETTING)
    source = _read_settings("llava", folder, config, request)
    parts = split(read_weights(folder, "model", SETTING), ORIGINAL)
    source.projector, source.llm = parts["projector"], parts["language"]
    source.newline = parts["newline"].get(NEWLINE)
    source.llm_config = language_config(config)
    source.tokenizer = tokenizer_of(folder, LanguageSpec(name=request.base or ""))
    if parts["vision"]:
        assert source.vision is not None
        source.tower = parts["vision"]
        source.tower_config = load_tower_config(source.vision)
        source.processor = load_image_processor(source.vision, "--vision")
    return source


def read_lora(folder: Path, request: Request) -> Source:
    """Read adapters and the projector that was trained with them."""
    config = read_json(folder / "config.json", SETTING)
    source = _read_settings("llava_lora", folder, config, request)
    adapters = read_adapters(folder, SETTING)
    name_base(source.language, adapters, request)
    source.projector, source.newline = read_projector(folder / BESIDE_LORA)
    if request.merge:
        merge_into(source, adapters)
    else:
        source.adapters = adapters
    return source


def read_bare(path: Path, request: Request) -> Source:
    """Read `mm_projector.bin`, or the folder it lies in with the config.json of its training."""
    candidates = [path, *(path / name for name in PROJECTOR_FILES)]
    file = next((file for file in candidates if file.is_file()), candidates[1])
    beside = file.with_name("config.json")
    config = read_json(beside, SETTING) if beside.is_file() else {}
    source = _read_settings("projector", file.parent, config, request)
    base = request.base or config.get("_name_or_path")
    if not base:
        raise SettingError(
            f"{SETTING}: {file.name} does not say which LLM it was trained for: add --base"
        )
    source.language.name = base
    source.projector, source.newline = read_projector(file)
    if source.newline and "image_aspect_ratio" not in config:
        assert source.vision is not None
        source.vision = replace(source.vision, any_resolution=True, grids=PUBLISHED)
        source.notes.append("nothing says which grids its tiles had: LLaVA 1.6's were taken")
    return source


def split(tensors: Tensors, rules: Any) -> dict[str, Tensors]:
    """Deal weights out to parts, by the parts' own names.

    Raises:
        SettingError: a weight of no part.
    """
    parts: dict[str, Tensors] = {"vision": {}, "projector": {}, "language": {}, "newline": {}}
    unknown = []
    for name, tensor in tensors.items():
        if is_leftover(name):
            continue
        if (found := place(name, rules)) is None:
            unknown.append(name)
        else:
            parts[found[0]][found[1]] = tensor
    if unknown:
        raise SettingError(
            f"{SETTING}: {few('unexpected weights', sorted(unknown))}, which are of no part of a "
            "LLaVA; say by --kind which format this is"
        )
    return parts


def read_projector(file: Path) -> tuple[Tensors, StoredTensor | None]:
    """Read projector and newline, if there is one, out of a file that may hold nothing else.

    Raises:
        SettingError: there is none in it, or something else beside it.
    """
    tensors = read_file(file, SETTING)
    named = {bare_projector_name(name): tensor for name, tensor in tensors.items()}
    other = sorted(name for name in tensors if bare_projector_name(name) is None)
    if other or not named.keys() - {NEWLINE}:
        raise SettingError(
            f"{SETTING}: {str(file)!r} has {few('unexpected', other)} weights, expected those of "
            "mm_projector alone: whatever else was trained would be lost"
        )
    newline = named.pop(NEWLINE, None)
    return {name: tensor for name, tensor in named.items() if name is not None}, newline


def name_base(language: LanguageSpec, adapters: Adapters, request: Request) -> None:
    """Say which LLM adapters are for.

    Raises:
        SettingError: nobody says.
    """
    if not (request.base or adapters.base):
        raise SettingError(f"{SETTING}: the adapter names no LLM it was trained on: add --base")
    own = (adapters.base or "", adapters.revision)
    language.name, language.revision = (request.base, None) if request.base else own


def merge_into(source: Source, adapters: Adapters) -> None:
    """Give a source the weights of the LLM that it names, with adapters folded into them."""
    folder = fetch(source.language.name, source.language.revision, "--base")
    source.llm_config = load_base_config(source.language)
    weights = read_weights(folder, "model", "--base")
    if any("language_model." in name for name in weights):  # it is half of the model (Gemma 3)
        places = {name: place(name, HUGGING_FACE) for name in weights}
        weights = {p[1]: weights[name] for name, p in places.items() if p and p[0] == "language"}
    source.llm = merge(weights, adapters, SETTING)
    if source.llm_config.tie_word_embeddings and TABLE in adapters.whole.keys() & weights.keys():
        # Saved by itself, the table was trained by itself: beside it, peft leaves the head alone.
        source.llm.setdefault(HEAD, weights[TABLE])
    if (table := adapters.whole.get(TABLE)) is not None:
        source.llm_config.vocab_size = table.shape[0]
    source.tokenizer = replace(source.language)
    source.language.quantization = None  # it has weights of its own now


def language_config(config: dict[str, Any]) -> PretrainedConfig:
    """Take the LLM's settings out of a config that mixes them with LLaVA's.

    Raises:
        SettingError: a decoder that is none of `LANGUAGE_TYPES`.
    """
    kind = LANGUAGE_TYPES.get(str(config.get("model_type")))
    if kind is None:
        raise SettingError(
            f"{SETTING}: config.json has model_type {config.get('model_type')!r}, expected "
            f"{', '.join(LANGUAGE_TYPES)}"
        )
    known = AutoConfig.for_model(kind).to_dict().keys() | {"rope_theta", "rope_scaling"}
    wanted = known - {"model_type", "architectures", "transformers_version", "dtype"}
    with explain_loading("config.json", SETTING):
        return AutoConfig.for_model(kind, **{k: v for k, v in config.items() if k in wanted})


def tokenizer_of(folder: Path, otherwise: LanguageSpec) -> LanguageSpec:
    """Name the folder where it holds a tokenizer's vocabulary, else another place."""
    return LanguageSpec(name=str(folder)) if has_tokenizer(folder) else otherwise


def load_base_config(spec: LanguageSpec) -> PretrainedConfig:
    """Load the config of the LLM that a source names.

    Raises:
        SettingError: there is none, or it is a LLaVA, as for LLaVA's finetune_task_lora.sh.
    """
    name = resolve(spec.name, "--base")
    with explain_loading(spec.name, "--base"):
        content, _ = PretrainedConfig.get_config_dict(name, revision=spec.revision)
    if "mm_vision_tower" in content:
        raise SettingError(
            f"--base: {spec.name!r} is no LLM but a LLaVA; import that first, and name the "
            "folder language/ of what is written by --base"
        )
    return load_language_config(spec, "--base")


def load_tower_config(spec: VisionSpec) -> PretrainedConfig:
    """Load the config of the tower that a source names, perhaps as a folder of its author's."""
    try:
        return load_vision_config(spec)
    except SettingError as error:
        raise SettingError(f"{error}; --vision names another than {SETTING} does") from error


def _read_settings(kind: Kind, folder: Path, config: dict[str, Any], request: Request) -> Source:
    """Read what LLaVA's fields of a config.json say; where they are absent, LLaVA 1.5's values."""
    if config.get("mm_use_im_start_end"):
        raise SettingError(
            f"{SETTING}: config.json has mm_use_im_start_end, and so tokens around every picture "
            "that no template here writes; take a LLaVA 1.5"
        )
    image_mode, pinpoints = _pictures(config)
    layer = config.get("mm_vision_select_layer", -2)
    tokens = config.get("mm_vision_select_feature", "patch")
    if not isinstance(layer, int) or tokens not in ("patch", "cls_patch"):
        raise SettingError(
            f"{SETTING}: config.json has mm_vision_select_layer {layer!r} and "
            f"mm_vision_select_feature {tokens!r}; expected one layer, and patch or cls_patch"
        )
    tower = request.vision or config.get("mm_vision_tower") or DEFAULT_TOWER
    return Source(
        kind,
        vision=VisionSpec(name=str(tower), layer=layer, tokens=tokens),
        projector_type=config.get("mm_projector_type"),
        image_mode=request.image_mode or image_mode,
        pinpoints=pinpoints,
        language=LanguageSpec(
            name="",
            template=request.template or find_template(config.get(TEMPLATE_FIELD), folder),
        ),
    )


def _pictures(config: dict[str, Any]) -> tuple[ImageMode, Pinpoints | None]:
    """Say how pictures become squares, or which tiles (LLaVA mm_utils.py: process_images).

    Raises:
        SettingError: in a way that this project does not have.
    """
    ratio, merged = (config.get(n) for n in ("image_aspect_ratio", "mm_patch_merge_type"))
    if ratio in (None, "square"):
        return "square", None
    if ratio == "pad":
        return "pad", None
    if (ratio, merged) != ("anyres", "spatial_unpad"):
        raise SettingError(
            f"{SETTING}: config.json has image_aspect_ratio {ratio!r} and mm_patch_merge_type "
            f"{merged!r}, expected square, pad, or anyres with spatial_unpad; models that are "
            "shown pictures in other ways cannot be imported"
        )
    return "pad", turned(parse_pinpoints(config.get("image_grid_pinpoints"), SETTING))
