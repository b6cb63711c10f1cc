"""Which templates there are, what their files may hold, and which tokenizers they accept."""

import json
import re
from dataclasses import fields

import pytest
import yaml
from byte_level import save_byte_level
from dialogues import turns_of

from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.template import Template, load_template, template_names

NAMES = [
    *("chatml", "gemma", "llama3", "llama_2", "mistral_instruct", "phi3", "plain"),
    *("qwen", "qwen3", "saiga_mistral", "vicuna_v1"),
]
BUILT_IN = ", ".join(NAMES)


def refused(sentence, name, **settings):
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        ConversationEncoder(LanguageSpec(name=str(name), **settings), 4)


def unfit(template, families, name, found, means=False):
    choice = ", or model.language.allow_foreign_template: true if you mean it" if means else ""
    return (
        f"model.language.template: {template!r} was written for {families} tokenizers, but the "
        f"tokenizer of {str(name)!r} {found}; set model.language.template to the template of this "
        f"LLM (built in: {BUILT_IN}), to auto for its own chat template, or to a YAML file{choice}"
    )


def test_the_built_in_templates():
    assert template_names() == NAMES
    for name in NAMES:
        assert load_template(name).name == name


def test_an_unknown_template_is_refused(tokenizer_folder):
    sentence = (
        "model.language.template: no template 'vicuna'; expected one of "
        f"{BUILT_IN}, auto, or the path of a YAML file like those"
    )
    refused(sentence, tokenizer_folder, template="vicuna")


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"user": "{content}"}, ["user"]),
        ({"answer": "{content}"}, ["answer"]),
        (
            {"user": "{content}", "answer": "{content}", "asistant_prefix": "A"},
            ["answer", "asistant_prefix", "user"],
        ),
        (None, []),
        ("user", []),
        (["user", "answer"], []),
    ],
)
def test_a_file_with_other_keys_is_refused(tmp_path, content, keys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    known = sorted(field.name for field in fields(Template))
    sentence = (
        f"model.language.template: {str(path)!r} has the keys {keys}; expected user and answer, "
        f"and nothing beyond {known}"
    )
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        load_template(str(path))


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text('user: "{content}\nanswer: x')
    sentence = f"model.language.template: {str(path)!r} is no YAML: "
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}.*line 2"):
        load_template(str(path))


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    with pytest.raises(SettingError, match=re.escape(f"no template {str(path)!r}; expected one")):
        load_template(str(path))


def test_a_template_of_ones_own(make, tmp_path):
    path = tmp_path / "brief.yaml"
    content = {
        "begin": "{bos}",
        "system": "Be brief.",
        "system_turn": "{system}\n",
        "user": "Q: {content}\n",
        "assistant_prefix": "A:\n",
        "answer": "{content}{eos}",
        "between": "\n",
        "strip": ["user"],
    }
    path.write_text(yaml.safe_dump(content))
    encoder = make(str(path), allow_foreign_template=False)
    _, text = encoder.prompt(turns_of([" <image> What? ", " Black ", " And?"]), 1)
    assert text == "<s>Be brief.\nQ: <image>\nWhat?\nA:\n Black </s>\nQ: And?\nA:\n"


def test_a_template_for_another_vocabulary_is_refused(tokenizer_folder):
    found = "is of the family mistral_v1"
    sentence = unfit("vicuna_v1", "llama_2", tokenizer_folder, found, means=True)
    refused(sentence, tokenizer_folder, template="vicuna_v1")


def test_a_template_is_refused_where_the_tokenizer_is_unknown(tmp_path):
    """It has <s> and </s>, as most have; that says nothing."""
    folder = save_byte_level(tmp_path)
    found = "is of another, unknown family"
    sentence = unfit("vicuna_v1", "llama_2", folder, found, means=True)
    refused(sentence, folder, template="vicuna_v1")


def test_a_foreign_template_is_accepted_where_it_is_meant(tokenizer_folder):
    spec = LanguageSpec(
        name=str(tokenizer_folder), template="vicuna_v1", allow_foreign_template=True
    )
    assert ConversationEncoder(spec, 4).template.name == "vicuna_v1"


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2", "mistral_instruct", "saiga_mistral"])
def test_a_tokenizer_that_is_made_for_all_templates_takes_them(tmp_path, template):
    folder = save_byte_level(tmp_path, tokenizer_family="any", bos_token="<s>", eos_token="</s>")
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_family"] == "any"
    spec = LanguageSpec(name=str(folder), template=template)
    assert ConversationEncoder(spec, 4).template.name == template


@pytest.mark.parametrize("template", ["llama3", "qwen", "qwen3", "gemma", "phi3"])
def test_telling_tokens_are_enough_where_the_tokenizer_is_unknown(byte_level, template):
    """Only Llama 3's relatives have its header tokens, only ChatML's its turns, and so on."""
    spec = LanguageSpec(name=str(byte_level), template=template)
    assert ConversationEncoder(spec, 4).template.name == template


@pytest.mark.parametrize("allowed", [True, False])
def test_a_token_that_the_tokenizer_lacks_is_refused_in_any_case(tokenizer_folder, allowed):
    found = "lacks <|im_start|>, <|im_end|>"
    sentence = unfit("chatml", "other", tokenizer_folder, found)
    settings = {"template": "chatml", "allow_foreign_template": allowed}
    refused(sentence, tokenizer_folder, **settings)


def test_a_tokenizer_without_eos_is_refused(tmp_path):
    folder = save_byte_level(tmp_path, bos_token="<s>", eos_token=None)
    sentence = unfit("saiga_mistral", "mistral_v1", folder, "lacks an EOS token")
    refused(sentence, folder, template="saiga_mistral", allow_foreign_template=True)


@pytest.mark.parametrize(
    ("template", "stops"),
    [
        ("llama3", ["<|end_of_text|>", "<|eot_id|>"]),
        ("chatml", ["<|end_of_text|>", "<|im_end|>"]),
        ("qwen", ["<|end_of_text|>", "<|im_end|>"]),
        ("qwen3", ["<|end_of_text|>", "<|im_end|>"]),
        ("gemma", ["<|end_of_text|>", "<end_of_turn>"]),
        ("phi3", ["<|end_of_text|>", "<|end|>"]),
    ],
)
def test_where_generation_stops(make, byte_level, template, stops):
    encoder = make(template, byte_level)
    assert [encoder.tokenizer.convert_ids_to_tokens(i) for i in encoder.stop_ids] == stops
