import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_llava.demo.backbones import write_backbones
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.loading import load_translator

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A language model that gets a chat template."""
    folder = tmp_path_factory.mktemp("llm")
    write_backbones(folder)
    return folder / "mini_saiga"


@pytest.fixture
def chat(llm, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llm)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(llm).save_pretrained(tmp_path)
    return load_translator(str(tmp_path), "--to-russian", batch_size=2)


def test_a_chat_model_is_asked_by_its_template(chat, monkeypatch):
    asked = []

    def generate(input_ids, attention_mask, **settings):
        assert settings["do_sample"] is False
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            asked.append(chat.tokenizer.decode(ids[mask.bool()]))
        said = chat.tokenizer(" кошка")["input_ids"][-1:]
        ends = [[*said, chat.tokenizer.eos_token_id], [*said, *said]][: len(input_ids)]
        return torch.cat([input_ids, torch.tensor(ends)], dim=1)

    monkeypatch.setattr(chat.model, "generate", generate)
    said = chat.translate(["dog", "a cat", "red"], "en", "ru", [None, None, "What color?"])
    word = chat.tokenizer.decode(chat.tokenizer(" кошка")["input_ids"][-1:]).strip()
    assert said == [word, "", word]  # the second never ended
    assert len(asked) == 3
    assert asked[0].endswith("nothing else.\n\ndog\nassistant:")
    assert "from English into Russian" in asked[1]
    assert "What color?\nred" in asked[2]


def test_it_says_what_it_says_one_by_one(chat):
    texts = ["dog", "собака и кошка", "the text"]
    apart = [said for text in texts for said in chat.translate([text], "en", "ru")]
    assert chat.translate(texts, "en", "ru") == apart


def test_a_language_model_without_a_chat_template_is_no_translator(llm, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llm)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(llm).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"--to-russian: .* has no chat template"):
        load_translator(str(tmp_path), "--to-russian")
