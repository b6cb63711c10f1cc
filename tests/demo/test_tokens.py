import pytest
from transformers import AutoTokenizer

from lightning_llava.demo.tokens import CONTROL, train_tokenizer
from lightning_llava.demo.words import HELD_OUT_WORDS, WORDS

ALL_WORDS = [word for words in WORDS.values() for word in words]


def texts_of(spoken, split):
    made = (samples for (part, _, _), samples in spoken.items() if part == split)
    return list(
        dict.fromkeys(turn.text for some in made for sample in some for turn in sample.turns)
    )


@pytest.fixture(scope="module")
def texts(spoken):
    return texts_of(spoken, "train")


@pytest.fixture(scope="module")
def tokenizer(texts, tmp_path_factory):
    """As it is used: trained, saved and loaded."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_text_comes_back_as_it_was(tokenizer, texts, spoken):
    everything = [*texts, *texts_of(spoken, "validation")]
    encoded = tokenizer(everything, add_special_tokens=False)["input_ids"]
    assert tokenizer.batch_decode(encoded) == everything
    assert not any(tokenizer.unk_token_id in row for row in encoded)


@pytest.mark.parametrize("text", ["  two  spaces , and .", "日本 🙂\n\ttab", "Straße, naïve, ЪЁ"])
def test_text_from_outside_comes_back_too(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_special_tokens_are_where_they_are_declared(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer("yes")["input_ids"] == [1, *ids(tokenizer, "yes")]


@pytest.mark.parametrize("token", CONTROL)
def test_control_tokens_are_single(tokenizer, token):
    around = ids(tokenizer, f"a{token}b")
    assert len(around) == 3
    assert tokenizer.convert_ids_to_tokens(around[1]) == token


def test_words_are_spelt_a_token_per_letter(tokenizer):
    letter_ids = {}
    for word in ALL_WORDS:
        for before, after in (("", ""), ('"', '"'), ("«", "»"), (' is "', '".')):
            spelt = ids(tokenizer, before + word + after)
            start = len(ids(tokenizer, before))
            letters = spelt[start : start + len(word)]
            assert [tokenizer.decode(letter) for letter in letters] == list(word)
            for letter, index in zip(word, letters, strict=True):
                # The same wherever it stands.
                assert letter_ids.setdefault(letter, index) == index
    assert len(set(letter_ids.values())) == 26 + 33


def test_held_out_words_were_not_in_the_training_text(texts):
    assert not any(word in text for word in HELD_OUT_WORDS for text in texts)


def test_ordinary_words_are_not_spelt(tokenizer):
    for text in (" circle", " треугольник", " image", " изображении"):
        assert len(ids(tokenizer, text)) == 1
    # Nor are the templates' own capitals.
    assert len(ids(tokenizer, "USER:")) < 4
    assert len(ids(tokenizer, "[INST]")) < 6


def test_training_is_repeatable_and_follows_the_text(texts):
    some = texts[:500]
    first = train_tokenizer(some).backend_tokenizer.to_str()
    assert train_tokenizer(iter(some)).backend_tokenizer.to_str() == first
    assert train_tokenizer(texts[500:1000]).backend_tokenizer.to_str() != first


def test_the_vocabulary_is_used_up_below_its_limit(tokenizer):
    assert 600 < len(tokenizer) < 2000
