"""The vision tower: pixels to patch features of the selected layer."""

from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.geometry import (
    has_cls,
    load_image_processor,
    load_vision_config,
    num_front_tokens,
    picture_size,
    vision_geometry,
)
from lightning_llava.hub import check_complete, explain_loading, resolve
from lightning_llava.specs import VisionSpec

AFTER_THE_LAYERS = ("post_layernorm", "layernorm")
"""What CLIP, SigLIP and DINOv2 call the norm above their layers."""


class VisionTower(nn.Module):
    """A CLIP- or SigLIP-like encoder cut off above the selected layer.

    Args:
        encoder: the vision model; its layers above the selected one are removed.
        spec: selected layer and tokens.
        mean: per channel, of pixels in 0 … 1.
        std: per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: PreTrainedModel, spec: VisionSpec, mean: list[float], std: list[float]
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.geometry = vision_geometry(encoder.config, spec)
        self.width: int = encoder.config.hidden_size
        self._front = num_front_tokens(encoder.config)
        self._keeps_cls = has_cls(encoder.config) and spec.tokens == "cls_patch"
        layers = _encoder_layers(encoder)
        kept = _num_kept_layers(spec.layer, len(layers))
        del layers[kept:]
        self.layers = tuple(layers)  # no Module, so that the encoder alone registers them
        # What follows the layers plays no part, nor what stands for masked patches; trained, it
        # would never get a gradient.
        for name in AFTER_THE_LAYERS:
            if hasattr(encoder, name):
                setattr(encoder, name, nn.Identity())
        embeddings: Any = getattr(encoder, "embeddings", None)
        if getattr(embeddings, "mask_token", None) is not None:
            embeddings.mask_token = None
        # The last kept layer's raw output is `hidden_states[spec.layer]`; catching it there avoids
        # both keeping every layer's output and the final norm that SigLIP applies to its last
        # hidden state.
        self._selected: Tensor | None = None
        layers[-1].register_forward_hook(self._catch)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self, pixel_values: UInt8[Tensor, "images 3 height width"]
    ) -> Float[Tensor, "images patches width"]:
        """Encode raw pixels; runs without gradient unless the tower trains."""
        trains = any(p.requires_grad for p in self.encoder.parameters())
        dtype = next(self.encoder.parameters()).dtype
        device = pixel_values.device.type
        # Outside autocast: a frozen tower computes in the type it is stored in.
        with (
            torch.set_grad_enabled(trains and torch.is_grad_enabled()),
            torch.autocast(device, enabled=trains and torch.is_autocast_enabled(device)),
        ):
            pixels = (pixel_values.to(torch.float32) / 255 - self.mean) / self.std
            self.encoder(pixel_values=pixels.to(dtype))
        assert self._selected is not None
        features, self._selected = self._selected, None
        patches = features[:, self._front :]
        return torch.cat([features[:, :1], patches], dim=1) if self._keeps_cls else patches

    def _catch(self, module: nn.Module, args: Any, output: Any) -> None:
        self._selected = output[0] if isinstance(output, tuple) else output


def load_vision_tower(spec: VisionSpec, dtype: torch.dtype) -> VisionTower:
    """Load a tower with the pixel mean and standard deviation of its own processor.

    Raises:
        SettingError: nothing loadable under `model.vision.name`, a layer it does not have, or a
            processor that makes pictures of another size.
    """
    encoder, processor = load_encoder(spec, dtype), load_image_processor(spec)
    tower = VisionTower(encoder, spec, processor.image_mean, processor.image_std).eval()
    if (side := picture_size(processor, spec)) != tower.geometry.image_size:
        raise SettingError(
            f"model.vision.name: the processor of {spec.name!r} makes pictures of {side} pixels a "
            f"side, but its config.json says image_size {tower.geometry.image_size}; correct size "
            "or crop_size in its preprocessor_config.json"
        )
    _check_number_of_features(tower, spec)
    return tower


def load_encoder(spec: VisionSpec, dtype: torch.dtype) -> PreTrainedModel:
    """Load the whole vision model, the layers above the selected one included.

    Raises:
        SettingError: nothing loadable under `model.vision.name`.
    """
    config = load_vision_config(spec)
    if config.model_type.startswith("siglip"):
        config.vision_use_head = False  # the pooling head is above every selectable layer
    with explain_loading(spec.name, "model.vision.name"):
        encoder, info = AutoModel.from_pretrained(
            resolve(spec.name, "model.vision.name"),
            config=config,
            revision=spec.revision,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
        )
    check_complete(info, spec.name, "model.vision.name")
    return encoder


def _check_number_of_features(tower: VisionTower, spec: VisionSpec) -> None:
    """Encode a blank image: the number of features was so far told from the config alone."""
    size, device = tower.geometry.image_size, next(tower.parameters()).device
    blank = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    found = tower(blank).shape[1]
    if found != tower.geometry.image_tokens:
        raise SettingError(
            f"model.vision.name: {spec.name!r} gives {found} features per image, expected "
            f"{tower.geometry.image_tokens} from its config; towers of another layout are not "
            "supported"
        )


def _encoder_layers(encoder: PreTrainedModel) -> nn.ModuleList:
    """Find the stack of transformer layers: the module list as long as the config says."""
    depth = encoder.config.num_hidden_layers
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(stacks) != 1:
        raise SettingError(
            f"model.vision.name: {type(encoder).__name__} has {len(stacks)} stacks of {depth} "
            "layers; expected one, as in "
            "CLIP-like vision transformers"
        )
    return cast(nn.ModuleList, stacks[0])


def _num_kept_layers(layer: int, depth: int) -> int:
    """Translate an index into the depth + 1 hidden states into the number of layers to run."""
    index = layer if layer >= 0 else depth + 1 + layer
    if not 1 <= index <= depth:
        raise SettingError(
            f"model.vision.layer: found {layer}; expected 1 … {depth} or {-depth} … -1 for a "
            f"tower of {depth} layers"
        )
    return index
