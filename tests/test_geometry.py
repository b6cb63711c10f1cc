import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    LlavaConfig,
    MistralConfig,
    SiglipVisionConfig,
    SwinConfig,
)
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from lightning_llava.errors import SettingError
from lightning_llava.geometry import VisionGeometry, has_cls, load_vision_config, vision_geometry
from lightning_llava.specs import VisionSpec


def geometry(config, tokens="patch"):
    return vision_geometry(config, VisionSpec(name="folder", tokens=tokens))


def test_llava_1_5s_tower(tmp_path):
    vision = {"image_size": 336, "patch_size": 14, "hidden_size": 1024, "num_attention_heads": 16}
    CLIPConfig(vision_config=vision).save_pretrained(tmp_path)  # config.json alone, no weights
    config = load_vision_config(VisionSpec(name=str(tmp_path)))
    assert config.hidden_size == 1024
    assert geometry(config) == VisionGeometry(336, 14, 576)
    assert geometry(config).image_tokens == LlavaConfig().image_seq_length
    assert geometry(config, "cls_patch") == VisionGeometry(336, 14, 577)


@pytest.mark.parametrize(
    # 384 is no multiple of 14 (SigLIP so400m): the convolution leaves the rest out.
    ("image_size", "patch_size"),
    [(224, 32), (336, 14), (384, 14), (30, 8)],
)
def test_as_many_tokens_as_the_towers_have_positions(image_size, patch_size):
    sizes = {"image_size": image_size, "patch_size": patch_size}
    clip, siglip = CLIPVisionConfig(**sizes), SiglipVisionConfig(**sizes)
    with torch.device("meta"):
        clip_positions = CLIPVisionEmbeddings(clip).num_positions
        siglip_positions = SiglipVisionEmbeddings(siglip).num_positions
    assert geometry(clip, "cls_patch").image_tokens == clip_positions
    assert geometry(clip).image_tokens == clip_positions - 1
    assert geometry(siglip, "cls_patch").image_tokens == siglip_positions
    assert geometry(siglip).image_tokens == siglip_positions
    assert has_cls(clip)
    assert not has_cls(siglip)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (MistralConfig(), "(mistral) has image_size None, patch_size None and"),
        # Both have patches, but merge them on the way up.
        (ConvNextConfig(), "(convnext) has image_size 224, patch_size 4 and num_attention_heads N"),
        (SwinConfig(), "(swin) has image_size 224, patch_size 4 and num_attention_heads (3, 6,"),
        (CLIPVisionConfig(image_size=[336, 224]), "has image_size [336, 224], patch_size 32"),
    ],
)
def test_no_vision_transformer(config, found):
    with pytest.raises(SettingError) as error:
        geometry(config)
    assert str(error.value).startswith("model.vision.name: 'folder' (")
    assert found in str(error.value)
    assert str(error.value).endswith("three integers, as in CLIP-like vision transformers")
