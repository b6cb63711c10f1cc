"""Other libraries' way to ids, one text and one call, gives ours."""

from functools import partial

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from lightning_llava.text.portable import portable_tokenizer
from lightning_llava.text.turns import Turn
from small_tokenizers import save_gemma, save_metaspace

CONVERSATIONS = {
    "a picture": (["<image>\nHi"], 1),
    "spaces in front": (["<image>\n  Hi  k", " Black ", " \n А теперь?  "], 1),
    "no picture": (["a  k ▁x", "2", "\n\nab\n"], 0),
    "a picture later": (["a", "b", "<image>\nc"], 1),
    "two pictures": (["<image>\n<image>\nc", "d", "e"], 2),
    "a picture alone": (["<image>"], 1),
    "a picture in the middle": (["Is <image> black?"], 1),
}
SENTENCEPIECE = ["mistral_instruct", "vicuna_v1", "llama_2", "saiga_mistral"]
BYTE_LEVEL = ["llama3", "qwen", "chatml"]


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory):
    """Save and load the tokenizer of an encoder, as AutoTokenizer finds it in a folder."""
    done = {}

    def of(encoder):
        if id(encoder) not in done:
            folder = tmp_path_factory.mktemp("portable")
            portable_tokenizer(encoder).save_pretrained(folder)
            done[id(encoder)] = encoder, AutoTokenizer.from_pretrained(folder)
        return done[id(encoder)][1]

    return of


def as_text(turns):
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def as_parts(turns):
    messages = []
    for turn in turns:
        pictures = [{"type": "image"}] * turn.text.count("<image>")
        text = turn.text.replace("<image>\n", "").replace("<image>", "")
        messages.append({"role": turn.role, "content": [*pictures, {"type": "text", "text": text}]})
    return messages


def assert_same_ids(encoder, tokenizer, texts, images, system=()):
    turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
    answered = [*turns, Turn("assistant", "Black")]
    image = tokenizer.convert_tokens_to_ids("<image>")
    for said, ids, opened in (
        (turns, encoder.prompt(turns, images)[0], True),
        (answered, encoder.encode(answered, images).input_ids, False),
    ):
        expected = [image if index == -200 else index for index in ids.tolist()]
        for messages in (as_text(said), as_parts(said)):
            found = tokenizer.apply_chat_template(
                [*system, *messages], add_generation_prompt=opened
            )
            assert found["input_ids"] == expected


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", SENTENCEPIECE)
def test_ids_of_mistrals_own_tokenizer(make, reloaded, template, conversation):
    encoder = make(template)
    assert_same_ids(encoder, reloaded(encoder), *CONVERSATIONS[conversation])


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", BYTE_LEVEL)
def test_ids_of_a_byte_level_tokenizer(make, reloaded, byte_level, template, conversation):
    encoder = make(template, byte_level, allow_foreign_template=True)
    assert_same_ids(encoder, reloaded(encoder), *CONVERSATIONS[conversation])


def test_golden_ids_of_saiga(make, reloaded):
    written = reloaded(make("saiga_mistral")).apply_chat_template(
        as_text([Turn("user", "<image>\nHi")]), add_generation_prompt=True
    )["input_ids"]
    assert written[-3:] == [1, 12435, 13]
    assert " 32000 28705 13 23809 2 1 " in " ".join(map(str, written)) + " "


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2", "saiga_mistral"])
@pytest.mark.parametrize("system", ["", "Будь  краток. "])
def test_a_system_message_takes_the_place_of_the_system_text(make, reloaded, template, system):
    tokenizer = reloaded(make(template))
    for content in (system, [{"type": "text", "text": system}]):
        message = {"role": "system", "content": content}
        encoder = make(template, system=system)
        assert_same_ids(encoder, tokenizer, ["<image>\nHi", "Black", "Why?"], 1, [message])


def test_plain_takes_a_picture_and_no_question(make, reloaded):
    encoder = make("plain")
    tokenizer = reloaded(encoder)
    messages = as_parts([Turn("user", "<image>\nDescribe."), Turn("assistant", "Black")])
    ids = tokenizer.apply_chat_template(messages)["input_ids"]
    assert ids == [1, tokenizer.convert_tokens_to_ids("<image>"), 4777, 13]


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        ("mistral_instruct", [("system", "x"), ("user", "y")], "trained without a system text"),
        ("vicuna_v1", [("user", "x"), ("system", "y")], "the system text must come first"),
        ("vicuna_v1", [("assistant", "x")], "must alternate"),
        ("vicuna_v1", [("user", "x"), ("user", "y")], "must alternate"),
        ("vicuna_v1", [("user", "x"), ("assistant", "y")], "can only follow a turn of the user"),
        ("vicuna_v1", [("user", [{"type": "audio"}])], "found audio"),
        ("plain", [("user", "no picture")], "a picture is needed"),
        (
            "plain",
            [("user", "<image>"), ("assistant", "x"), ("user", "<image>")],
            "at most 1 questions",
        ),
    ],
)
def test_what_was_never_trained_is_refused(make, reloaded, template, messages, reason):
    said = [{"role": role, "content": content} for role, content in messages]
    with pytest.raises(Exception, match=reason):
        reloaded(make(template)).apply_chat_template(said, add_generation_prompt=True)


def test_what_a_user_says_stays_text_where_the_library_is_told_so(make, reloaded, byte_level):
    encoder = make("qwen", byte_level, allow_foreign_template=True)
    tokenizer, turns = reloaded(encoder), [Turn("user", "What is <|im_end|>?")]
    expected = encoder.prompt(turns, 0)[0].tolist()
    write = partial(tokenizer.apply_chat_template, as_text(turns), add_generation_prompt=True)
    assert write()["input_ids"] != expected
    assert write(sanitize_control_tokens=True)["input_ids"] == expected


def test_bos_is_written_once_and_only_by_the_template(make, reloaded, byte_level, tmp_path):
    # With a template that begins with BOS, a text of one's own gets it as before.
    vicuna = reloaded(make("vicuna_v1"))
    assert vicuna("x")["input_ids"][0] == 1
    # Without, nobody would expect one.
    assert reloaded(make("qwen", byte_level, allow_foreign_template=True)).bos_token is None
    save_metaspace(tmp_path, bos=True)
    template = tmp_path / "own.yaml"
    template.write_text('user: "Q: {content}"\nanswer: " {content}{eos}"\n')
    encoder = make(str(template), tmp_path)
    assert encoder.tokenizer("x")["input_ids"][0] == encoder.tokenizer.bos_token_id
    assert_same_ids(encoder, reloaded(encoder), ["Hi"], 0)
    assert reloaded(encoder)("x")["input_ids"][0] != encoder.tokenizer.bos_token_id


def test_tokens_that_swallow_white_space_leave_it(make, reloaded, tmp_path):
    ends = [AddedToken("<|end|>", rstrip=True, normalized=False, special=True)]
    save_metaspace(tmp_path, tuple(ends), bos=False, eos_token="<|end|>")
    template = tmp_path / "own.yaml"
    template.write_text(
        'requires: ["<|end|>"]\nuser: "{content}<|end|>\\n"\nanswer: "{content}<|end|>"\n'
    )
    encoder = make(str(template), tmp_path)
    assert_same_ids(encoder, reloaded(encoder), ["a", " b", "  c"], 0)


def test_the_program_of_a_derived_template(make, reloaded, tmp_path):
    save_gemma(tmp_path, ("<start_of_turn>", "<end_of_turn>"), chat_template=DERIVED)
    encoder = make("auto", tmp_path, system="Be brief.")
    tokenizer = reloaded(encoder)
    assert "{system}" in encoder.template.begin
    assert_same_ids(encoder, tokenizer, ["<image>\nhi", "yes", "why"], 1)
    other = [{"role": "system", "content": "Be long."}]
    said = [*other, *as_text([Turn("user", "x")])]
    options = {"tokenize": False, "add_generation_prompt": True}
    own = encoder.tokenizer.apply_chat_template(said, **options)
    assert tokenizer.apply_chat_template(said, **options) == own
    other[0]["content"] = ""
    with pytest.raises(Exception, match="cannot be left out"):
        tokenizer.apply_chat_template(said)


DERIVED = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + m.role + '\n' + m.content + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}{% endif %}"
)
