"""Grouped answers are those of transformers' `generate`, one prompt after another."""

import itertools
import logging

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.models import grouped, shared_row
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.grouped_probe import obstacle
from lightning_llava.models.llava import Llava
from lightning_llava.models.tree import tree_mask
from lightning_llava.models.vision import load_vision_tower
from lightning_llava.specs import VisionSpec
from tiny import IMAGE_SIZE, TEXT, VOCABULARY

PATCHES = 16
SIZES = TEXT | {"intermediate_size": 96, "vocab_size": VOCABULARY, "bos_token_id": 1}
# Far from zero, so that what a token sees decides its answer.
SPREAD = {
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention"]
CONFIGS = {
    "llama": LlamaConfig(**SIZES, **SPREAD),
    "mistral": MistralConfig(**SIZES, **SPREAD, sliding_window=None),
    "mistral_window": MistralConfig(**SIZES, **SPREAD, sliding_window=9),
    "qwen2": Qwen2Config(**SIZES, **SPREAD),
    "qwen2_window": Qwen2Config(
        **SIZES, **SPREAD, use_sliding_window=True, sliding_window=9, layer_types=MIXED
    ),
    "qwen3": Qwen3Config(**SIZES, **SPREAD, head_dim=12),
    "gemma2": Gemma2Config(
        **SIZES, **SPREAD, head_dim=12, sliding_window=9, attn_logit_softcapping=5.0
    ),
    "gemma3": Gemma3TextConfig(**SIZES, **SPREAD, head_dim=12, sliding_window=9, layer_types=MIXED),
}


def build(clip, name, attention="sdpa", **changes):
    """A small Llava around a random decoder of that kind."""
    torch.manual_seed(5)
    config = CONFIGS[name].__class__(**CONFIGS[name].to_dict() | changes)
    attention = "eager" if name == "gemma2" else attention
    language = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    tower = load_vision_tower(VisionSpec(name=str(clip)), torch.float32)
    projector = torch.nn.Linear(tower.width, config.hidden_size)
    torch.nn.init.normal_(projector.weight, std=0.5)
    return Llava(tower, projector, language)


def pixels(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 3, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def prompts(images, number=7, shared=4, seed=0):
    """Prompts with a beginning, images and a few ids in common, and endings of 1 to `number`."""
    generator = torch.Generator().manual_seed(seed)

    def ids(length):
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    front = [1, *ids(2), *[IMAGE_TOKEN_INDEX] * PATCHES * images, *ids(shared)]
    return [front + ids(1 + 3 * i % number) for i in range(number)]


def one_by_one(model, pixel_values, questions, max_new_tokens, stop_ids):
    answers = []
    for question in questions:
        ids = torch.tensor([question])
        batch = Batch(
            input_ids=ids,
            labels=torch.full_like(ids, IGNORE_INDEX),
            position_ids=torch.arange(len(question))[None],
            pixel_values=pixel_values,
            attention_mask=torch.ones_like(ids).bool(),
        )
        answers += model.generate(batch, max_new_tokens, stop_ids, pad_id=0)
    return answers


@pytest.fixture(autouse=True)
def nothing_is_answered_alone(request, monkeypatch):
    """What is to be grouped shall not pass because it was answered one by one."""
    if "falls_back" not in request.fixturenames:
        monkeypatch.setattr(grouped, "_answer_alone", None)


@pytest.fixture
def falls_back():
    pass


@pytest.mark.parametrize(
    ("name", "images"),
    [*((name, 1) for name in CONFIGS), ("llama", 0), ("mistral_window", 0), ("gemma3", 2)],
)
def test_answers_are_those_of_transformers(clip, name, images):
    model, shown, asked = build(clip, name), pixels(images), prompts(images)
    expected = one_by_one(model, shown, asked, 8, [2])
    assert len({tuple(answer) for answer in expected}) > 3
    assert len({answer[0] for answer in expected}) > 2
    for at_once in (None, 3, 1):
        assert answer_group(model, shown, asked, 8, [2], at_once) == expected


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_stops_where_transformers_stops(clip, name):
    model, shown, asked = build(clip, name), pixels(1), prompts(1)
    free = one_by_one(model, shown, asked, 8, [VOCABULARY])
    # One id that an answer begins with, and two that others reach later.
    stops = [free[0][0], free[1][2], free[2][4]]
    expected = one_by_one(model, shown, asked, 8, stops)
    assert len(set(map(len, expected))) > 2
    assert expected[0] == [free[0][0]]
    for longest, at_once in itertools.product((1, 2, 8), (None, 2)):
        cut = [answer[:longest] for answer in expected]
        assert answer_group(model, shown, asked, longest, stops, at_once) == cut


def test_the_others_change_no_answer(clip):
    model, shown, asked = build(clip, "qwen2_window"), pixels(1), prompts(1)
    together = answer_group(model, shown, asked, 6, [2])
    reverse = answer_group(model, shown, asked[::-1], 6, [2], at_once=4)[::-1]
    alone = [answer_group(model, shown, [question], 6, [2])[0] for question in asked]
    stranger = asked[0][:1] + asked[0][2:]  # with it, the common prefix ends before the image
    among = answer_group(model, shown, [*asked, stranger], 6, [2])[: len(asked)]
    assert together == reverse == alone == among


def test_prompts_without_a_common_beginning(clip):
    model, shown, asked = build(clip, "mistral_window"), pixels(0), prompts(0)
    asked = [[3 + i, *question] for i, question in enumerate(asked)]
    expected = one_by_one(model, shown, asked, 5, [2])
    assert answer_group(model, shown, asked, 5, [2], at_once=3) == expected


def test_images_may_follow_what_differs(clip):
    model, shown = build(clip, "llama"), pixels(2)
    images = [IMAGE_TOKEN_INDEX] * PATCHES
    asked = [[1, *images, 5, q, *images, 9] for q in (20, 21, 22)]
    expected = one_by_one(model, shown, asked, 5, [2])
    assert len({tuple(answer) for answer in expected}) == 3
    assert answer_group(model, shown, asked, 5, [2]) == expected


def test_the_same_prompt_is_computed_once(clip, monkeypatch):
    model, shown, asked = build(clip, "llama"), pixels(1), prompts(1, number=3)
    once = answer_group(model, shown, asked, 4, [2])
    lengths, forward = [], model.language.forward
    monkeypatch.setattr(
        model.language,
        "forward",
        lambda **kw: lengths.append(kw["position_ids"].shape[1]) or forward(**kw),
    )
    encoded, encode = [], model.vision_tower.forward
    monkeypatch.setattr(
        model.vision_tower, "forward", lambda p: encoded.append(len(p)) or encode(p)
    )
    thrice = answer_group(model, shown, [*asked, *asked[::-1], *asked], 4, [2])
    assert thrice == [*once, *once[::-1], *once]
    assert encoded == [1]
    # The prefix, what is left of each, and a token of each that goes on.
    prefix = 3 + PATCHES + 4
    assert lengths[:2] == [prefix, sum(len(question) - prefix for question in asked)]
    assert lengths[2:] == [sum(len(a) > n for a in once) for n in (1, 2, 3)]


@pytest.mark.parametrize("attention", ["eager", "segments"])
def test_attention_by_any_name(clip, attention):
    model, shown, asked = build(clip, "mistral_window", attention), pixels(1), prompts(1)
    expected = answer_group(build(clip, "mistral_window"), shown, asked, 6, [2])
    assert model.language.config._attn_implementation == attention
    assert answer_group(model, shown, asked, 6, [2]) == expected


def test_an_implementation_without_masks_is_replaced_meanwhile(clip, monkeypatch):
    model, shown, asked = build(clip, "llama", "eager"), pixels(1), prompts(1)
    expected = answer_group(build(clip, "llama"), shown, asked, 6, [2])
    monkeypatch.setattr(shared_row, "WITH_MASK", ("sdpa",))
    seen, forward = [], model.language.forward
    implementation = model.language.config.__class__._attn_implementation
    monkeypatch.setattr(
        model.language,
        "forward",
        lambda **kw: seen.append(implementation.fget(model.language.config)) or forward(**kw),
    )
    obstacle(model, 10)
    seen.clear()
    assert answer_group(model, shown, asked, 6, [2]) == expected
    assert set(seen) == {"sdpa"}
    assert model.language.config._attn_implementation == "eager"


def test_half_precision_and_autocast(clip):
    shown, asked = pixels(1), prompts(1)
    model = build(clip, "mistral")
    model.language.bfloat16()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        expected = one_by_one(model, shown, asked, 1, [2])
        found = answer_group(model, shown, asked, 1, [2])
    same = sum(one == other for one, other in zip(expected, found, strict=True))
    assert same >= len(asked) - 1  # roundings may tip a tie
    assert len({tuple(answer) for answer in found}) > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trial_finds_a_wrong_mask(clip, monkeypatch, dtype):
    model = build(clip, "mistral_window")
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        assert obstacle(model, 10) is None
        model.grouping_obstacles.clear()
        no_window = lambda queries, keys, window: tree_mask(queries, keys, None)  # noqa: E731
        monkeypatch.setattr(shared_row, "tree_mask", no_window)
        assert "in a trial logits differ" in str(obstacle(model, 10))
        model.grouping_obstacles.clear()
        see_all = lambda queries, keys, window: tree_mask(queries, keys, window) | True  # noqa: E731
        monkeypatch.setattr(shared_row, "tree_mask", see_all)
        assert "in a trial logits differ" in str(obstacle(model, 10))


def fallback(config, clip, caplog):
    torch.manual_seed(5)
    language = AutoModelForCausalLM.from_config(config).eval()
    tower = load_vision_tower(VisionSpec(name=str(clip)), torch.float32)
    model = Llava(tower, torch.nn.Linear(tower.width, config.hidden_size), language)
    shown, asked = pixels(1), prompts(1, number=3)
    with caplog.at_level(logging.INFO):
        found = answer_group(model, shown, [*asked, asked[0]], 4, [2])
        again = answer_group(model, shown, asked, 4, [2])
    expected = one_by_one(model, shown, asked, 4, [2])
    assert found == [*expected, expected[0]]
    assert again == expected
    lines = [r.message for r in caplog.records if "answered one by one: " in r.message]
    assert len(lines) == 1
    return lines[0]


def test_distances_that_are_not_from_positions_are_answered_one_by_one(clip, caplog, falls_back):
    """Bloom counts tokens of the row for its biases, whatever their positions."""
    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=48, n_layer=2, n_head=4)
    config.initializer_range = 0.25
    assert "trial" in fallback(config, clip, caplog)


def test_recurrent_layers_are_answered_one_by_one(clip, caplog, falls_back):
    config = MambaConfig(
        vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=2, state_size=4, pad_token_id=0
    )
    line = fallback(config, clip, caplog)
    assert "trial stopped" in line or "layers of the kind" in line


def test_rotations_that_change_with_length_are_answered_one_by_one_where_they_do(clip, caplog):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 6,
        "long_factor": [4.0] * 6,
    }
    limits = {"original_max_position_embeddings": 64, "max_position_embeddings": 128}
    config = Phi3Config(**SIZES, **SPREAD, rope_parameters=rope, **limits)
    language = AutoModelForCausalLM.from_config(config).eval()
    tower = load_vision_tower(VisionSpec(name=str(clip)), torch.float32)
    model = Llava(tower, torch.nn.Identity(), language)
    with caplog.at_level(logging.INFO):
        assert obstacle(model, 64) is None
        for longest in (65, 66):
            assert obstacle(model, longest) == "rotations (longrope) change beyond 64 tokens"
    assert sum("one by one: rotations" in record.message for record in caplog.records) == 1


def test_no_prompts_no_answers(clip):
    assert answer_group(build(clip, "llama"), pixels(0), [], 4, [2]) == []


def test_placeholders_that_do_not_match_the_images_are_an_error(clip):
    model, asked = build(clip, "llama"), prompts(1)
    with pytest.raises(ValueError, match="placeholders"):
        answer_group(model, pixels(2), asked, 4, [2])
    with pytest.raises(ValueError, match="placeholders"):
        answer_group(model, pixels(0), asked, 4, [2])
