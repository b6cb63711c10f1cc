"""The formula against the published figures of a 7B run and against torch's own counter."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lightning_llava.data.collate import collate_packed
from lightning_llava.models.build import named_parts
from lightning_llava.models.flops import flop_coefficients, flop_parts, micro_batch_flops
from lightning_llava.models.llava import Llava
from lightning_llava.models.lora import add_lora
from lightning_llava.models.projector import build_projector
from lightning_llava.models.vision import VisionTower
from lightning_llava.specs import LoraSpec, VisionSpec
from tiny import IMAGE_SIZE, TEXT, VISION, VOCABULARY, build, row, tiled_row

CLIP_L = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
}
TINY = TEXT | {"intermediate_size": 96, "vocab_size": VOCABULARY}
RATES = ("projector", "lora")
TERA = 1e12


def compose(language, vision, trains, rank=None):
    """A Llava of random parts; what `build_llava` does after it has loaded them."""
    tower = VisionTower(
        CLIPVisionModel(CLIPVisionConfig(**vision)), VisionSpec(), [0.5] * 3, [0.5] * 3
    )
    if rank:
        add_lora(language, LoraSpec(r=rank, dropout=0.0))
    projector = build_projector("mlp2x_gelu", tower.width, language.config.hidden_size)
    if language.device.type == "meta":  # has no numbers for the output head to be probed with
        model = Llava.__new__(Llava)
        torch.nn.Module.__init__(model)
        model.vision_tower, model.projector, model.language = tower, projector, language
    else:
        model = Llava(tower, projector, language).eval()
    for part, _, parameter in named_parts(model):
        parameter.requires_grad_(part in trains)
    return model


def counted(model, batch):
    """Count a step by torch, forward and backward, with attention as plain matrix products."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).loss.backward()
    return counter.get_total_flops()


def parts(model, batch):
    return flop_parts(
        flop_coefficients(model),
        batch.cu_seqlens.diff().tolist(),
        len(batch.pixel_values),
        int((batch.labels >= 0).sum()),
    )


@pytest.fixture(scope="module")
def seven_billion():
    with torch.device("meta"):
        language = MistralForCausalLM(MistralConfig(sliding_window=None))
        return compose(language, CLIP_L, RATES, rank=128)


def test_a_7b_sample_takes_what_was_computed_by_hand(seven_billion):
    """The table of the LoRA epoch: TFLOP of a sample of 791 tokens, 100 of them supervised."""
    coefficients = flop_coefficients(seven_billion)
    found = {k: v / TERA for k, v in flop_parts(coefficients, [791], 1, 100).items()}
    assert found["forward"] == pytest.approx(11.04, rel=0.02)
    assert found["backward"] == pytest.approx(11.04, rel=0.02)
    assert found["weights"] == 0
    assert found["lora"] == pytest.approx(1.59, rel=0.02)
    assert found["tower"] == pytest.approx(0.34, rel=0.02)
    assert found["head"] == pytest.approx(0.05, abs=0.005)
    everywhere = flop_parts(coefficients, [791], 1, 791)["head"] / TERA
    assert everywhere == pytest.approx(0.41, rel=0.02)
    # Three times 2 x 2 x 791² / 2 pairs x 4096 wide x 32 layers; 577² pairs x 1024 x 23 layers.
    assert found["attention"] == pytest.approx(0.492, rel=0.002)
    assert found["tower_attention"] == pytest.approx(0.0314, rel=0.002)
    # 1024 x 4096 weights twice (features need no gradient), 4096 x 4096 three times; 576 patches.
    assert found["projector"] == pytest.approx(0.0676, rel=0.002)
    assert sum(found.values()) * TERA / 791 == pytest.approx(31.5e9, rel=0.02)


def test_a_whole_7b_that_trains_takes_what_was_computed_by_hand():
    with torch.device("meta"):
        language = MistralForCausalLM(MistralConfig(sliding_window=None))
        model = compose(language, CLIP_L, ("projector", "language"))
    whole = micro_batch_flops(flop_coefficients(model), [791], 1, 100)
    assert whole / TERA == pytest.approx(34.3, rel=0.02)


def test_torch_counts_the_same_of_tiles(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8, dropout=0.0), any_resolution=True)
    wide = tiled_row("a", 30, [(200, 30)], 9, model.vision_tower.geometry.tiling)
    batch = collate_packed([wide], 16, IMAGE_SIZE)
    lengths, tiles = batch.cu_seqlens.diff().tolist(), len(batch.pixel_values)
    assert tiles == 4
    # Of three tiles two rows of twelve features each.
    found = flop_parts(flop_coefficients(model), lengths, tiles, 9, projected=1 + 24 / 16)
    # As matrix products, causal attention is twice what is needed of it.
    assert counted(model, batch) == sum(found.values()) + found["attention"]


@pytest.mark.parametrize(
    ("trains", "rank"),
    [
        (("projector", "lora"), 4),
        (("projector",), None),
        (("projector", "language"), None),
        (("projector", "language", "lora"), 4),
        (("projector", "language", "vision"), None),
    ],
)
@pytest.mark.parametrize("images", [1, 2])
def test_torch_counts_the_same(trains, rank, images):
    torch.manual_seed(0)
    model = compose(MistralForCausalLM(MistralConfig(**TINY)), VISION, trains, rank)
    batch = collate_packed([row("a", 60, images, 13, 1)], 16, IMAGE_SIZE)
    found = parts(model, batch)
    assert found["attention"] > 0
    assert found["tower_attention"] > 0
    # As matrix products, causal attention is twice what is needed of it.
    expected = sum(found.values()) + found["attention"]
    assert counted(model, batch) == expected


def test_torch_counts_the_same_in_the_matrices_of_a_pack():
    """Of several samples, each token is counted once; attention is left out on both sides."""
    torch.manual_seed(0)
    model = compose(MistralForCausalLM(MistralConfig(**TINY)), VISION, RATES, 4)
    batch = collate_packed(
        [row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2), row("c", 9, 0, 1, 3)], 16, IMAGE_SIZE
    )
    found = parts(model, batch)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).loss.backward()
    products = counter.get_flop_counts()["Global"]
    matrices = sum(n for op, n in products.items() if op != torch.ops.aten.bmm)
    attention = found["attention"] + found["tower_attention"]
    assert matrices == sum(found.values()) - attention


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (GPT2LMHeadModel, GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=VOCABULARY)),
        (
            MixtralForCausalLM,
            MixtralConfig(
                **TINY, num_local_experts=4, num_experts_per_tok=2, experts_implementation="eager"
            ),
        ),
    ],
    ids=["gpt2", "mixtral"],
)
def test_torch_counts_the_same_in_families_of_other_parts(kind, config):
    """GPT-2 has no `nn.Linear` but its head; Mixtral's experts lie in one parameter."""
    torch.manual_seed(0)
    model = compose(kind(config), VISION, ("projector", "language"))
    batch = collate_packed([row("a", 60, 1, 13, 1)], 16, IMAGE_SIZE)
    found = parts(model, batch)
    expected = sum(found.values()) + found["attention"]
    assert counted(model, batch) == expected


@pytest.mark.parametrize("length", [7, 100, 640])
@pytest.mark.parametrize("window", [32, 100])
def test_a_window_bounds_what_a_token_sees(length, window):
    pairs = sum(min(position + 1, window) for position in range(length))
    config = MistralConfig(**TINY, sliding_window=window)
    coefficients = flop_coefficients(compose(MistralForCausalLM(config), VISION, RATES))
    found = flop_parts(coefficients, [length], 0, 0)["attention"]
    # n² / 2 leaves out the half of the diagonal.
    assert found == pytest.approx(2 * 12 * 48 * pairs, rel=1 / min(length, window))


def test_windows_are_those_of_the_layers():
    kinds = ["full_attention", "sliding_attention"]
    windowed = {"use_sliding_window": True, "sliding_window": 8, "layer_types": kinds}
    model = compose(Qwen2ForCausalLM(Qwen2Config(**TINY, **windowed)), VISION, RATES)
    coefficients = flop_coefficients(model)
    assert coefficients.windows == (None, 8)
    found = flop_parts(coefficients, [20, 4], 0, 0)["attention"]
    assert found == 12 * 48 * ((200 + 8) + (20 * 8 - 32 + 8))
