import shutil

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianMTModel,
    MarianTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.loading import load_translator

SMALL = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def to_russian(marian_pair):
    return load_translator(str(marian_pair["en", "ru"]), "--to-russian", batch_size=2)


@pytest.fixture(scope="module")
def to_english(marian_pair):
    return load_translator(str(marian_pair["ru", "en"]), "--to-english")


def test_batches_of_marian_say_what_transformers_says_one_by_one(to_russian, marian_pair):
    texts = ["dog", "What color is the cat? White.", "kite", "the dog", "cat"]
    model = MarianMTModel.from_pretrained(marian_pair["en", "ru"])
    with pytest.warns(UserWarning, match="sacremoses"):
        tokenizer = MarianTokenizer.from_pretrained(marian_pair["en", "ru"])
    expected = []
    for text in texts:
        batch = tokenizer([text], return_tensors="pt")
        ids = model.generate(**batch, num_beams=4, do_sample=False, max_new_tokens=60)
        expected.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    assert expected[0] == "собака"
    assert to_russian.translate(texts, "en", "ru") == expected


def test_an_answer_is_translated_behind_its_question_and_cut_out(to_russian, to_english):
    assert to_russian.translate(["white"], "en", "ru", ["What color is the cat?"]) == ["Белый."]
    said = to_english.translate(["Белый.", "собака"], "ru", "en", ["Какого цвета кошка?", None])
    assert said == ["White.", "dog"]


def test_what_does_not_end_or_does_not_fit_is_no_translation(to_english, monkeypatch):
    never_ends = to_english.model.final_logits_bias.clone()
    never_ends[0, to_english.tokenizer.eos_token_id] = -1e4
    monkeypatch.setitem(to_english.model._buffers, "final_logits_bias", never_ends)
    assert to_english.translate(["собака"], "ru", "en") == [""]
    monkeypatch.undo()
    monkeypatch.setattr(to_english, "_positions", 3)  # not enough for "dog" and its end
    assert to_english.translate(["собака"], "ru", "en") == [""]
    monkeypatch.undo()
    monkeypatch.setattr(to_english.tokenizer, "model_max_length", 12)
    assert to_english.translate(["собака", "собака " * 20], "ru", "en") == ["dog", ""]


def test_the_other_direction_is_refused(to_english):
    with pytest.raises(SettingError, match="from ru into en, expected from en into ru"):
        to_english.translate(["dog"], "en", "ru")


def test_a_folder_is_known_by_its_content(marian_pair, tmp_path, to_russian):
    copy = shutil.copytree(marian_pair["en", "ru"], tmp_path / "en-ru")
    assert load_translator(str(copy), "--to-russian").name == to_russian.name
    assert load_translator(str(copy), "--to-russian", beams=2).name != to_russian.name
    (copy / "vocab.json").write_text(
        (copy / "vocab.json").read_text(encoding="utf-8") + "\n", encoding="utf-8"
    )
    assert load_translator(str(copy), "--to-russian").name != to_russian.name


@pytest.mark.parametrize("written", ["/nowhere/at/all", "nobody/has-this-model"])
def test_what_is_not_there_is_one_sentence_with_the_option(written):
    with pytest.raises(SettingError, match=r"^--to-russian: "):
        load_translator(written, "--to-russian")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 0}, "0 beams, 32 texts"),
        ({"device": "toaster"}, "--device toaster: Expected one"),
    ],
)
def test_settings_that_cannot_be_are_refused(marian_pair, settings, message):
    with pytest.raises(SettingError, match=message):
        load_translator(str(marian_pair["en", "ru"]), "--to-russian", **settings)


def test_weights_other_than_safetensors_are_not_loaded(marian_pair, tmp_path):
    copy = shutil.copytree(marian_pair["en", "ru"], tmp_path / "pickled")
    (copy / "model.safetensors").unlink()
    torch.save(
        MarianMTModel.from_pretrained(marian_pair["en", "ru"]).state_dict(),
        copy / "pytorch_model.bin",
    )
    with pytest.raises(SettingError, match=r"--to-russian: could not load .*safetensors"):
        load_translator(str(copy), "--to-russian")


@pytest.fixture
def spied(monkeypatch):
    """A translator, and what its model is given."""

    def load(folder):
        translator, given = load_translator(str(folder), "--to-russian"), []
        generate = translator.model.generate
        monkeypatch.setattr(
            translator.model,
            "generate",
            lambda **inputs: given.append(inputs) or generate(**inputs),
        )
        return translator, given

    return load


def test_nllb_begins_with_the_codes_of_the_languages(tmp_path, spied):
    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", "d", "o", "g"]
    tokenizer = NllbTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    config = M2M100Config(
        **SMALL, vocab_size=len(tokenizer), pad_token_id=1, eos_token_id=2, decoder_start_token_id=2
    )
    M2M100ForConditionalGeneration(config).save_pretrained(tmp_path)
    translator, given = spied(tmp_path)
    for source, target in (("en", "ru"), ("ru", "en")):
        translator.translate(["dog"], source, target)
    english, russian = tokenizer.convert_tokens_to_ids(["eng_Latn", "rus_Cyrl"])
    assert len({tokenizer.unk_token_id, english, russian}) == 3
    assert [call["input_ids"][0, 0] for call in given] == [english, russian]
    assert [call["forced_bos_token_id"] for call in given] == [russian, english]


def test_madlad_is_told_the_language_in_front_of_the_text(tmp_path, spied):
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<2ru>": 3, "<2en>": 4, "dog": 5}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(tmp_path)
    config = T5Config(
        vocab_size=6,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    translator, given = spied(tmp_path)
    translator.translate(["dog"], "en", "ru")
    assert given[0]["input_ids"].tolist() == [[3, 5]]
    assert "forced_bos_token_id" not in given[0]
