"""A bare LLM converses as transformers would, also over two turns."""

import json

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.answer_file import AnswerFile
from lightning_llava.evaluation.answerers.language_model import LanguageModel
from lightning_llava.evaluation.benchmarks import Question, load_benchmarks
from lightning_llava.evaluation.benchmarks.submission import write_submissions
from lightning_llava.evaluation.run import evaluate
from lightning_llava.specs import BenchmarkSpec

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture
def model(demo_world):
    folder = str(demo_world / "mini_saiga")
    return LanguageModel(folder, CPU, max_new_tokens=6, template="mistral_instruct")


def alone(folder, prompt):
    """What a user of transformers would write; `prompt` has BOS."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    new = llm.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_question(model, demo_world):
    text = "How many objects are in the image?"
    asked = Question("mine", "all", "1", text, None, None, "en", "gqa")
    prompt = f"<s>[INST] {text}\nAnswer the question using a single word or phrase. [/INST]"
    assert model.prompt(asked) == prompt
    expected = alone(demo_world / "mini_saiga", prompt)
    assert model.answer(None, [asked, asked]) == [expected, expected]
    assert expected


def test_two_turns_for_the_judge(model, demo_world, tmp_path):
    file = tmp_path / "question.jsonl"
    records = [{"question_id": 81, "category": "writing", "turns": ["What is red?", "Why?"]}]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    specs = {"mt": BenchmarkSpec(kind="mt_bench", files={"all": str(file)})}
    questions, folder = load_benchmarks(specs, True, 0), demo_world / "mini_saiga"
    outcome = evaluate(questions, model, tmp_path / "out", {}, QUIET)
    assert (outcome.asked, outcome.kept) == (2, 0)
    first = alone(folder, "<s>[INST] What is red? [/INST]")
    second = alone(folder, f"<s>[INST] What is red? [/INST] {first} </s>[INST] Why? [/INST]")
    (path,) = write_submissions(tmp_path / "out", outcome.rows, specs)
    judged = json.loads(path.read_text(encoding="utf-8"))
    assert judged["question_id"] == 81
    assert judged["choices"] == [{"index": 0, "turns": [first, second]}]
    model.answer = None
    again = evaluate(questions, model, tmp_path / "out", {}, QUIET)
    assert (again.asked, again.kept, again.rows) == (0, 2, outcome.rows)
    # The ledger holds both turns, and stands for the model.
    given = evaluate(questions, AnswerFile(tmp_path / "out/ledger.jsonl"), tmp_path, {}, QUIET)
    assert given.rows == outcome.rows


def test_a_template_that_does_not_fit_is_named_as_it_was_given(demo_world):
    with pytest.raises(SettingError, match=r"^--prompt: no template 'nonsense'"):
        LanguageModel(str(demo_world / "mini_saiga"), CPU, template="nonsense")
