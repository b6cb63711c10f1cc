"""How many placeholders an image needs: known from the tower's config alone, without weights."""

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.specs import VisionSpec
from lightning_llava.tiling import Tiling


@dataclass(frozen=True)
class VisionGeometry:
    """Sizes of what a tower takes and gives."""

    image_size: int
    """Side of the square input, pixels."""
    patch_size: int
    """Side of a patch, pixels."""
    image_tokens: int
    """Features (and so placeholders) per image; 576 for CLIP ViT-L/14-336 without CLS."""
    tiling: Tiling | None = None
    """Any resolution: what images take beyond that, by their size."""


def load_vision_config(spec: VisionSpec) -> PretrainedConfig:
    """Load the vision half of a tower's config (a CLIP folder holds a text half too).

    DINOv2 stretches its positions over pictures of any size: how large they are, its processor
    alone says, and `picture_size` then.
    """
    name = resolve(spec.name, "model.vision.name")
    with explain_loading(spec.name, "model.vision.name"):
        config = AutoConfig.from_pretrained(name, revision=spec.revision, trust_remote_code=False)
    config = getattr(config, "vision_config", config)
    if config.model_type.startswith("dinov2"):
        config.picture_size = picture_size(load_image_processor(spec), spec)
    return config


def load_image_processor(spec: VisionSpec, setting: str = "model.vision.name") -> Any:
    """Load the processor of a tower, of Pillow."""
    name = resolve(spec.name, setting)
    with explain_loading(spec.name, setting):
        return AutoImageProcessor.from_pretrained(
            name, revision=spec.revision, backend="pil", trust_remote_code=False
        )


def picture_size(processor: Any, spec: VisionSpec) -> int:
    """Tell how large the square pictures are that a tower's processor makes.

    Raises:
        SettingError: it makes others.
    """
    size = dict(
        processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    )
    sides = {side for side in size.values() if side}
    if len(sides) != 1:
        raise SettingError(
            f"model.vision.name: the processor of {spec.name!r} makes pictures of {size}; expected "
            "squares: change size or crop_size in its preprocessor_config.json"
        )
    return sides.pop()


def load_geometry(spec: VisionSpec) -> VisionGeometry:
    """Compute the geometry of a tower from what its name points to, without weights.

    Raises:
        SettingError: nothing loadable there, or no vision transformer on square images.
    """
    return vision_geometry(load_vision_config(spec), spec)


def vision_geometry(config: PretrainedConfig, spec: VisionSpec) -> VisionGeometry:
    """Compute the geometry of a tower from its config.

    Raises:
        SettingError: the config is not that of a vision transformer on square images, or the
            settings of any resolution cannot be followed.
    """
    if config.model_type.startswith("siglip2"):
        raise SettingError(
            f"model.vision.name: {spec.name!r} is SigLIP 2 for pictures of any shape (NaFlex), "
            "with another number of patches for each; expected one for squares, such as "
            "google/siglip2-so400m-patch14-384"
        )
    # ConvNeXt and Swin have sizes too, but no single number of heads: their grid is not one
    # feature per patch.
    image_size, patch_size, heads = (
        getattr(config, key, None) for key in ("image_size", "patch_size", "num_attention_heads")
    )
    if not (isinstance(image_size, int) and isinstance(patch_size, int) and isinstance(heads, int)):
        raise SettingError(
            f"model.vision.name: {spec.name!r} ({config.model_type}) has image_size "
            f"{image_size}, patch_size {patch_size} and num_attention_heads {heads}; expected "
            "three integers, as in CLIP-like vision transformers"
        )
    image_size = getattr(config, "picture_size", image_size)
    keeps_cls = spec.tokens == "cls_patch" and has_cls(config)
    patches = image_size // patch_size
    tiling = _tiling(spec, image_size, patches) if spec.any_resolution else None
    return VisionGeometry(image_size, patch_size, patches**2 + keeps_cls, tiling)


def _tiling(spec: VisionSpec, image_size: int, patches: int) -> Tiling:
    if spec.tokens == "cls_patch":
        raise SettingError(
            "model.vision.tokens is cls_patch, but model.vision.any_resolution lays patches out in "
            "rows, where a CLS feature has no place; set tokens: patch"
        )
    grids = tuple((grid[0], grid[1]) for grid in spec.grids if len(grid) == 2 and min(grid) > 0)
    if not grids or len(set(grids)) < len(spec.grids):
        raise SettingError(
            f"model.vision.grids is {spec.grids}; expected different pairs of rows and columns, "
            "as in [[1, 2], [2, 2]]"
        )
    return Tiling(grids, image_size, patches)


def has_cls(config: PretrainedConfig) -> bool:
    """Tell whether the tower puts a CLS token before its patches (CLIP does, SigLIP does not)."""
    return not config.model_type.startswith("siglip")


def num_front_tokens(config: PretrainedConfig) -> int:
    """Count what the tower puts before its patches: CLS, and registers if it has any."""
    return has_cls(config) + getattr(config, "num_register_tokens", 0)
