"""Answers of published models are those of transformers itself, asked one by one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

import published
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.hugging_face import HuggingFaceModel
from lightning_llava.evaluation.benchmarks import Question

CPU = torch.device("cpu")
TEXTS = (
    "Is there a dog in the image?",
    "Is there a red dog in the image?",
    "Is there a cat in the image?",
    "Is it?",
    "Is there a red cat in the image?",
)
SHORT = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def questions(image, language="en"):
    return [
        Question("pope", "random", str(number), text, image, None, language)
        for number, text in enumerate(TEXTS)
    ]


def one_by_one(folder, prompts, image, tokens):
    """What a user of transformers would write."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    plain = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
    settings = GenerationConfig(
        max_new_tokens=tokens,
        **plain,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
        decoder_start_token_id=0,
    )
    answers = []
    for prompt in prompts:
        inputs = processor(images=Image.open(image), text=prompt, return_tensors="pt")
        ids = model.generate(**inputs, generation_config=settings)[0]
        new = (
            ids if model.config.text_config.is_encoder_decoder else ids[inputs.input_ids.shape[1] :]
        )
        answers.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("kind", published.KINDS)
def test_together_as_alone(published_models, kind, image):
    folder = published_models(kind)
    model = HuggingFaceModel(str(folder), CPU, max_new_tokens=6)
    asked = questions(image)
    together = model.answer(image, asked)
    assert together == [answer for one in asked for answer in model.answer(image, [one])]
    assert together == one_by_one(folder, map(model.prompt, asked), image, 6)
    assert len(set(together)) > 2, "they depend on the question"
    Image.new("RGB", (40, 30), "green").save(image)
    assert model.answer(image, asked) != together, "they depend on the picture"


@pytest.mark.parametrize(
    ("kind", "english", "russian"),
    [
        ("blip2", "Question: Is it? Short answer:", "Вопрос: Is it? Краткий ответ:"),
        ("instructblip", "Question: Is it? Short answer:", "Вопрос: Is it? Краткий ответ:"),
        (
            "llava",
            f"USER: <image>\nIs it?{SHORT} ASSISTANT:",
            "USER: <image>\nIs it?\nОтветь одним словом. ASSISTANT:",
        ),
    ],
)
def test_prompts(published_models, kind, english, russian, image):
    model = HuggingFaceModel(str(published_models(kind)), CPU)
    assert model.prompt(questions(image)[3]) == english
    assert model.prompt(questions(image, "ru")[3]) == russian


def test_a_prompt_of_ones_own(published_models, image):
    blip = HuggingFaceModel(str(published_models("blip2")), CPU, template="Q: {question} A:")
    assert blip.prompt(questions(image)[3]) == "Q: Is it? A:"
    llava = HuggingFaceModel(str(published_models("llava")), CPU, template="{question} Да?")
    assert llava.prompt(questions(image)[3]) == "USER: <image>\nIs it? Да? ASSISTANT:"


def test_long_answers_are_not_asked_for_in_a_word(published_models, image):
    asked = replace(questions(image)[3], kind="ocr")
    of = {kind: HuggingFaceModel(str(published_models(kind)), CPU) for kind in ("blip2", "llava")}
    assert of["blip2"].prompt(asked) == "Question: Is it? Answer:"
    assert of["llava"].prompt(asked) == "USER: <image>\nIs it? ASSISTANT:"


def test_a_conversation(published_models):
    llava = HuggingFaceModel(str(published_models("llava")), CPU)
    asked = replace(questions(None)[3], kind="mt_bench", history=("Who?", "Me."))
    assert llava.prompt(asked) == "USER: Who? ASSISTANT: Me. USER: Is it? ASSISTANT:"


def test_without_a_picture(published_models):
    llava = HuggingFaceModel(str(published_models("llava")), CPU, max_new_tokens=4)
    asked = questions(None)
    assert llava.prompt(asked[3]) == f"USER: Is it?{SHORT} ASSISTANT:"
    assert len(set(llava.answer(None, asked))) > 1


def test_what_changes_answers_changes_the_fingerprint(published_models, tmp_path):
    def of(**settings):
        return HuggingFaceModel(str(published_models("llava")), CPU, **settings).fingerprint

    assert of() == of(max_new_tokens=32) != of(max_new_tokens=4)
    other = published.save_llava(tmp_path / "other")
    assert HuggingFaceModel(str(other), CPU).fingerprint != of()


def test_refusals(published_models, tmp_path):
    with pytest.raises(SettingError, match=r"--prompt: 'Answer:' has no \{question\} in it"):
        HuggingFaceModel(str(published_models("blip2")), CPU, template="Answer:")
    bare = published.save_llava(tmp_path / "bare")
    for file in ("chat_template.jinja", "chat_template.json"):
        (bare / file).unlink(missing_ok=True)
    with pytest.raises(SettingError, match=r"has no chat template; .*<image>"):
        HuggingFaceModel(str(bare), CPU)
    model = HuggingFaceModel(str(published_models("instructblip")), CPU)
    with pytest.raises(SettingError, match="question 0 of pope is not about a picture"):
        model.answer(None, questions(None))


def test_weights_that_are_not_all_there_are_refused(tmp_path, image):
    folder = published.save_llava(tmp_path / "llava")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingError, match=r"--model: .* lacks 9 weights of its own architecture"):
        HuggingFaceModel(str(folder), CPU).answer(image, questions(image))
