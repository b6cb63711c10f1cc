"""bf16-mixed: what it keeps, and how far from full fp32 it leads."""

from contextlib import ExitStack

import pytest
import torch
from peft.helpers import disable_input_dtype_casting
from peft.tuners.lora import LoraLayer
from torch.utils.checkpoint import CheckpointError
from transformers import MistralConfig, MistralForCausalLM

from lightning_llava.data.collate import collate_packed
from lightning_llava.errors import SettingError
from lightning_llava.models.activation_memory import measure_layer
from lightning_llava.models.activations import apply_policy
from lightning_llava.models.build import build_llava
from lightning_llava.models.lora import add_lora
from lightning_llava.models.precision import (
    GRADIENT_COSINE,
    LOSS_ERROR,
    check_bf16,
    drop_adapter_casts,
)
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from tiny import IMAGE_SIZE, gradients, row

ROWS = [row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2), row("c", 9, 0, 5, 3)]


def build(clip, language, dtype, dropout=0.0, vision_rate=None):
    torch.manual_seed(0)
    model = build_llava(
        VisionSpec(name=str(clip)),
        ProjectorSpec(),
        LanguageSpec(name=str(language)),
        LoraSpec(r=4, alpha=8, dropout=dropout),
        LearningRates(projector=1e-3, lora=1e-3, vision=vision_rate),
        base_dtype=dtype,
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def loss_and_gradients(model, context):
    model.zero_grad()
    torch.manual_seed(2)
    batch = collate_packed(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
    with context:
        result = model(batch)
    result.loss.backward()
    return result.loss.detach(), gradients(model)


def test_dropping_the_casts_changes_no_bit_of_loss_and_gradients(clip, mistral):
    model = build(clip, mistral, torch.bfloat16)
    loss, grads = loss_and_gradients(model, autocast())
    drop_adapter_casts(model.language)
    again, found = loss_and_gradients(model, autocast())
    assert torch.equal(loss, again)
    assert found.keys() == grads.keys()
    assert all(torch.equal(found[name], grads[name]) for name in grads)


def test_casts_stay_dropped_when_layers_are_recomputed(clip, mistral):
    """A context manager around the forward pass has ended by then."""
    model = build(clip, mistral, torch.bfloat16, dropout=0.1)
    apply_policy(model.language, "full")
    both = ExitStack()
    both.enter_context(autocast())
    both.enter_context(disable_input_dtype_casting(model.language))
    with pytest.raises(CheckpointError):
        loss_and_gradients(model, both)
    drop_adapter_casts(model.language)
    recomputed, found = loss_and_gradients(model, autocast())
    apply_policy(model.language, "none")
    loss, grads = loss_and_gradients(model, autocast())
    assert torch.equal(recomputed, loss)
    assert all(torch.equal(found[name], grads[name]) for name in grads)


def test_dropped_casts_keep_less_for_the_backward_pass():
    config = MistralConfig(
        hidden_size=64,
        intermediate_size=224,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=1,
        vocab_size=32,
        sliding_window=None,
    )
    kept = {}
    for dropout in (0.05, 0.0):
        language = MistralForCausalLM(config).to(torch.bfloat16).requires_grad_(False)
        add_lora(language, LoraSpec(r=8, alpha=16, dropout=dropout))
        for name, parameter in language.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.float()
        for dropped in (False, True):
            if dropped:
                drop_adapter_casts(language)
            sizes = [
                measure_layer(language, tokens, torch.device("cpu"), torch.bfloat16).kept
                for tokens in (32, 64)
            ]
            kept[dropout, dropped] = (sizes[1] - sizes[0]) / 32
    # Inputs of the seven adapters, in elements a token: q, k, v, o, gate, up; down.
    inputs = 6 * 64 + 224
    # On CPU dropout keeps its noise in the type of its input: 4 bytes an element become 2.
    assert kept[0.05, False] - kept[0.05, True] == 2 * inputs
    # Without dropout seven bf16 copies of casts go. What comes instead is there anyway or shared:
    # q, k and v have one input, gate and up have one, o's is attention's output, down's its own.
    assert kept[0.0, False] - kept[0.0, True] == 2 * (2 * 64 + 64 + 64)


def test_a_peft_without_the_switch_is_refused():
    class Old(LoraLayer, torch.nn.Module):
        def __init__(self):
            torch.nn.Module.__init__(self)

    with pytest.raises(SettingError, match=r"Old of the installed peft always casts"):
        drop_adapter_casts(torch.nn.Sequential(Old()))


def test_a_gpu_without_bf16_is_told_so(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(SettingError, match=r"T4 has no bf16 .* set trainer\.precision: 16-mixed"):
        check_bf16(torch.bfloat16, gpu)
    check_bf16(torch.float16, gpu)
    check_bf16(torch.bfloat16, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_bf16(torch.bfloat16, gpu)


def test_a_frozen_tower_computes_the_same_inside_autocast(clip, mistral):
    pixels = torch.randint(0, 256, (2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
    for dtype in (torch.float32, torch.bfloat16):
        tower = build(clip, mistral, dtype).vision_tower.eval()
        plain = tower(pixels)
        with autocast():
            inside = tower(pixels)
        assert plain.dtype == inside.dtype == dtype
        assert torch.equal(plain, inside)
        assert not inside.requires_grad


def test_a_trained_tower_takes_part_in_autocast(clip, mistral):
    tower = build(clip, mistral, torch.bfloat16, vision_rate=1e-5).vision_tower
    layer = next(m for m in tower.encoder.modules() if isinstance(m, torch.nn.Linear))
    types = []
    layer.register_forward_hook(lambda module, args, output: types.append(output.dtype))
    pixels = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
    with autocast():
        assert tower(pixels).requires_grad
    tower(pixels)
    assert types == [torch.bfloat16, torch.float32]


def test_bf16_mixed_stays_near_full_fp32(clip, mistral):
    full = build(clip, mistral, torch.float32)
    mixed = build(clip, mistral, torch.bfloat16)
    drop_adapter_casts(mixed.language)
    loss, exact = loss_and_gradients(full, torch.autocast("cpu", enabled=False))
    rounded, near = loss_and_gradients(mixed, autocast())
    assert abs(rounded / loss - 1) < LOSS_ERROR
    for name, gradient in exact.items():
        cosine = torch.cosine_similarity(gradient.flatten(), near[name].flatten(), dim=0)
        assert cosine > GRADIENT_COSINE, name
        assert abs(near[name].norm() / gradient.norm() - 1) < 0.02, name
