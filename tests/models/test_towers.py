"""Every kind of tower: the features of transformers' own, and pictures of the size it takes."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModel,
    BitImageProcessorPil,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2Config,
)

from architectures import TOWERS
from lightning_llava.data.collate import collate_packed
from lightning_llava.data.images import ImageTransform, expand_to_square
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_image_processor, load_vision_config, vision_geometry
from lightning_llava.models.flops import flop_coefficients
from lightning_llava.models.vision import load_vision_tower
from lightning_llava.specs import LearningRates, VisionSpec
from tiny import IMAGE_SIZE, VISION, build, row

PIXELS = torch.randint(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
SIZES = [(40, 40), (90, 33), (21, 70)]


@pytest.fixture(scope="module")
def registers(tmp_path_factory):
    """DINOv2 with two register tokens between CLS and patches."""
    folder = tmp_path_factory.mktemp("registers")
    torch.manual_seed(8)
    config = Dinov2WithRegistersConfig(**VISION, num_register_tokens=2)
    model = Dinov2WithRegistersModel(config)
    torch.nn.init.normal_(model.embeddings.register_tokens)
    model.save_pretrained(folder)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=size).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", [*TOWERS, "registers"])
@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_features_are_the_hidden_states_of_transformers(request, stand_in, name, layer):
    folder = request.getfixturevalue(name) if name == "registers" else stand_in(name)
    whole = AutoModel.from_pretrained(folder).eval()
    whole = getattr(whole, "vision_model", whole)
    front = {"siglip": 0, "siglip2": 0, "registers": 3}.get(name, 1)
    tower = load_vision_tower(VisionSpec(name=str(folder), layer=layer), torch.float32)
    pixels = (PIXELS / 255 - tower.mean) / tower.std
    with torch.no_grad():
        states = whole(pixels, output_hidden_states=True).hidden_states
        torch.testing.assert_close(tower(PIXELS), states[layer][:, front:], atol=1e-5, rtol=0)
        kept = VisionSpec(name=str(folder), layer=layer, tokens="cls_patch")
        with_cls = load_vision_tower(kept, torch.float32)
        expected = states[layer][:, front:]
        if front:
            expected = torch.cat([states[layer][:, :1], expected], dim=1)
        torch.testing.assert_close(with_cls(PIXELS), expected, atol=1e-5, rtol=0)
    assert tower.geometry.image_tokens == 16
    assert with_cls.geometry.image_tokens == 16 + bool(front)
    assert len(tower.layers) == {-1: 3, -2: 2, 1: 1}[layer]


@pytest.mark.parametrize("name", [*TOWERS, "registers"])
def test_a_trained_tower_has_no_parameter_without_gradient(request, stand_in, mistral, name):
    """Under DDP one would stop the run."""
    folder = request.getfixturevalue(name) if name == "registers" else stand_in(name)
    rates = LearningRates(projector=1e-3, lora=None, vision=1e-6)
    model = build(folder, mistral, rates=rates)
    model(collate_packed([row("a", 12, 1, 4, 1)], 16, IMAGE_SIZE)).loss.backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert flop_coefficients(model) is not None


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["square", "pad"])
def test_pictures_are_those_of_the_towers_processor(stand_in, name, size, mode):
    """CLIP and DINOv2 cut out of what is larger, SigLIP squeezes into a square."""
    rng = np.random.default_rng(sum(size))
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    spec = VisionSpec(name=str(stand_in(name)))
    processor = load_image_processor(spec)
    if mode == "pad":
        image = expand_to_square(image, tuple(int(255 * mean) for mean in processor.image_mean))
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    tower = load_vision_tower(spec, torch.float32)
    found = ImageTransform(spec, mode)(encoded.getvalue())
    side = vision_geometry(load_vision_config(spec), spec).image_size
    assert found.shape == (3, side, side)
    normalised = (found / 255 - tower.mean[0]) / tower.std[0]
    torch.testing.assert_close(normalised, expected, atol=1e-5, rtol=0)


def changed_processor(folder, target, **values):
    shutil.copytree(folder, target)
    path = target / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return VisionSpec(name=str(target))


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_a_processor_for_pictures_of_another_size_is_refused(stand_in, tmp_path, name):
    size = {"height": 24, "width": 24}
    spec = changed_processor(stand_in(name), tmp_path / "other", size=size, crop_size=size)
    message = (
        r"^model\.vision\.name: the processor of .* makes pictures of 24 pixels a side, but its "
        r"config\.json says image_size 32; correct size or crop_size in its preprocessor_config"
    )
    with pytest.raises(SettingError, match=message):
        load_vision_tower(spec, torch.float32)


def test_dinov2_takes_the_size_of_its_processor(stand_in, tmp_path):
    """Its config says 518, its processor 224."""
    size = {"height": 24, "width": 24}
    spec = changed_processor(stand_in("dinov2"), tmp_path / "small", crop_size=size)
    tower = load_vision_tower(spec, torch.float32)
    assert (tower.geometry.image_size, tower.geometry.image_tokens) == (24, 9)
    assert vision_geometry(load_vision_config(spec), spec) == tower.geometry
    whole = AutoModel.from_pretrained(stand_in("dinov2")).eval()
    pixels = PIXELS[:, :, :24, :24]
    with torch.no_grad():
        states = whole((pixels / 255 - tower.mean) / tower.std, output_hidden_states=True)
        expected = states.hidden_states[-2][:, 1:]
        torch.testing.assert_close(tower(pixels), expected, atol=1e-5, rtol=0)


def test_a_processor_that_makes_no_squares_is_refused(stand_in, tmp_path):
    size = {"height": 24, "width": 32}
    spec = changed_processor(stand_in("dinov2"), tmp_path / "oblong", crop_size=size)
    with pytest.raises(SettingError, match=r"makes pictures of .*24.*32.*; expected squares: chan"):
        load_vision_tower(spec, torch.float32)


def test_siglip_2_for_any_shape_is_refused_with_the_one_to_take(tmp_path):
    Siglip2Config(vision_config={"num_patches": 16}).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"SigLIP 2 .* \(NaFlex\).* such as google/siglip2-so4"):
        vision_geometry(load_vision_config(spec := VisionSpec(name=str(tmp_path))), spec)
