"""Ids and labels against LLaVA's own way of making them, over SentencePiece itself."""

import json
import shutil

import pytest
from dialogues import ANSWERS, CAPTIONS, DIALOGUES, TEXTS, dialogues, turns_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from official import SlowTokenizer, train, train_saiga

SAMPLED = settings(deadline=None, max_examples=150)
TEMPLATES = ["vicuna_v1", "llama_2", "mistral_instruct"]
CHATML = {"<|im_end|>": 32000, "<|im_start|>": 32001}


@pytest.fixture(scope="module")
def chatml(tokenizer_folder, tmp_path_factory):
    """Mistral's tokenizer with ChatML's tokens behind its own, as the OpenOrca release has them."""
    folder = tmp_path_factory.mktemp("chatml")
    shutil.copy(tokenizer_folder / "tokenizer.model", folder)
    added = {
        str(index): {"content": token, "special": True, "normalized": False}
        | dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
        for token, index in CHATML.items()
    }
    config = {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def found(encoder, texts, images):
    encoded = encoder.encode(turns_of(texts), images)
    assert encoded.dropped_turns == 0
    return encoded.input_ids.tolist(), encoded.labels.tolist()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(("texts", "images"), DIALOGUES)
def test_dialogues_are_trained_as_llava_trains_them(make, slow, template, texts, images):
    ids, labels = train(template, texts, images > 0, slow)
    assert labels is not None, "an example that LLaVA masks shows nothing here"
    assert found(make(template), texts, images) == (ids, labels)


@pytest.mark.parametrize(("question", "caption"), CAPTIONS)
def test_captions_are_trained_as_llava_trains_them(make, slow, question, caption):
    expected = train("plain", [question, caption], True, slow)
    assert found(make("plain"), [question, caption], 1) == expected


@pytest.mark.parametrize(("texts", "images"), DIALOGUES)
def test_dialogues_in_chatml_are_trained_as_llava_trains_them(make, slow, chatml, texts, images):
    tokenizer = SlowTokenizer(chatml / "tokenizer.model", slow.special | CHATML)
    ids, labels = train("chatml", texts, images > 0, tokenizer)
    assert labels is not None
    assert found(make("chatml", chatml), texts, images) == (ids, labels)


@pytest.mark.parametrize(("texts", "images"), DIALOGUES)
def test_dialogues_are_trained_as_saiga_trains_them(make, slow, texts, images):
    expected = train_saiga(texts, images > 0, slow)
    assert found(make("saiga_mistral"), texts, images) == expected


@pytest.mark.parametrize("system", ["", "Ты — бот.", " spaces around\n"])
def test_saiga_with_another_system_text(make, slow, system):
    texts, images = DIALOGUES[-1]
    expected = train_saiga(texts, images > 0, slow, system)
    assert found(make("saiga_mistral", system=system), texts, images) == expected


@SAMPLED
@given(template=st.sampled_from(TEMPLATES), dialogue=dialogues())
def test_drawn_dialogues_are_trained_as_llava_trains_them(make, slow, template, dialogue):
    texts, images = dialogue
    # LLaVA makes special tokens of these; here users cannot write any.
    assume(not any(token in text for token in ("<s>", "</s>") for text in texts))
    ids, labels = train(template, texts, images > 0, slow)
    found_ids, found_labels = found(make(template), texts, images)
    assert found_ids == ids
    if labels is not None:  # it is where a text holds the separator that LLaVA searches for
        assert found_labels == labels


@SAMPLED
@given(dialogue=dialogues())
def test_drawn_dialogues_are_trained_as_saiga_trains_them(make, slow, dialogue):
    texts, images = dialogue
    assume(not any(token in text for token in ("<s>", "</s>") for text in texts))
    assert found(make("saiga_mistral"), texts, images) == train_saiga(texts, images > 0, slow)


@SAMPLED
@given(text=ANSWERS)
def test_a_text_gets_the_ids_of_sentencepiece_in_every_layout(make, slow, layout, text):
    encoder = make("plain", layout)
    ids = encoder.encode(turns_of(["<image>", text]), 1).input_ids.tolist()
    assert ids == [1, -200, *slow.pieces.encode(text + "\n")]


@SAMPLED
@given(text=TEXTS)
def test_a_question_gets_the_ids_of_sentencepiece_between_special_tokens(make, slow, layout, text):
    encoder = make("saiga_mistral", layout, system="")
    ids = encoder.prompt(turns_of([text]), 0)[0].tolist()
    question = slow.pieces.encode(f"user\n{text.strip()}")
    assert ids == [1, *question, 2, 1, 12435, 13]


@pytest.mark.parametrize("text", ["a  k", "x = 1\n  for i", " <n", "▁k", "    four", " "])
def test_runs_of_spaces_are_cut_as_sentencepiece_cuts_them(make, slow, layout, text):
    """transformers 5 by itself merges two spaces first: "a", "▁▁", "k"."""
    ids = make("plain", layout).encode(turns_of(["<image>", text + "."]), 1).input_ids.tolist()
    assert ids[2:] == slow.pieces.encode(text + ".\n")


def test_llava_trains_nothing_where_an_answer_holds_its_separator(make, slow):
    """The difference that is meant: such a conversation is learnt here, as plain text."""
    texts = ["What does it say?", "It says: you. ASSISTANT: hello"]
    ids, labels = train("vicuna_v1", texts, False, slow)
    assert labels is None
    found_ids, found_labels = found(make("vicuna_v1"), texts, 0)
    assert found_ids == ids
    learnt = [*slow.pieces.encode(texts[1]), 2]
    assert found_labels[-len(learnt) :] == learnt
    assert set(found_labels[: -len(learnt)]) == {-100}


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2", "mistral_instruct"])
def test_llava_trains_nothing_of_an_empty_question(slow, template):
    """Why `check` refuses it (test_conversation.py)."""
    assert train(template, ["Hi", "Hello", "", "Yes"], False, slow)[1] is None
