"""A quantized LLM: what is rounded and what is not, and the same numbers from rounded weights."""

import bitsandbytes as bnb
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_llava.data.collate import collate_packed
from lightning_llava.errors import SettingError
from lightning_llava.models import quantization
from lightning_llava.models.activation_memory import measure_layer
from lightning_llava.models.build import build_llava
from lightning_llava.models.flops import flop_coefficients
from lightning_llava.models.precision import drop_adapter_casts
from lightning_llava.models.quantization import quantized_bytes
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from tiny import IMAGE_SIZE, row

LINEAR = {"nf4": bnb.nn.Linear4bit, "int8": bnb.nn.Linear8bitLt}
KINDS = list(LINEAR)
LAYERS, WIDTH, INNER = 2, 128, 192


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    """Two folders: an output head of its own, and one tied to the embeddings."""
    folders = {}
    for tied in (False, True):
        torch.manual_seed(3)
        config = LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=INNER,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=120,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        folders[tied] = tmp_path_factory.mktemp("decoder")
        LlamaForCausalLM(config).save_pretrained(folders[tied])
    return folders


def build(clip, folder, kind=None, lora=None, dtype=torch.float32, rates=None):
    torch.manual_seed(4)
    return build_llava(
        VisionSpec(name=str(clip)),
        ProjectorSpec(),
        LanguageSpec(name=str(folder), quantization=kind),
        lora,
        rates or LearningRates(projector=1e-3, lora=1e-3 if lora else None),
        base_dtype=dtype,
    )


def base_linears(model):
    """The decoder's linear layers by name, those of adapters left out."""
    return {
        name: module
        for name, module in model.language.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name and name != "lm_head"
    }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_decoders_linear_layers_are_quantized_and_nothing_else(clip, decoders, kind, tied):
    model = build(clip, decoders[tied], kind, LoraSpec(r=4, alpha=8), torch.bfloat16)
    linears = base_linears(model)
    assert len(linears) == 7 * LAYERS
    assert all(name.endswith("_proj.base_layer") for name in linears)  # each has its adapter
    assert {type(module) for module in linears.values()} == {LINEAR[kind]}
    quantized = {f"language.{name}.weight" for name in linears}
    for name, parameter in model.named_parameters():
        if name in quantized:
            assert parameter.dtype == {"nf4": torch.uint8, "int8": torch.int8}[kind]
            assert not parameter.requires_grad
        else:
            kept = ".lora_" in name or name.startswith("projector.")
            assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name
    head = model.language.get_output_embeddings()
    assert type(head) is nn.Linear
    assert (head.weight is model.language.get_input_embeddings().weight) == tied
    assert model._head is not None  # losses of supervised positions alone, as ever


def test_nf4_computes_with_the_dequantized_weights(clip, decoders):
    """The unquantized model with bitsandbytes' dequantized weights in it has the same logits."""
    model, plain = build(clip, decoders[False], "nf4"), build(clip, decoders[False])
    batch = collate_packed([row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2)], 16, IMAGE_SIZE)
    with torch.no_grad():
        found, whole = model.logits(batch), plain.logits(batch)
        layers = base_linears(model)
        for name, module in base_linears(plain).items():
            weight = layers[name].weight
            assert weight.quant_state.nested
            assert weight.quant_state.quant_type == "nf4"
            module.weight.copy_(dequantize_4bit(weight.data, weight.quant_state))
        expected = plain.logits(batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - whole).abs().max() > 1e-2


def test_int8_rounds_weights_by_half_a_step_at_most(clip, decoders):
    model, plain = build(clip, decoders[False], "int8"), build(clip, decoders[False])
    layers = base_linears(model)
    for name, module in base_linears(plain).items():
        weight = layers[name].weight
        step = module.weight.abs().amax(dim=1, keepdim=True) / 127
        found = weight.CB * (weight.SCB[:, None] / 127)
        # transformers hands weights over in fp16, whose own rounding adds 2**-11 of a number.
        assert ((found - module.weight).abs() <= step / 2 + module.weight.abs() * 2**-10).all()


@pytest.mark.parametrize("kind", KINDS)
def test_flops_and_activations_are_those_of_the_unquantized_model(clip, decoders, kind):
    lora = LoraSpec(r=4, alpha=8)
    found, kept = [], []
    for quantized in (None, kind):
        model = build(clip, decoders[False], quantized, lora, torch.bfloat16)
        drop_adapter_casts(model.language)
        found.append(flop_coefficients(model))
        device = torch.device("cpu")
        kept.append(measure_layer(model.language, 40, device, torch.bfloat16))
    assert found[0] == found[1]
    assert kept[0] == kept[1]


def test_quantized_bytes_are_those_that_bitsandbytes_keeps():
    linear = nn.Linear(1024, 512, bias=False)
    four = bnb.nn.Params4bit(
        linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to("cpu")
    state = four.quant_state
    scales = state.absmax.nbytes + state.state2.absmax.nbytes
    assert quantized_bytes(linear, "nf4") == four.nbytes + scales
    eight = bnb.nn.Int8Params(linear.weight.data.half(), requires_grad=False).to("cpu")
    assert quantized_bytes(linear, "int8") == eight.CB.nbytes + eight.SCB.nbytes


def test_quantized_weights_are_not_to_be_trained(clip, decoders):
    rates = LearningRates(projector=1e-3, lora=None, language=2e-5)
    with pytest.raises(SettingError, match=r"language is 2e-05, but .*quantization is nf4: .*null"):
        build(clip, decoders[False], "nf4", rates=rates)


def test_without_bitsandbytes_the_sentence_names_the_extra(clip, decoders, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(
        SettingError,
        match=r"model\.language\.quantization: int8 needs .*extra gpu.* to null",
    ):
        build(clip, decoders[False], "int8")
