"""transformers' LLaVA around the very same weights as one of ours."""

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from lightning_llava.batch import IMAGE_TOKEN_INDEX

ABOVE = ("layers.2.", "layer.2.", "post_layernorm.", "layernorm.", "head.", "mask_token")
"""Weights of the tiny towers that ours drop: those above the layer before the last."""


def llava_twin(model):
    """Its image token is the last id, whose embedding it looks up before it puts features there."""
    vocabulary = model.language.get_input_embeddings().weight.shape[0]
    vision = model.vision_tower.encoder.config
    has_cls = not vision.model_type.startswith("siglip")
    config = LlavaConfig(
        vision_config=vision,
        text_config=model.language.config,
        image_token_id=vocabulary - 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default" if has_cls else "full",
        tie_word_embeddings=model.language.config.tie_word_embeddings,
    )
    config.text_config.vocab_size = vocabulary
    twin = LlavaForConditionalGeneration(config).eval()
    missing = twin.model.vision_tower.load_state_dict(
        model.vision_tower.encoder.state_dict(), strict=False
    )
    assert not missing.unexpected_keys
    assert all(any(name in key for name in ABOVE) for key in missing.missing_keys)
    twin.model.language_model.load_state_dict(model.language.model.state_dict())
    twin.lm_head.load_state_dict(model.language.lm_head.state_dict())
    for ours, theirs in [(0, "linear_1"), (2, "linear_2")]:
        getattr(twin.model.multi_modal_projector, theirs).load_state_dict(
            model.projector[ours].state_dict()
        )
    return twin


@torch.no_grad()
def twin_logits(model, batch):
    """What transformers' LLaVA says to the same padded rows."""
    twin = llava_twin(model)
    tower = model.vision_tower
    pixels = (batch.pixel_values / 255 - tower.mean) / tower.std
    image = twin.config.image_token_id
    ids = torch.where(batch.input_ids == IMAGE_TOKEN_INDEX, image, batch.input_ids)
    return twin(input_ids=ids, pixel_values=pixels if len(pixels) else None, use_cache=False).logits
