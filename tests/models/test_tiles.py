"""Any resolution against transformers' LLaVA-NeXT, packed against separate rows, and in groups."""

import numpy as np
import pytest
import torch
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.errors import SettingError
from lightning_llava.models.build import named_parts
from lightning_llava.models.checkpoint import load_checkpoint_state
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.tiles import insert_newlines, reading_order
from lightning_llava.specs import LoraSpec
from lightning_llava.tiling import NEWLINE, Tiling
from tiny import IMAGE_SIZE, VOCABULARY, build, gradients, row, tiled_row

IMAGE_TOKEN = VOCABULARY - 1  # transformers looks it up before it puts the features there
PATCHES = 16
SIZES = {
    "square": [(70, 70)],
    "wide": [(200, 40)],
    "tall": [(31, 90)],
    "tiny": [(5, 9)],
    "one pixel": [(1, 1)],
    "a line": [(500, 5)],  # no row of its tiles is left
    "two images": [(64, 33), (40, 80)],
}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def pair(request, mistral):
    """Ours and transformers', around the same weights."""
    torch.manual_seed(0)
    model = build(request.getfixturevalue(request.param), mistral, any_resolution=True)
    # Far from zero, so that every feature matters.
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and not name.startswith("vision_tower."):
            torch.nn.init.normal_(parameter, std=0.2)
    return model, reference(model, "full" if request.param == "siglip" else "default")


def reference(model, strategy):
    tiling = model.vision_tower.geometry.tiling
    config = LlavaNextConfig(
        vision_config=model.vision_tower.encoder.config,
        text_config=model.language.config,
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
        image_grid_pinpoints=[[r * tiling.side, c * tiling.side] for r, c in tiling.grids],
    )
    config.text_config.vocab_size = VOCABULARY
    hf = LlavaNextForConditionalGeneration(config).eval()
    # Ours has dropped what is above the selected layer; it plays no part in either.
    hf.model.vision_tower.load_state_dict(model.vision_tower.encoder.state_dict(), strict=False)
    hf.model.language_model.load_state_dict(model.language.model.state_dict())
    hf.lm_head.load_state_dict(model.language.lm_head.state_dict())
    for ours, theirs in [(0, "linear_1"), (2, "linear_2")]:
        projector = getattr(hf.model.multi_modal_projector, theirs)
        projector.load_state_dict(model.projector[ours].state_dict())
    hf.model.image_newline.data = model.image_newline.data.clone()
    return hf


def their_inputs(model, batch):
    tower, tiling = model.vision_tower, model.vision_tower.geometry.tiling
    pixels = (batch.pixel_values / 255 - tower.mean) / tower.std
    parts = pixels.split([tiling.count_tiles(size) for size in batch.image_sizes])
    return {
        "input_ids": torch.where(
            batch.input_ids == IMAGE_TOKEN_INDEX, IMAGE_TOKEN, batch.input_ids
        ),
        "attention_mask": batch.attention_mask,
        "pixel_values": torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True),
        "image_sizes": torch.tensor([[height, width] for width, height in batch.image_sizes]),
    }


def assert_same_logits(pair, rows):
    model, hf = pair
    batch = collate_padded(rows, PATCHES, IMAGE_SIZE)
    with torch.no_grad():
        theirs = hf(**their_inputs(model, batch), use_cache=False).logits
        ours = model.logits(batch)
    real = batch.attention_mask
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SIZES)
def test_logits_equal_those_of_transformers(pair, name):
    tiling = pair[0].vision_tower.geometry.tiling
    assert_same_logits(pair, [tiled_row("a", 14, SIZES[name], 5, tiling)])


def test_a_batch_of_mixed_sizes_equals_that_of_transformers(pair):
    tiling = pair[0].vision_tower.geometry.tiling
    rows = [tiled_row(n, 12 + i, sizes, 3, tiling) for i, (n, sizes) in enumerate(SIZES.items())]
    assert_same_logits(pair, rows)


def test_features_and_newline_get_the_gradients_of_transformers(pair):
    model, hf = pair
    tiling = model.vision_tower.geometry.tiling
    batch = collate_padded([tiled_row("a", 14, SIZES["two images"], 5, tiling)], 0, IMAGE_SIZE)
    model.zero_grad()
    hf.zero_grad()
    hf(**their_inputs(model, batch), labels=batch.labels, use_cache=False).loss.backward()
    result = model(batch)
    (result.loss / result.supervised).backward()
    for ours, theirs in [
        (model.image_newline, hf.model.image_newline),
        (model.projector[0].weight, hf.model.multi_modal_projector.linear_1.weight),
        (model.projector[2].bias, hf.model.multi_modal_projector.linear_2.bias),
    ]:
        assert ours.grad.abs().max() > 1e-6
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def rows_of(model):
    tiling = model.vision_tower.geometry.tiling
    rows = [tiled_row(n, 12 + i, SIZES[n], 3, tiling) for i, n in enumerate(["square", "tall"])]
    return [*rows, row("text", 9, 0, 2, 3), tiled_row("two", 15, SIZES["two images"], 4, tiling)]


def test_packed_padded_and_separate_rows_give_the_same_losses_and_gradients(clip, mistral):
    torch.manual_seed(0)
    lora = LoraSpec(r=4, alpha=8, dropout=0.0)
    model = build(clip, mistral, lora, any_resolution=True)
    torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n), std=0.1)
    rows = rows_of(model)
    batches = {
        "separate": [collate_padded([one], PATCHES, IMAGE_SIZE) for one in rows],
        "packed": [collate_packed(rows, PATCHES, IMAGE_SIZE)],
        "padded": [collate_padded(rows, PATCHES, IMAGE_SIZE)],
    }
    found = {}
    for name, parts in batches.items():
        model.zero_grad()
        loss = torch.stack([model(part).loss for part in parts]).sum()
        loss.backward()
        found[name] = {"loss": loss.detach()} | gradients(model)
    assert "image_newline" in found["separate"]
    for name in ("packed", "padded"):
        assert found[name].keys() == found["separate"].keys()
        for key, value in found[name].items():
            torch.testing.assert_close(value, found["separate"][key], atol=1e-4, rtol=1e-4)


def test_a_text_only_pack_keeps_projector_and_newline_in_the_graph(clip, mistral):
    model = build(clip, mistral, any_resolution=True)
    model(collate_packed([row("c", 9, 0, 3, 3)], PATCHES, IMAGE_SIZE)).loss.backward()
    parts = [model.image_newline, *model.projector.parameters()]
    assert all(p.grad is not None and not p.grad.any() for p in parts)


@pytest.mark.parametrize("any_resolution", [False, True])
def test_a_text_only_pack_is_finite_in_fp16_whatever_a_blank_image_gives(
    clip, mistral, any_resolution
):
    model = build(clip, mistral, any_resolution=any_resolution)
    torch.nn.init.constant_(model.projector[2].bias, 1000.0)  # 16 x 48 of them: over 65504
    batch = collate_packed([row("c", 9, 0, 3, 3)], PATCHES, IMAGE_SIZE)
    with torch.autocast("cpu", torch.float16):
        embeds = model.embed(batch)
    expected = model.language.get_input_embeddings()(batch.input_ids)
    assert torch.equal(embeds, expected)


def test_grouped_answers_are_those_of_transformers_one_by_one(pair):
    model, hf = pair
    tiling = model.vision_tower.geometry.tiling
    sizes = SIZES["two images"]
    front = tiled_row("a", 9, sizes, 0, tiling)
    batch = collate_padded([front], PATCHES, IMAGE_SIZE)
    start = batch.input_ids[0].tolist()
    prompts = [[*start, *range(5, 5 + length)] for length in (1, 4, 2)]
    together = answer_group(model, batch.pixel_values, prompts, 5, [2], image_sizes=sizes)
    assert len(set(map(tuple, together))) == 3
    for prompt, answer in zip(prompts, together, strict=True):
        batch.input_ids = torch.tensor([prompt])
        batch.attention_mask = torch.ones_like(batch.input_ids)
        inputs = their_inputs(model, batch)
        theirs = hf.generate(
            **inputs, max_new_tokens=5, do_sample=False, eos_token_id=2, pad_token_id=0
        )
        assert answer == theirs[0, len(prompt) :].tolist()


def test_newlines_by_hand():
    tiling = Tiling(((1, 2),), side=4, patches=2)
    order = reading_order([(4, 4), (8, 4)], tiling, found=6)
    expected = [0, 1, 2, 3, 5, 8, NEWLINE, 7, 10, NEWLINE]
    expected += [12, 13, 14, 15, 16, 17, 20, 21, NEWLINE, 18, 19, 22, 23, NEWLINE]
    assert order.tolist() == expected
    features = torch.arange(3.0)[:, None] + 1
    places = torch.tensor([True, False, False, True, False])
    made = insert_newlines(features, torch.tensor([9.0]), places)
    assert made[:, 0].tolist() == [9, 1, 2, 9, 3]


def test_sizes_that_do_not_fit_the_pixels_are_an_error(clip, mistral):
    model = build(clip, mistral, any_resolution=True)
    batch = collate_packed(rows_of(model), PATCHES, IMAGE_SIZE)
    batch.image_sizes = batch.image_sizes[:1]
    with pytest.raises(ValueError, match=r"1 images of the sizes \[\(70, 70\)\] take 5 tiles, but"):
        model(batch)


def test_the_newline_is_trained_and_kept_with_the_projector(clip, mistral):
    torch.manual_seed(0)
    plain = build(clip, mistral)
    torch.manual_seed(0)
    tiled = build(clip, mistral, any_resolution=True)
    parts = {name: (part, p) for part, name, p in named_parts(tiled)}
    assert parts["image_newline"][0] == "projector"
    assert tiled.image_newline.requires_grad
    assert tiled.image_newline.dtype == torch.float32
    assert tiled.image_newline.std().item() == pytest.approx(48**-0.5, rel=0.3)
    # It is drawn last, and what comes before it is as without it.
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, parts[name][1]), name
    state = {n: p for n, p in plain.named_parameters() if n.startswith("projector.")}
    assert load_checkpoint_state(tiled, state, allow_fresh=True) == ["image_newline"]
    with pytest.raises(SettingError, match=r"1 missing \(image_newline\)"):
        load_checkpoint_state(tiled, state)
    state["image_newline"] = tiled.image_newline
    with pytest.raises(
        SettingError, match=r"trained with model\.vision\.any_resolution: true; set"
    ):
        load_checkpoint_state(plain, state, allow_fresh=True)


def test_numbers_of_features_fit_whatever_the_size(clip, mistral):
    model = build(clip, mistral, any_resolution=True)
    tiling = model.vision_tower.geometry.tiling
    rng = np.random.default_rng(0)
    for size in rng.integers(1, 300, (20, 2)).tolist():
        pixels = torch.zeros(tiling.count_tiles(size), 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8)
        with torch.no_grad():
            features = model.image_features(pixels, [tuple(size)])
        assert features.shape == (PATCHES + tiling.tokens_of(size), 48)
