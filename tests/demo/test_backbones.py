import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPModel,
    CLIPVisionModel,
    LlamaForCausalLM,
    MistralForCausalLM,
)

from lightning_llava.demo import english, questions, russian
from lightning_llava.demo.backbones import BACKBONES, PRETRAINED
from lightning_llava.demo.scenes import generate
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn

DECODERS = {"mini_saiga": MistralForCausalLM, "mini_vicuna": LlamaForCausalLM}
TEXTS = ["Is there a red circle?", "Есть ли круг?", "Yes", "Нет"]


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_load_and_run(folder, name):
    model = AutoModelForCausalLM.from_pretrained(folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    assert type(model) is DECODERS[name]
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    for part in (model.config, model.generation_config):
        assert (part.bos_token_id, part.eos_token_id, part.pad_token_id) == (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
        )
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    assert logits.shape == (*batch["input_ids"].shape, len(tokenizer))
    assert logits.isfinite().all()


def test_decoders_differ_in_width_and_share_their_tokenizer(folder):
    widths = {AutoConfig.from_pretrained(folder / name).hidden_size for name in DECODERS}
    assert len(widths) == 2
    files = {(folder / name / "tokenizer.json").read_bytes() for name in DECODERS}
    assert len(files) == 1


def test_their_tokenizer_was_trained_on_the_text_of_the_world(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "mini_vicuna")
    for word in (" region", " image", " изображении", " находится"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


@pytest.fixture(scope="module")
def pictures(folder):
    files = sorted((folder / "images").iterdir())[:12]
    processor = AutoImageProcessor.from_pretrained(folder / "mini_clip")
    return processor([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]


def test_the_tower_loads_and_looks_at_pictures(folder, pictures):
    tower = CLIPVisionModel.from_pretrained(folder / "mini_clip")
    assert pictures.shape == (12, 3, 128, 128)
    with torch.no_grad():
        features = tower(pictures).last_hidden_state
    # A class token and 8 x 8 patches.
    assert features.shape == (12, 65, tower.config.hidden_size)
    assert features.isfinite().all()


def test_the_tower_finds_the_caption_of_a_picture(world, folder, pictures):
    """With transformers' CLIP and nothing of ours; guessing would find one in twelve."""
    clip = CLIPModel.from_pretrained(folder / "mini_clip")
    tokenizer = AutoTokenizer.from_pretrained(folder / "mini_clip")
    scenes = [generate(world.seed, index, "validation") for index in range(12)]
    for wording in (english, russian):
        texts = tokenizer([wording.caption(s) for s in scenes], padding=True, return_tensors="pt")
        with torch.no_grad():
            found = clip(**texts, pixel_values=pictures).logits_per_image.argmax(1)
        assert (found == torch.arange(12)).sum() >= 10


@pytest.mark.parametrize(
    ("name", "template", "wording"),
    [
        ("mini_vicuna", "vicuna_v1", english),
        ("mini_saiga", "saiga_mistral", english),
        ("mini_saiga", "saiga_mistral", russian),
    ],
)
def test_the_decoders_answer_about_scenes_in_words(world, folder, name, template, wording):
    """With transformers' `generate`, POPE's questions, held-out scenes among them."""
    encoder = ConversationEncoder(LanguageSpec(str(folder / name), template=template), 0)
    model = AutoModelForCausalLM.from_pretrained(folder / name)
    right = asked = 0
    for index in range(12):
        scene = generate(world.seed, index, "validation")
        described = wording.IN_WORDS.format(caption=wording.caption(scene))
        for question in [*questions.exists(scene, True)[:2], *questions.near_misses(scene)[:2]]:
            turns = [Turn("user", f"{described}\n{wording.ask(question)}")]
            ids = torch.from_numpy(encoder.prompt(turns, 0)[0])[None]
            with torch.no_grad():
                made = model.generate(ids, max_new_tokens=4, do_sample=False)
            answer = encoder.decode(made[0, ids.shape[1] :].tolist())
            right += answer == wording.answer(question)
            asked += 1
    assert right / asked >= 0.9


def test_copies_are_those_that_ship(folder):
    for name in BACKBONES:
        for file in (PRETRAINED / name).iterdir():
            assert (folder / name / file.name).read_bytes() == file.read_bytes()
