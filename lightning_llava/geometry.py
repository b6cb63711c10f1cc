"""How many placeholders an image needs: known from the tower's config alone, without weights."""

from dataclasses import dataclass

from transformers import AutoConfig, PretrainedConfig

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.specs import VisionSpec


@dataclass(frozen=True)
class VisionGeometry:
    """Sizes of what a tower takes and gives."""

    image_size: int
    """Side of the square input, pixels."""
    patch_size: int
    """Side of a patch, pixels."""
    image_tokens: int
    """Features (and so placeholders) per image; 576 for CLIP ViT-L/14-336 without CLS."""


def load_vision_config(spec: VisionSpec) -> PretrainedConfig:
    """Load the vision half of a tower's config (a CLIP folder holds a text half too)."""
    name = resolve(spec.name, "model.vision.name")
    with explain_loading(spec.name, "model.vision.name"):
        config = AutoConfig.from_pretrained(name, revision=spec.revision, trust_remote_code=False)
    return getattr(config, "vision_config", config)


def vision_geometry(config: PretrainedConfig, spec: VisionSpec) -> VisionGeometry:
    """Compute the geometry of a tower from its config.

    Raises:
        SettingError: the config is not that of a vision transformer on square images.
    """
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
    keeps_cls = spec.tokens == "cls_patch" and has_cls(config)
    return VisionGeometry(image_size, patch_size, (image_size // patch_size) ** 2 + keeps_cls)


def has_cls(config: PretrainedConfig) -> bool:
    """Tell whether the tower puts a CLS token before its patches (CLIP does, SigLIP does not)."""
    return not config.model_type.startswith("siglip")
