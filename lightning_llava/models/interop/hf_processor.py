"""The processor of an exported model: its pixels and ids are those of training."""

from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lightning_llava.geometry import VisionGeometry, load_image_processor, num_front_tokens
from lightning_llava.models.interop.hf_classes import classes_of
from lightning_llava.models.interop.hf_config import select_strategy
from lightning_llava.models.interop.pinpoints import pinpoints_of
from lightning_llava.specs import VisionSpec

COLOURS = ("image_mean", "image_std", "rescale_factor")
STEPS = ("resample", "do_resize")


def llava_processor(
    spec: VisionSpec,
    tower: PreTrainedConfig,
    geometry: VisionGeometry,
    image_mode: str,
    tokenizer: PreTrainedTokenizerBase,
) -> Any:
    """Join tokenizer and pictures.

    Args:
        spec: tower whose own processor is followed.
        tower: its config.
        geometry: its sizes.
        image_mode: `data.image_mode`; `pad` pads to a square with the mean colour first.
        tokenizer: with the chat template.
    """
    return classes_of(spec).processor(
        _image_processor(spec, geometry, image_mode),
        tokenizer,
        patch_size=geometry.patch_size,
        vision_feature_select_strategy=select_strategy(spec, tower),
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=num_front_tokens(tower),
    )


def _image_processor(spec: VisionSpec, geometry: VisionGeometry, image_mode: str) -> Any:
    """Write the tower's own steps as those of LLaVA's processor, the only one that pads.

    With any resolution those are LLaVA-NeXT's, and of the tower's own the colours alone.
    """
    own, made, tiling = (
        load_image_processor(spec),
        classes_of(spec).image_processor,
        geometry.tiling,
    )
    whole = {"height": geometry.image_size, "width": geometry.image_size}
    names = COLOURS if tiling else (*COLOURS, *STEPS)
    kept = {name: getattr(own, name) for name in names if getattr(own, name, None) is not None}
    if tiling:
        return made(
            **kept,
            image_grid_pinpoints=pinpoints_of(tiling.grids, tiling.side),
            size={"shortest_edge": tiling.side},
            crop_size=whole,
        )
    return made(
        **kept,
        do_center_crop=bool(own.do_center_crop),
        size={key: value for key, value in dict(own.size).items() if value},
        # Read even where nothing is cropped: placeholders are counted by it.
        crop_size=dict(own.crop_size) if own.do_center_crop else whole,
        do_pad=image_mode == "pad",
    )
