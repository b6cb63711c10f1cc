"""Questions about an image become one batch, each with the prompt it would have alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.images import ImageTransform
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import group_identical, share
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.loader import QuestionDataset
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.specs import LanguageSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder


@pytest.fixture
def dataset(clip, tokenizer_folder, tmp_path):
    def make(questions):
        vision = VisionSpec(name=str(clip))
        spec = LanguageSpec(name=str(tokenizer_folder), template="mistral_instruct")
        groups = share(group_identical(questions), 0, 1, at_once=2)
        return QuestionDataset(
            groups,
            ConversationEncoder(spec, image_tokens=16),
            ImageTransform(vision, "pad", "pillow"),
            vision_geometry(load_vision_config(vision), vision),
            short_answer=True,
            at_once=2,
        )

    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return make


def question(number, text, image: Path | None):
    return Question("pope", "random", str(number), text, image, "yes", "en")


def test_questions_about_an_image_share_its_pixels(dataset, tmp_path):
    image = tmp_path / "a.png"
    asked = [
        question(1, "Is there a dog?", image),
        question(2, "Is there a cat in the image?", image),
        question(3, "Is there a dog?", image),
        question(4, "What is two plus two?", None),
    ]
    with_image, without = (dataset(asked)[index] for index in range(2))
    assert with_image.pixel_values.shape == (1, 3, 32, 32)
    assert [[q.question_id for q in same] for same in with_image.questions] == [["1", "3"], ["2"]]
    for prompt in with_image.prompts:
        assert prompt.count(IMAGE_TOKEN_INDEX) == 16
    assert with_image.texts[0] == (
        "<s>[INST] <image>\nIs there a dog?\n"
        "Answer the question using a single word or phrase. [/INST]"
    )
    assert without.pixel_values.shape == (0, 3, 32, 32)
    assert IMAGE_TOKEN_INDEX not in without.prompts[0]
    alone = dataset([asked[1]])[0]
    assert alone.prompts == with_image.prompts[1:]
    assert with_image.at_once == 2


def test_an_image_that_cannot_be_read_names_its_question(dataset, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = dataset([question(7, "Is there a dog?", tmp_path / "broken.png")])
    with pytest.raises(SettingError, match=r"question 7 of pope: .*broken\.png"):
        broken[0]
