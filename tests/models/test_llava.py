"""The composed model against transformers' own LLaVA, and packed rows against padded ones."""

import pytest
import torch
from transformers import AutoConfig
from twin import twin_logits

from architectures import TOWERS
from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.models.activations import apply_policy
from lightning_llava.specs import LoraSpec
from tiny import IMAGE_SIZE, VOCABULARY, build, gradients, row

ROWS = [row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2), row("c", 9, 0, 1, 3), row("d", 15, 1, 2, 4)]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("images", [1, 2, 0])
def test_logits_equal_those_of_transformers(stand_in, mistral, tower, images):
    model = build(stand_in(tower), mistral)
    batch = collate_padded(
        [row("a", 14, images, 5, seed=images)], model.vision_tower.geometry.image_tokens, IMAGE_SIZE
    )
    with torch.no_grad():
        ours = model.logits(batch)
    torch.testing.assert_close(ours, twin_logits(model, batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("language", ["mistral", "llama"])
def test_packed_padded_and_separate_rows_give_the_same_losses_and_gradients(
    request, clip, language
):
    torch.manual_seed(0)
    model = build(clip, request.getfixturevalue(language), LoraSpec(r=4, alpha=8, dropout=0.0))
    torch.nn.init.normal_(next(p for n, p in model.named_parameters() if "lora_B" in n), std=0.1)
    tokens = model.vision_tower.geometry.image_tokens
    batches = {
        "packed": [collate_packed(ROWS, tokens, IMAGE_SIZE)],
        "padded": [collate_padded(ROWS, tokens, IMAGE_SIZE)],
        "separate": [collate_padded([one], tokens, IMAGE_SIZE) for one in ROWS],
    }
    losses, grads = {}, {}
    for name, parts in batches.items():
        model.zero_grad()
        results = [model(part) for part in parts]
        losses[name] = torch.stack([result.loss for result in results]).sum()
        assert sum(int(result.supervised) for result in results) == 4 + 9 + 1 + 2
        losses[name].backward()
        grads[name] = gradients(model)
    for name in ("packed", "padded"):
        torch.testing.assert_close(losses[name], losses["separate"], atol=1e-4, rtol=1e-6)
        assert grads[name].keys() == grads["separate"].keys()
        for key, value in grads[name].items():
            torch.testing.assert_close(value, grads["separate"][key], atol=1e-5, rtol=1e-4)


def test_samples_of_a_pack_do_not_see_each_other(clip, mistral):
    model = build(clip, mistral)
    tokens = model.vision_tower.geometry.image_tokens
    packed = collate_packed(ROWS, tokens, IMAGE_SIZE)
    start, end = packed.cu_seqlens[1:3].tolist()
    with torch.no_grad():
        before = model.logits(packed)
        packed.input_ids[0, end - 1] = (packed.input_ids[0, end - 1] + 1) % VOCABULARY
        after = model.logits(packed)
    changed = (before != after).any(dim=-1)[0]
    assert changed[end - 1]
    assert not changed[:start].any()
    assert not changed[end:].any()


def test_a_text_only_pack_keeps_the_projector_in_the_graph(clip, mistral):
    model = build(clip, mistral)
    batch = collate_packed(
        [row("c", 9, 0, 3, 3)], model.vision_tower.geometry.image_tokens, IMAGE_SIZE
    )
    model(batch).loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.projector.parameters())


def test_generation_with_cache_equals_step_by_step_argmax(clip, mistral):
    model = build(clip, mistral)
    tokens = model.vision_tower.geometry.image_tokens
    prompts = [row("a", 12, 1, 0, 1), row("c", 5, 0, 0, 3)]
    together = model.generate(
        collate_padded(prompts, tokens, IMAGE_SIZE, left=True),
        max_new_tokens=6,
        stop_ids=[1],
        pad_id=0,
    )
    for prompt, generated in zip(prompts, together, strict=True):
        batch = collate_padded([prompt], tokens, IMAGE_SIZE)
        for token in generated:
            with torch.no_grad():
                assert token == model.logits(batch)[0, -1].argmax()
            if token == 1:
                break
            batch.input_ids = torch.cat([batch.input_ids, torch.tensor([[token]])], dim=1)
            batch.position_ids = torch.arange(batch.input_ids.shape[1])[None]
            batch.attention_mask = torch.ones_like(batch.input_ids, dtype=torch.bool)


def test_activation_checkpointing_changes_no_loss_and_no_gradient(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8, dropout=0.0)).train()
    batch = collate_packed(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
    plain = model(batch).loss
    plain.backward()
    expected = gradients(model)
    model.zero_grad()
    apply_policy(model.language, "full")
    recomputed = model(batch).loss
    recomputed.backward()
    torch.testing.assert_close(recomputed, plain, atol=0, rtol=0)
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, expected[key], atol=1e-7, rtol=1e-6)


def test_placeholders_that_do_not_match_the_images_are_an_error(clip, mistral):
    model = build(clip, mistral)
    batch = collate_packed([row("a", 12, 1, 4, 1)], 15, IMAGE_SIZE)
    with pytest.raises(
        ValueError, match="15 image placeholders in the batch, but its images have 16 features"
    ):
        model(batch)


def test_widths_are_derived_from_the_parts(clip, siglip, mistral, llama):
    for vision, language in [(clip, mistral), (siglip, llama)]:
        model = build(vision, language)
        assert model.projector[0].in_features == 32
        assert model.projector[2].out_features == AutoConfig.from_pretrained(language).hidden_size
