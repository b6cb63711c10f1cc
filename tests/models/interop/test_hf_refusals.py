"""What LlavaForConditionalGeneration cannot express is refused, and nothing is left."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CohereConfig,
    CohereForCausalLM,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

import architectures
import exports
import tiny
from lightning_llava.errors import SettingError
from lightning_llava.models.interop import hf
from lightning_llava.models.interop.hf_config import check_head


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, clip):
    folder = architectures.save_llama(tmp_path_factory.mktemp("llama"))
    return exports.train(tmp_path_factory.mktemp("run"), clip, folder, "vicuna_v1", steps=1)


def change(checkpoint, folder, part, **values):
    """Write a checkpoint that says other things of its run."""
    content = torch.load(checkpoint, weights_only=True)
    content["model_settings"][f"model.{part}"] |= values
    torch.save(content, folder / "last.ckpt")
    return folder / "last.ckpt"


def refused(folder, checkpoint, *options):
    with pytest.raises(SettingError) as error:
        exports.export(checkpoint, folder, *options)
    assert not folder.exists()
    assert not list(folder.parent.glob(f".{folder.name}*"))
    return str(error.value)


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_another_projector_is_refused(checkpoint, tmp_path, kind, monkeypatch):
    other = change(checkpoint, tmp_path, "projector", type=kind)
    monkeypatch.setattr(hf, "load_merged", None)  # before anything is loaded
    assert f"model.projector.type is {kind}" in refused(tmp_path / "x", other)


def test_capped_logits_are_refused(tmp_path, clip):
    (tmp_path / "llm").mkdir()
    llm = architectures.save_gemma2(tmp_path / "llm")
    checkpoint = exports.train(tmp_path / "run", clip, llm, "gemma", steps=1)
    assert "caps its logits at 3" in refused(tmp_path / "x", checkpoint)


HEADS = {
    "scales its logits by 0.5": (CohereForCausalLM, CohereConfig, {"logit_scale": 0.5}),
    "scales its logits by 0.25": (GraniteForCausalLM, GraniteConfig, {"logits_scaling": 4.0}),
    "adds a bias to its logits": (PhiForCausalLM, PhiConfig, {}),
}


@pytest.mark.parametrize("reason", HEADS)
def test_heads_that_are_no_bare_matrix_are_refused(reason):
    made, config, settings = HEADS[reason]
    language = made(config(**architectures.TEXT, vocab_size=64, **settings, pad_token_id=0))
    with pytest.raises(SettingError, match=f"'it'.* {reason}, which"):
        check_head(SimpleNamespace(language=language), "it")


def test_a_tower_with_registers_is_refused(checkpoint, tmp_path):
    size = {"height": 32, "width": 32}
    config = Dinov2WithRegistersConfig(**tiny.VISION, num_register_tokens=2)
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "tower")
    BitImageProcessorPil(size=size, crop_size=size).save_pretrained(tmp_path / "tower")
    other = change(checkpoint, tmp_path, "vision", name=str(tmp_path / "tower"))
    assert "puts 3 features before its" in refused(tmp_path / "x", other)


def test_a_quantized_language_model_is_refused(checkpoint, tmp_path):
    other = change(checkpoint, tmp_path, "language", quantization="nf4")
    assert "in nf4 (model.language.quantization)" in refused(tmp_path / "x", other)


def test_a_folder_with_something_in_it_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("precious")
    with pytest.raises(SettingError, match="exists and is not empty"):
        exports.export(checkpoint, tmp_path / "x")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "mine"]
