"""A bare LLM converses as transformers would, and leaves what FastChat's judge reads."""

import json

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.fastchat import answer_conversations, read_conversations
from lightning_llava.evaluation.answerers.language_model import LanguageModel
from lightning_llava.evaluation.benchmarks import Question

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture
def model(demo_world):
    folder = str(demo_world / "mini_mistral")
    return LanguageModel(folder, CPU, max_new_tokens=6, template="mistral_instruct")


def alone(folder, prompt):
    """What a user of transformers would write; `prompt` has BOS."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    new = llm.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_question(model, demo_world):
    asked = Question("mine", "all", "1", "What is red?", None, None, "en", "predict")
    assert model.prompt(asked) == "<s>[INST] What is red? [/INST]"
    expected = alone(demo_world / "mini_mistral", "<s>[INST] What is red? [/INST]")
    assert model.answer(None, [asked, asked]) == [expected, expected]
    assert expected


def test_conversations(model, demo_world, tmp_path):
    file = tmp_path / "question.jsonl"
    turns = {81: ["What is red?", "Why?"], "82": ["Что это?"]}
    file.write_text(
        "".join(
            json.dumps({"question_id": i, "category": "writing", "turns": t}) + "\n"
            for i, t in turns.items()
        )
    )
    path = answer_conversations(model, read_conversations(file), tmp_path / "out", QUIET)
    assert path == tmp_path / "out" / "model_answer" / "mini_mistral.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    folder = demo_world / "mini_mistral"
    first = alone(folder, "<s>[INST] What is red? [/INST]")
    second = alone(folder, f"<s>[INST] What is red? [/INST] {first} </s>[INST] Why? [/INST]")
    assert [r["choices"] for r in records] == [
        [{"index": 0, "turns": [first, second]}],
        [{"index": 0, "turns": [alone(folder, "<s>[INST] Что это? [/INST]")]}],
    ]
    assert [r["question_id"] for r in records] == [81, "82"]
    assert {r["model_id"] for r in records} == {"mini_mistral"}
    assert len({r["answer_id"] for r in records}) == 2
    assert all(isinstance(r["tstamp"], float) for r in records)

    def never(turns):
        raise AssertionError("asked twice")

    model.say = never
    again = answer_conversations(model, read_conversations(file), tmp_path / "out", QUIET)
    for line, record in zip(again.read_text(encoding="utf-8").splitlines(), records, strict=True):
        assert json.loads(line) | {"tstamp": 0} == record | {"tstamp": 0}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question_id": 1, "text": "?"}', "line 1: expected question_id and turns"),
        ('{"question_id": 1, "turns": []}', "line 1: expected question_id and turns"),
        ("", "holds no questions"),
    ],
)
def test_other_files_are_refused(tmp_path, line, said):
    (tmp_path / "question.jsonl").write_text(f"{line}\n")
    with pytest.raises(SettingError, match=said):
        read_conversations(tmp_path / "question.jsonl")


def test_a_template_that_does_not_fit_is_named_as_it_was_given(demo_world):
    with pytest.raises(SettingError, match=r"^--prompt: no template 'nonsense'"):
        LanguageModel(str(demo_world / "mini_mistral"), CPU, template="nonsense")
