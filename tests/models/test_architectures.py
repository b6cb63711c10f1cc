"""Every family of LLMs under CLIP: the numbers of transformers' LLaVA, packs, training, answers."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaForConditionalGeneration,
    PhiConfig,
    PhiForCausalLM,
)
from twin import twin_logits

from architectures import ARCHITECTURES, WINDOW
from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.errors import SettingError
from lightning_llava.models.build import build_llava, named_parts
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.grouped_probe import obstacle
from lightning_llava.models.language import load_language_model
from lightning_llava.models.probe import settle_attention
from lightning_llava.specs import LanguageSpec, LearningRates, LoraSpec, ProjectorSpec, VisionSpec
from tiny import IMAGE_SIZE, gradients, row

CPU = torch.device("cpu")
PATCHES = 16
ROWS = [row("a", 20, 1, 7, 1), row("b", 30, 0, 9, 2), row("c", 9, 1, 3, 3)]
CAPPED = "gemma2"


@pytest.fixture
def compose(clip, stand_in):
    """A model of a family, with the attention that a run on a CPU would settle for."""

    def make(name, lora=None, rates=None, dtype=torch.float32, **language):
        torch.manual_seed(0)
        folder = stand_in(name) if name in ARCHITECTURES else name
        model = build_llava(
            VisionSpec(name=str(clip)),
            ProjectorSpec(),
            LanguageSpec(name=str(folder), **language),
            lora,
            rates or LearningRates(projector=1e-2, lora=1e-2 if lora else None),
            base_dtype=dtype,
        )
        if dtype == torch.float32:
            settle_attention(model.language, "auto", CPU, dtype)
        return model

    return make


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_transformers(compose, name):
    model = compose(name)
    batch = collate_padded(ROWS[:1], PATCHES, IMAGE_SIZE)
    with torch.no_grad():
        ours = model.logits(batch)
    theirs = twin_logits(model, batch)
    if name == CAPPED:  # transformers' LLaVA has no place for its cap on logits
        cap = model.language.config.final_logit_softcapping
        theirs = cap * torch.tanh(theirs / cap)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours.std() > 0.1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_three_packed_steps_train_as_separate_samples_would(compose, name):
    model = compose(name, LoraSpec(r=4, alpha=8, dropout=0.0)).train()
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            nn.init.normal_(parameter, std=0.1)
    assert model._head is not None  # logits of supervised positions alone
    attention = model.language.config._attn_implementation
    assert attention == ("eager" if name == CAPPED else "segments")
    packed = collate_packed(ROWS, PATCHES, IMAGE_SIZE)
    assert max(packed.cu_seqlens.diff()) > WINDOW

    parts = [model(collate_padded([one], PATCHES, IMAGE_SIZE)).loss for one in ROWS]
    torch.stack(parts).sum().backward()
    expected = gradients(model)
    model.zero_grad()
    whole = model(packed).loss
    whole.backward()
    torch.testing.assert_close(whole, torch.stack(parts).sum(), atol=1e-4, rtol=1e-5)
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, expected[key], atol=1e-4, rtol=1e-3)
        assert value.isfinite().all()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert expected.keys() == trained

    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(4):
        result = model(packed)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item() / int(result.supervised))
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[3] > 0.1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_grouped_answers_are_those_of_separate_prompts(compose, name):
    model = compose(name)
    rows = [row("p", length, 1, 0, 5) for length in (8, 12, 17)]
    batches = [collate_padded([one], PATCHES, IMAGE_SIZE, left=True) for one in rows]
    for batch in batches[1:]:
        batch.pixel_values = batches[0].pixel_values
    assert obstacle(model, 60) is None
    asked = [batch.input_ids[0].tolist() for batch in batches]
    alone = [model.generate(batch, 6, [1], pad_id=0)[0] for batch in batches]
    assert answer_group(model, batches[0].pixel_values, asked, 6, [1]) == alone
    assert len({tuple(answer) for answer in alone}) > 1


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_gemmas_scale_of_embeddings_is_not_the_pictures(compose, name):
    """Tokens are multiplied by the root of the width; features go in as the projector gives them,
    as in transformers' LLaVA."""
    model = compose(name)
    batch = collate_padded(ROWS[:1], PATCHES, IMAGE_SIZE)
    with torch.no_grad():
        embeds = model.embed(batch)[0]
        features = model.image_features(batch.pixel_values)
    is_image = batch.input_ids[0] < 0
    table = model.language.get_input_embeddings().weight
    tokens = table[batch.input_ids[0][~is_image]] * table.shape[1] ** 0.5
    torch.testing.assert_close(embeds[~is_image], tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embeds[is_image], features, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["qwen3", "gemma", "phi4_mini"])
def test_tied_embeddings_stay_tied_when_the_whole_llm_trains(compose, name):
    rates = LearningRates(projector=1e-3, lora=None, language=1e-3)
    model = compose(name, rates=rates, dtype=torch.bfloat16).train()
    head, table = (
        model.language.get_output_embeddings().weight,
        model.language.get_input_embeddings().weight,
    )
    assert head is table
    assert table.dtype == torch.float32
    before = table.detach().clone()
    names = [n for n, p in model.named_parameters() if p is table]
    assert len(names) == 1  # the optimizer gets it once
    model(collate_packed(ROWS, PATCHES, IMAGE_SIZE)).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert (table != before).any()
    assert model.language.get_output_embeddings().weight is table


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_adapters_cover_the_layers_and_leave_head_and_embeddings(compose, name):
    model = compose(name, LoraSpec(r=2, alpha=4))
    adapted = {n for n, m in model.language.named_modules() if isinstance(m, LoraLayer)}
    fused = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    split = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert {n.rpartition(".")[2] for n in adapted} == set(
        fused if name.startswith("phi") else split
    )
    assert all(n.startswith("model.layers.") for n in adapted)
    assert not isinstance(model.language.get_output_embeddings(), LoraLayer)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("name", ["qwen3", "llama3", "gemma2", "gemma3", "phi3"])
def test_in_4_and_8_bits_tower_projector_and_head_stay_whole(compose, name, kind):
    model = compose(
        name, LoraSpec(r=2, alpha=4, dropout=0.0), dtype=torch.bfloat16, quantization=kind
    ).train()
    packed_type = {"nf4": torch.uint8, "int8": torch.int8}[kind]
    rounded = set()
    for part, parameter_name, parameter in named_parts(model):
        if parameter.dtype == packed_type:
            rounded.add(parameter_name)
        else:
            kept = torch.float32 if part in ("projector", "lora") else torch.bfloat16
            assert parameter.dtype == kept, parameter_name
    adapted = {n for n, m in model.language.named_modules() if isinstance(m, LoraLayer)}
    assert rounded == {f"language.{n}.base_layer.weight" for n in adapted}
    assert type(model.language.get_output_embeddings()) is nn.Linear
    with torch.autocast("cpu", torch.bfloat16):
        model(collate_packed(ROWS, PATCHES, IMAGE_SIZE)).loss.backward()
    assert all(value.isfinite().all() for value in gradients(model).values())


@pytest.mark.parametrize("kind", [None, "nf4"])
def test_of_a_gemma_3_that_sees_the_text_half_is_taken(compose, tmp_path, kind):
    """From 4B on, Gemma 3 is published with a tower of its own."""
    torch.manual_seed(1)
    text = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 128,
        "initializer_range": 0.1,
        "sliding_window": WINDOW,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    ).eval()
    whole.save_pretrained(tmp_path)
    model = compose(tmp_path, LoraSpec(r=2, alpha=4), quantization=kind)
    assert type(model.language).__name__ == "Gemma3ForCausalLM"
    assert not any("vision" in n for n, _ in model.language.named_modules())
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        found, expected = model.language(input_ids=ids).logits, whole(input_ids=ids).logits
    if kind is None:
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        load_language_model(LanguageSpec(name=str(tmp_path)), torch.float32).save_pretrained(
            tmp_path / "alone"
        )
        alone = load_language_model(LanguageSpec(name=str(tmp_path / "alone")), torch.float32)
        torch.testing.assert_close(alone(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
    else:
        assert (found - expected).abs().max() > 1e-3
        assert found.isfinite().all()


def test_so_it_is_of_a_published_llava(published_models):
    folder = published_models("llava")
    whole = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    language = load_language_model(LanguageSpec(name=str(folder)), torch.float32).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        found, expected = language(input_ids=ids).logits, whole(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_samples_beyond_which_rotations_change_are_refused(compose, stand_in):
    """One long sample would turn all others of its pack, too."""
    folder = stand_in("phi4_mini")
    message = (
        r"^model\.language\.max_length is 2049, but the rotations of .* \(longrope\) change beyond "
        r"2048 tokens, .* set model\.language\.max_length: 2048 or less$"
    )
    with pytest.raises(SettingError, match=message):
        load_language_model(LanguageSpec(name=str(folder), max_length=2049), torch.float32)
    model = compose("phi4_mini")  # as they would: a pack with such a sample changes its others
    long, short = row("long", 2049, 0, 3, 1), row("short", 12, 0, 3, 2)
    with torch.no_grad():
        together = model.logits(collate_packed([short, long], PATCHES, IMAGE_SIZE))[0, :12]
        apart = model.logits(collate_packed([short], PATCHES, IMAGE_SIZE))[0]
    assert (together - apart).abs().max() > 1e-3


def test_old_phi_with_a_bias_on_its_head_composes_too(compose, tmp_path):
    config = PhiConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=130,
        initializer_range=0.1,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop"), 0.0),
    )
    language = PhiForCausalLM(config)
    nn.init.normal_(language.lm_head.bias)
    language.save_pretrained(tmp_path)
    model = compose(tmp_path, LoraSpec(r=2, alpha=4, dropout=0.0))
    packed = collate_packed(ROWS, PATCHES, IMAGE_SIZE)
    with torch.no_grad():
        parts = [model(collate_padded([one], PATCHES, IMAGE_SIZE)).loss for one in ROWS]
        torch.testing.assert_close(model(packed).loss, sum(parts), atol=1e-4, rtol=1e-5)
        ids = torch.arange(3, 40)[None]
        expected = language.eval()(input_ids=ids).logits
        torch.testing.assert_close(
            model.language(input_ids=ids).logits, expected, atol=1e-5, rtol=0
        )
