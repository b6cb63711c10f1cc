"""Each family's template on a tokenizer of its kind, against the family's own chat template."""

import pytest
from byte_level import spans, written
from dialogues import turns_of
from transformers import AutoConfig

from architectures import ARCHITECTURES, TEMPLATES
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import Example, check_encoder, preflight
from lightning_llava.text.tokenizer import adds_bos, load_tokenizer, tokenizer_family

DIALOGUE = ["What color is it?", "Black", "А теперь, 5?", "Да\n\n1990", "Is it red", "Yes."]
OWN = ["llama3", "qwen2", "gemma", "gemma2", "gemma3", "phi3", "phi4_mini"]
"""Whose templates are those of the LLM itself; the others are LLaVA's, Saiga's and Qwen3's."""
ANSWERS_END = {
    "llama": "</s>",
    "mistral": "</s>",
    "saiga_mistral": "</s>",
    "llama3": "<|eot_id|>",
    "qwen2": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "gemma2": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "phi4_mini": "<|end|>",
}
STOPS = {
    "saiga_mistral": {"</s>", "<|im_end|>"},  # its generation settings name the second alone
    "llama3": {"<|eot_id|>", "<|end_of_text|>"},
    "qwen2": {"<|im_end|>", "<|endoftext|>"},
    "qwen3": {"<|im_end|>", "<|endoftext|>"},
    "gemma2": {"<end_of_turn>", "<eos>"},
    "phi3": {"<|end|>", "<|endoftext|>"},
    "phi4_mini": {"<|end|>", "<|endoftext|>"},
}


@pytest.fixture(scope="module")
def encoder(stand_in):
    def make(name, **settings):
        spec = {"template": TEMPLATES[name]} | settings
        return ConversationEncoder(LanguageSpec(name=str(stand_in(name)), **spec), 4)

    return make


def messages_of(texts, system=None):
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def own_ids(encoder, texts, system=None, **options):
    """What the tokenizer makes of its own chat template."""
    tokenizer = encoder.tokenizer
    text = tokenizer.apply_chat_template(messages_of(texts, system), tokenize=False, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_templates_pass_preflight_and_end_answers_where_generation_stops(encoder, name):
    made = encoder(name)
    check_encoder(made)
    turns = turns_of(["<image>\nWhat color is it?", "Black", "Сколько?", "Две"])
    assert preflight(made, [Example("s", "vqa", "en", turns, 1)])
    encoded = made.encode(turns, 1)
    ends = [span.split()[-1][-len(ANSWERS_END[name]) :] for span in spans(made, encoded)]
    assert ends == [ANSWERS_END[name]] * 2
    stops = {made.tokenizer.convert_ids_to_tokens(i) for i in made.stop_ids}
    assert stops >= STOPS.get(name, {ANSWERS_END[name]})


@pytest.mark.parametrize(
    ("name", "system"),
    # Gemma 1 and 2 have no system text.
    [(n, s) for n in OWN for s in (None, "Be brief.") if not (s and n in ("gemma", "gemma2"))],
)
def test_ids_are_those_of_the_familys_own_chat_template(encoder, name, system):
    made = encoder(name, system=system)
    encoded = made.encode(turns_of(DIALOGUE), 0)
    expected = own_ids(made, DIALOGUE, made.system)
    ids = encoded.input_ids.tolist()
    assert expected[: len(ids)] == ids
    assert len(expected) - len(ids) <= 1  # the line break or EOS behind the last answer
    prompt, _ = made.prompt(turns_of(DIALOGUE[:5]), 0)
    opened = own_ids(made, DIALOGUE[:5], made.system, add_generation_prompt=True)
    assert prompt.tolist() == opened


def test_qwen3_is_asked_as_its_own_template_asks_without_thinking(encoder):
    made = encoder("qwen3")
    prompt, _ = made.prompt(turns_of(DIALOGUE[:1]), 0)
    options = {"add_generation_prompt": True, "enable_thinking": False}
    assert prompt.tolist() == own_ids(made, DIALOGUE[:1], **options)
    with pytest.raises(SettingError, match=r"auto cannot .* turns of a conversation unlike one"):
        encoder("qwen3", template="auto")
    plain = encoder("qwen2")  # Qwen2.5 has no tokens for thoughts
    with pytest.raises(SettingError, match=r"'qwen3' .* lacks <think>, </think>; set"):
        encoder("qwen2", template="qwen3")
    assert plain.template.name == "qwen"


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "phi4_mini"])
def test_where_the_tokenizer_begins_without_bos_nothing_does(encoder, name):
    made = encoder(name, system="")
    assert not adds_bos(made.tokenizer)
    first = made.encode(turns_of(DIALOGUE), 0).input_ids[0]
    token = made.tokenizer.convert_ids_to_tokens(int(first))
    assert token == ("<|im_start|>" if name.startswith("qwen") else "<|user|>")


def test_llama_3_whose_padding_is_its_terminator_learns_to_stop(encoder):
    made = encoder("llama3")
    assert made.tokenizer.pad_token_id == made.tokenizer.eos_token_id
    labels = made.encode(turns_of(DIALOGUE), 0).labels
    assert (labels == made.tokenizer.eos_token_id).sum() == 3


def test_phi_3_swallows_line_breaks_and_the_template_writes_none(encoder):
    """The tokenizer's own ids of `<|user|>\\nHi` hold no line break; behind a picture one stays."""
    made = encoder("phi3")
    line_break = made.tokenizer.convert_tokens_to_ids("<0x0A>")
    assert line_break not in own_ids(made, ["Hi"])
    encoded = made.encode(turns_of(["<image>\nHi", "Yes"]), 1)
    assert encoded.input_ids.tolist().count(line_break) == 1
    text = written(made, encoded.input_ids)
    assert text == "<|user|><image>\nHi<|end|><|assistant|> Yes<|end|>"
    with pytest.raises(SettingError, match=r"auto cannot be .* swallows the white space beside it"):
        encoder("phi3", template="auto")


@pytest.mark.parametrize("name", ["mistral", "llama3", "qwen2", "gemma", "gemma3", "phi4_mini"])
def test_auto_writes_the_same_as_the_chat_template(encoder, name):
    made = encoder(name, template="auto")
    check_encoder(made)
    ids = made.encode(turns_of(DIALOGUE), 0).input_ids.tolist()
    assert own_ids(made, DIALOGUE)[: len(ids)] == ids


def test_auto_is_refused_where_there_is_no_chat_template(encoder):
    for name in ("llama", "saiga_mistral"):
        with pytest.raises(SettingError, match="the tokenizer has no chat template; set model"):
            encoder(name, template="auto")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_id_has_an_embedding(stand_in, encoder, name):
    """Most LLMs have more embeddings than tokens; none may have fewer."""
    made = encoder(name)
    embeddings = AutoConfig.from_pretrained(stand_in(name)).vocab_size
    tokens = len(made.tokenizer)
    padded = name not in ("llama", "mistral", "saiga_mistral", "llama3")
    assert (embeddings > tokens) if padded else (embeddings == tokens)
    assert tokenizer_family(load_tokenizer(LanguageSpec(name=str(stand_in(name))))) == "any"
