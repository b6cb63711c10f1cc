"""What an import asks for, and what was found: the common form of every format that is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import snapshot_download
from transformers import PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.models.interop.peft_adapter import CONFIG, Adapters
from lightning_llava.models.interop.pinpoints import Pinpoints
from lightning_llava.models.interop.weight_files import (
    StoredTensor,
    Tensors,
    find_weights,
    read_json,
)
from lightning_llava.specs import LanguageSpec, VisionSpec

Kind = Literal["llava", "llava_lora", "projector", "hf", "adapter", "peft"]
ImageMode = Literal["square", "pad"]

SETTING = "--source"
PROJECTOR_FILES = ("mm_projector.bin", "mm_projector.safetensors")
BESIDE_LORA = "non_lora_trainables.bin"
OUR_PROJECTOR, OUR_SETTINGS = "projector.safetensors", "lightning_llava.json"
TEMPLATE_FIELD = "lightning_llava_template"
"""Of our own exports' config.json: the conversation template it was trained with."""
TEXT_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
TRAINING_LEFTOVERS = ("training_args.bin", "optimizer*", "scheduler*", "rng_state*")


@dataclass(frozen=True)
class Request:
    """What the command line says; None leaves it to the source."""

    source: str
    kind: Kind | None = None
    revision: str | None = None
    base: str | None = None
    vision: str | None = None
    template: str | None = None
    image_mode: ImageMode | None = None
    merge: bool = False


READ_OPTIONS: dict[Kind, set[str]] = {
    "llava": {"base", "vision", "template", "image_mode"},
    "llava_lora": {"base", "vision", "template", "image_mode", "merge"},
    "projector": {"base", "vision", "template", "image_mode"},
    "hf": {"template", "image_mode"},
    "adapter": {"base", "vision", "template", "image_mode", "merge"},
    "peft": {"base", "template", "merge"},
}
"""What of a request each kind of source leaves open; anything else it says itself."""


def check_options(request: Request, kind: Kind) -> None:
    """Refuse what would be ignored.

    Raises:
        SettingError: naming the option.
    """
    optional = set.union(*READ_OPTIONS.values())
    ignored = [name for name in optional - READ_OPTIONS[kind] if getattr(request, name)]
    if ignored:
        option = "--" + sorted(ignored)[0].replace("_", "-")
        raise SettingError(
            f"{option}: {request.source!r} is of the kind {kind}, in which it changes nothing; "
            "leave it out, or name the kind that it is of by --kind"
        )


def absolute(name: str) -> str:
    """Spell out a folder, which others read from elsewhere; hub names stay."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() else name


@dataclass
class Source:
    """A model of others, its weights not read yet."""

    kind: Kind
    vision: VisionSpec | None = None
    """The tower; its name is used unless there are weights of its own. None: an LLM alone."""
    projector: Tensors | None = None
    """By their names in a Sequential."""
    projector_type: str | None = None
    """As the source declares it."""
    newline: StoredTensor | None = None
    """Any resolution: what stands after each row of tile features."""
    pinpoints: Pinpoints | None = None
    """Any resolution: sizes of the grids of tiles, unless `vision` has them already."""
    language: LanguageSpec = field(default_factory=lambda: LanguageSpec(name="", template=""))
    """The LLM; no name where it has weights of its own, no template where none was said."""
    llm: Tensors | None = None
    """Weights of its own, by their names in the causal class."""
    llm_config: PretrainedConfig | None = None
    tokenizer: LanguageSpec | None = None
    """Where the tokenizer of that lies."""
    tower: Tensors | None = None
    """Weights of its own."""
    tower_config: PretrainedConfig | None = None
    processor: Any = None
    """Image processor of a tower of its own."""
    adapters: Adapters | None = None
    image_mode: ImageMode = "pad"
    notes: list[str] = field(default_factory=list)
    """What the user should know."""


def fetch(name: str, revision: str | None, setting: str, weights: bool = True) -> Path:
    """Return a folder with a model's files, or the one file that was named.

    Args:
        name: file, folder or hub name.
        revision: of the hub.
        setting: what the user named it by, for the error.
        weights: download those too, and not the small files alone.

    Raises:
        SettingError: no such file, folder or hub repository.
    """
    if (file := Path(name).expanduser()).is_file():
        return file
    folder = Path(resolve(name, setting))
    if folder.is_dir():
        return folder
    with explain_loading(name, setting):
        safe = [*TEXT_FILES, *(["*.safetensors"] if weights else [])]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=safe))
        if not weights:
            return folder
        # The same weights are often there twice: `.bin` where there is nothing else.
        wanted = [BESIDE_LORA, "mm_projector.bin"]
        if not any(folder.glob("*.safetensors")):
            wanted.append("*.bin")
        snapshot_download(
            name,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=list(TRAINING_LEFTOVERS),
        )
    return folder


def recognise(path: Path) -> Kind:
    """Tell the format from the files.

    Raises:
        SettingError: none that is known.
    """
    if path.suffix == ".ckpt":
        raise SettingError(
            f"{SETTING}: {str(path)!r} is a checkpoint of this project, which needs no import: "
            "start from it by model.init_from, ask it by tools/evaluate.py, hand it on by "
            "tools/export.py"
        )
    if path.is_file():
        return "projector"
    config = read_json(path / "config.json", SETTING) if (path / "config.json").is_file() else {}
    if (path / CONFIG).is_file():
        if (path / OUR_SETTINGS).is_file():
            return "adapter"
        # By its config too: where the projector's file is missing, it must not pass for an LLM's.
        lora = (path / BESIDE_LORA).is_file() or "mm_vision_tower" in config
        return "llava_lora" if lora else "peft"
    if find_weights(path, "model"):
        if "vision_config" in config:
            return "hf"
        if "mm_vision_tower" in config:
            return "llava"
    if any((path / name).is_file() for name in PROJECTOR_FILES):
        return "projector"
    raise SettingError(
        f"{SETTING}: {str(path)!r} is none of the formats that are read: it has no "
        f"{CONFIG}, no mm_projector.bin, and no weights whose config.json has vision_config "
        "(llava-hf) or mm_vision_tower (the original LLaVA); say what it is by --kind"
    )
