"""tools/evaluate.py measures an export as its checkpoint: the same prompts and answers."""

import pytest
import torch

import architectures
import exports
from lightning_llava.evaluation.answerers.hugging_face import HuggingFaceModel
from lightning_llava.evaluation.answerers.own import OwnCheckpoint
from lightning_llava.evaluation.benchmarks import Question


@pytest.mark.parametrize("language", ["saiga_mistral", "gemma"])
def test_the_same_answers(tmp_path, clip, language):
    (tmp_path / "llm").mkdir()
    torch.manual_seed(3)
    llm = architectures.ARCHITECTURES[language](tmp_path / "llm")
    checkpoint = exports.train(tmp_path / "run", clip, llm, architectures.TEMPLATES[language])
    folder = exports.export(checkpoint, tmp_path / "exported")
    picture = tmp_path / "picture.png"
    exports.make_picture("tall").save(picture)
    questions = [
        Question("gqa", "all", "1", "What is red?", picture, "bus", "en", "gqa"),
        Question("gqa", "all", "2", "Что это?", picture, "кот", "ru", "gqa"),
        Question("mt", "all", "3", "And?", picture, None, "en", "mt_bench", history=("A", "b")),
    ]
    device = torch.device("cpu")
    own = OwnCheckpoint(checkpoint, device, max_new_tokens=8)
    other = HuggingFaceModel(str(folder), device, max_new_tokens=8)
    assert [own.prompt(q) for q in questions] == [other.prompt(q) for q in questions]
    answers = own.answer(picture, questions)
    assert other.answer(picture, questions) == answers
    assert any(answers)
