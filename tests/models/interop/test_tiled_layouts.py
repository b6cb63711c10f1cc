"""LLaVA 1.6 in every layout it is published in, against transformers' model of the same weights."""

import json

import pytest
import torch

import layouts
from layouts import Twin, assert_equals_twin, take_over
from lightning_llava.errors import SettingError
from lightning_llava.models.interop.adapter import export_adapter
from lightning_llava.models.interop.original import export_llava
from lightning_llava.models.interop.weight_files import read_weights
from lightning_llava.models.trained import read_trained
from lightning_llava.text.conversation import ConversationEncoder

GRIDS = [[2, 1], [1, 2], [2, 2], [1, 3], [3, 1]]
"""LLaVA 1.6's `[[336, 672], [672, 336], …]`, as its own code reads it: width before height."""


@pytest.fixture(scope="module")
def whole_twins(tmp_path_factory):
    return {
        text: Twin(tmp_path_factory.mktemp(text), text, grids=GRIDS)
        for text in ("llama", "mistral")
    }


@pytest.fixture
def twin(tmp_path):
    return Twin(tmp_path / "twin", "llama", grids=GRIDS)


def export(writer, checkpoint, folder):
    folder.mkdir()
    trained = read_trained(checkpoint, "--checkpoint")
    writer(trained, ConversationEncoder(trained.language, 16), folder, torch.float32)
    return folder


@pytest.mark.parametrize(("text", "written"), [("llama", list), ("mistral", str)])
def test_an_original_checkpoint(whole_twins, tmp_path, text, written):
    twin = whole_twins[text]
    source = twin.save_original(tmp_path / "source", tower=True, shards=2)
    config = twin.original_config()
    config["image_grid_pinpoints"] = written(config["image_grid_pinpoints"])
    layouts.write_json(source / "config.json", config)
    imported = take_over(source, tmp_path / "out")
    assert (imported.kind, imported.language.max_length) == ("llava", 4096)
    assert (imported.vision.any_resolution, imported.vision.grids) == (True, GRIDS)
    assert_equals_twin(tmp_path / "out", twin)


@pytest.mark.parametrize(("text", "old"), [("llama", True), ("mistral", False)])
def test_a_folder_of_llava_hf(whole_twins, tmp_path, text, old):
    twin = whole_twins[text]
    source = twin.save_hugging_face(tmp_path / "source", old)
    imported = take_over(source, tmp_path / "out")
    assert imported.vision.grids == GRIDS
    assert not any("crops pictures" in note for note in imported.notes)
    assert_equals_twin(tmp_path / "out", twin)


@pytest.mark.parametrize("merge", [False, True])
def test_an_original_lora_folder(twin, tmp_path, merge):
    source = twin.save_lora(tmp_path / "source")
    imported = take_over(source, tmp_path / "out", merge=merge)
    assert imported.vision.grids == GRIDS
    assert_equals_twin(tmp_path / "out", twin)


def test_a_bare_projector_with_its_newline(twin, tmp_path):
    file = tmp_path / "mm_projector.bin"
    torch.save(twin.projector("base_model.model."), file)
    parts = {"base": str(twin.base), "vision": str(twin.tower)}
    imported = take_over(file, tmp_path / "out", **parts)
    assert (imported.vision.grids, imported.language.max_length) == (GRIDS, 4096)
    assert any("LLaVA 1.6's were taken" in note for note in imported.notes)
    assert_equals_twin(tmp_path / "out", twin)


def test_an_adapter_folder_and_back(twin, tmp_path):
    take_over(twin.save_lora(tmp_path / "source"), tmp_path / "adapted")
    folder = export(export_adapter, tmp_path / "adapted/weights.ckpt", tmp_path / "adapter")
    found = read_weights(folder, "projector", "test")
    assert found.keys() == {"0.weight", "0.bias", "2.weight", "2.bias", "image_newline"}
    imported = take_over(folder, tmp_path / "back", template=None)
    assert (imported.kind, imported.language.max_length) == ("adapter", 4096)
    assert imported.vision.grids == GRIDS
    assert_equals_twin(tmp_path / "back", twin)


def test_the_original_layout_and_back(twin, tmp_path):
    take_over(twin.save_lora(tmp_path / "source"), tmp_path / "adapted")
    folder = export(export_llava, tmp_path / "adapted/weights.ckpt", tmp_path / "llava")
    found = read_weights(folder, "model", "test")
    newline = twin.model.model.image_newline
    torch.testing.assert_close(found["model.image_newline"].read(), newline, atol=0, rtol=0)
    config = json.loads((folder / "config.json").read_text())
    fields = twin.original_pictures()
    assert fields["image_grid_pinpoints"][0] == [32, 64]  # one tile wide, two high
    assert {name: config[name] for name in fields} == fields
    bare = torch.load(folder / "mm_projector.bin", weights_only=True)
    assert bare.keys() == twin.projector("").keys()
    assert "model.image_newline" in bare
    take_over(folder, tmp_path / "back", template=None)
    assert_equals_twin(tmp_path / "back", twin)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio 'anyres_max_9' and mm_patch"),
        ({"mm_patch_merge_type": "spatial"}, "mm_patch_merge_type 'spatial', expected"),
        ({"mm_patch_merge_type": "flat"}, "expected square, pad, or anyres with spatial_unpad"),
        ({"image_aspect_ratio": "pad"}, "weights have an image_newline, .* on squares, not tiles"),
        ({"image_grid_pinpoints": [[32, 48]]}, r"\[\[48, 32\]\] \(height, width\), .* of 32"),
        ({"image_grid_pinpoints": [[32, 0]]}, "expected multiples of 32"),
        ({"image_grid_pinpoints": "(1x1),...,(6x6)"}, r"'\(1x1\),...,\(6x6\)', expected a list"),
        ({"image_grid_pinpoints": None}, "image_grid_pinpoints None, expected a list of pairs"),
        ({"image_grid_pinpoints": [[32, 64], [32, 64]]}, "expected different pairs of rows"),
        ({"mm_vision_select_feature": "cls_patch"}, "where a CLS feature has no place"),
    ],
)
def test_tiles_that_ours_cannot_be(twin, tmp_path, fields, said):
    source = twin.save_original(tmp_path / "source")
    layouts.write_json(source / "config.json", twin.original_config() | fields)
    with pytest.raises(SettingError, match=said):
        take_over(source, tmp_path / "out")


def test_a_newline_that_is_missing_or_of_another_width(twin, tmp_path):
    source = twin.save_original(tmp_path / "source")
    weights = twin.original_weights(tower=False)
    weights["model.image_newline"] = torch.zeros(64)
    torch.save(weights, source / "pytorch_model.bin")
    with pytest.raises(SettingError, match=r"\(image_newline \(64,\) instead of \(48,\)\)"):
        take_over(source, tmp_path / "wide")
    del weights["model.image_newline"]
    torch.save(weights, source / "pytorch_model.bin")
    with pytest.raises(SettingError, match=r"have no image_newline, .* on tiles, not squares"):
        take_over(source, tmp_path / "none")


def test_an_image_mode_that_would_change_nothing(whole_twins, tmp_path):
    source = whole_twins["llama"].save_hugging_face(tmp_path / "source", old=False)
    with pytest.raises(SettingError, match=r"--image-mode: .* in tiles of any resolution"):
        take_over(source, tmp_path / "out", image_mode="pad")


@pytest.mark.parametrize("field", [{"image_grid_pinpoints": [[32, 64]]}, {"resample": 2}])
def test_a_processor_that_cuts_other_tiles(whole_twins, tmp_path, field):
    source = whole_twins["llama"].save_hugging_face(tmp_path / "source", old=False)
    file = source / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"] |= field
    layouts.write_json(file, content)
    with pytest.raises(
        SettingError, match=f"LlavaNextImageProcessorPil, has .*{next(iter(field))}"
    ):
        take_over(source, tmp_path / "out")
