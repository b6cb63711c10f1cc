"""The processor of an exported model: its pixels and ids are those of training."""

from typing import Any

from transformers import (
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from lightning_llava.geometry import VisionGeometry, load_image_processor, num_front_tokens
from lightning_llava.models.interop.hf_config import select_strategy
from lightning_llava.specs import VisionSpec

KEPT = ("resample", "image_mean", "image_std", "rescale_factor", "do_resize")


def llava_processor(
    spec: VisionSpec,
    tower: PreTrainedConfig,
    geometry: VisionGeometry,
    image_mode: str,
    tokenizer: PreTrainedTokenizerBase,
) -> LlavaProcessor:
    """Join tokenizer and pictures.

    Args:
        spec: tower whose own processor is followed.
        tower: its config.
        geometry: its sizes.
        image_mode: `data.image_mode`; `pad` pads to a square with the mean colour first.
        tokenizer: with the chat template.
    """
    return LlavaProcessor(
        _image_processor(spec, geometry, image_mode),
        tokenizer,
        patch_size=geometry.patch_size,
        vision_feature_select_strategy=select_strategy(spec, tower),
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=num_front_tokens(tower),
    )


def _image_processor(spec: VisionSpec, geometry: VisionGeometry, image_mode: str) -> Any:
    """Write the tower's own steps as those of LLaVA's processor, the only one that pads.

    Its Pillow version by name: torchvision, where it is installed, resizes to other pixels.
    """
    own = load_image_processor(spec)
    whole = {"height": geometry.image_size, "width": geometry.image_size}
    return LlavaImageProcessorPil(
        **{key: getattr(own, key) for key in KEPT if getattr(own, key, None) is not None},
        do_center_crop=bool(own.do_center_crop),
        size={key: value for key, value in dict(own.size).items() if value},
        # Read even where nothing is cropped: placeholders are counted by it.
        crop_size=dict(own.crop_size) if own.do_center_crop else whole,
        do_pad=image_mode == "pad",
    )
