"""Read llava-hf: transformers' LlavaForConditionalGeneration, and LlavaNext's (LLaVA 1.6)."""

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig, CLIPImageProcessorPil, PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.geometry import has_cls, load_image_processor
from lightning_llava.hub import explain_loading
from lightning_llava.models.interop.hf_classes import SQUARES, TILES
from lightning_llava.models.interop.names import HUGGING_FACE, NEWLINE
from lightning_llava.models.interop.pinpoints import Pinpoints, parse_pinpoints
from lightning_llava.models.interop.read_original import split
from lightning_llava.models.interop.source import SETTING, TEMPLATE_FIELD, Request, Source
from lightning_llava.models.interop.template_file import find_template
from lightning_llava.models.interop.weight_files import read_weights
from lightning_llava.specs import LanguageSpec, VisionSpec

EXPECTED = {
    "model_type": (SQUARES.config.model_type, TILES.config.model_type),
    "projector_hidden_act": ("gelu",),
    "multimodal_projector_bias": (True,),
}


def read_hugging_face(folder: Path, request: Request) -> Source:
    """Read all parts.

    Image token and padding of the vocabulary stay: rows of embeddings and head are what they were,
    and so are the logits.

    Raises:
        SettingError: another model of transformers, or features that ours cannot take.
    """
    with explain_loading(request.source, SETTING):
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    found = {name: getattr(config, name, None) for name in EXPECTED}
    if wrong := [name for name, value in found.items() if value not in EXPECTED[name]]:
        raise SettingError(
            f"{SETTING}: config.json has {wrong[0]} {found[wrong[0]]!r}, expected "
            f"{' or '.join(map(str, EXPECTED[wrong[0]]))}"
        )
    parts = split(read_weights(folder, "model", SETTING), HUGGING_FACE)
    processor = load_image_processor(VisionSpec(name=str(folder)), SETTING)
    tiles = config.model_type == TILES.config.model_type
    pads = tiles or bool(getattr(processor, "do_pad", False))
    source = Source(
        "hf",
        vision=_vision(config),
        projector=parts["projector"],
        newline=parts["newline"].get(NEWLINE),
        pinpoints=_pinpoints(config, processor) if tiles else None,
        llm=parts["language"],
        llm_config=config.text_config,
        language=LanguageSpec(
            name="",
            template=request.template or find_template(getattr(config, TEMPLATE_FIELD, ""), folder),
        ),
        tokenizer=LanguageSpec(name=str(folder)),
        tower=parts["vision"],
        tower_config=config.vision_config,
        processor=_of_tower(processor),
        image_mode=request.image_mode or ("pad" if pads else "square"),
    )
    if not pads and request.image_mode is None:
        source.notes.append(
            "its processor crops pictures to a square, as older llava-hf folders do although LLaVA "
            "1.5 was trained on padded ones; --image-mode pad has them padded"
        )
    return source


def _vision(config: Any) -> VisionSpec:
    """Translate which features are taken (transformers modeling_llava.py: get_image_features)."""
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    vision: PretrainedConfig = config.vision_config
    if not isinstance(layer, int) or (strategy == "default" and not has_cls(vision)):
        raise SettingError(
            f"{SETTING}: config.json has vision_feature_layer {layer} and "
            f"vision_feature_select_strategy {strategy!r} for a tower of type "
            f"{vision.model_type!r}; expected one layer, and `full` for a tower without CLS"
        )
    return VisionSpec(
        layer=layer,
        tokens="cls_patch" if strategy == "full" and has_cls(vision) else "patch",
    )


def _pinpoints(config: Any, processor: Any) -> Pinpoints:
    """Read the grids, which model and processor each have, and must agree on.

    Raises:
        SettingError: they do not, or tiles are made in another way than ours.
    """
    pinpoints = parse_pinpoints(config.image_grid_pinpoints, SETTING)
    theirs = parse_pinpoints(getattr(processor, "image_grid_pinpoints", []), SETTING)
    resample = getattr(processor, "resample", None)
    if theirs != pinpoints or resample != Image.Resampling.BICUBIC:
        raise SettingError(
            f"{SETTING}: its processor, {type(processor).__name__}, has image_grid_pinpoints "
            f"{theirs} and resample {resample}; expected those of config.json, {pinpoints}, and "
            f"{int(Image.Resampling.BICUBIC)} (bicubic)"
        )
    return pinpoints


def _of_tower(processor: Any) -> Any:
    """Return what the tower's own processor would be: padding is up to data.image_mode."""
    if not type(processor).__name__.startswith("Llava"):
        return processor
    names = CLIPImageProcessorPil().to_dict().keys() - {"image_processor_type"}
    return CLIPImageProcessorPil(**{k: v for k, v in processor.to_dict().items() if k in names})
