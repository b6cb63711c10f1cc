"""Tokenizers as they lie in folders and in the hub's cache, and the families they belong to."""

import json
import re
import shutil

import pytest
import transformers
from byte_level import make_tokenizer, save_byte_level
from huggingface_hub import constants
from packaging.version import Version
from transformers import AutoTokenizer

from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.tokenizer import adds_bos, load_tokenizer, special_id, tokenizer_family

LEGACY = {
    "USER:": [2223, 725, 28747],
    "\nHi": [28705, 13, 23809],
    "<s>bot\n": [1, 12435, 13],
    "a  k": [264, 28705, 446],
}
"""Ids of Mistral-7B-v0.1's slow tokenizer with `legacy: true`."""


def load(name, **settings):
    return load_tokenizer(LanguageSpec(name=str(name), **settings))


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub's cache, with one repository of the files that Vicuna and Saiga have."""

    def add(name, commit, files):
        folder = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        for file, content in files.items():
            (snapshot / file).write_bytes(content)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return add


def test_every_layout_gives_the_legacy_ids(layout):
    tokenizer = load(layout)
    assert {text: ids_of(tokenizer, text) for text in LEGACY} == LEGACY
    assert adds_bos(tokenizer)
    assert tokenizer_family(tokenizer) == "mistral_v1"


@pytest.mark.skipif(
    Version(transformers.__version__) >= Version("5.24"), reason="5.24 gives the right ids"
)
def test_transformers_by_itself_gives_other_ids(tokenizer_folder):
    """Why a bare tokenizer.model is loaded in another way, as long as 5.23 is supported."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert {text: ids_of(tokenizer, text) for text in LEGACY} != LEGACY


@pytest.mark.parametrize("model_type", ["mistral", "llama"])
def test_a_hub_repository_with_a_bare_tokenizer_model(tokenizer_folder, cache, model_type):
    model = (tokenizer_folder / "tokenizer.model").read_bytes()
    config = json.dumps({"model_type": model_type}).encode()
    commit = "0123456789" * 4
    cache("acme/lm", commit, {"tokenizer.model": model, "config.json": config})
    for revision in (None, "main", commit):
        tokenizer = load("acme/lm", revision=revision)
        assert {text: ids_of(tokenizer, text) for text in LEGACY} == LEGACY
        assert tokenizer_family(tokenizer) == "mistral_v1"


def test_a_name_that_points_nowhere_is_refused(cache):
    sentence = "model.language.name: could not load 'acme/nothing' ("
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}"):
        load("acme/nothing")


@pytest.mark.parametrize(("config", "expected"), [({}, True), ({"add_bos_token": False}, False)])
def test_a_bare_tokenizer_model_begins_with_bos_unless_told(
    tokenizer_folder, tmp_path, config, expected
):
    shutil.copy(tokenizer_folder / "tokenizer.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load(tmp_path)
    assert adds_bos(tokenizer) == expected
    assert tokenizer("USER:")["input_ids"] == [1] * expected + LEGACY["USER:"]


def test_saving_a_bare_tokenizer_model_keeps_its_ids(tokenizer_folder, tmp_path):
    load(tokenizer_folder).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert {text: ids_of(tokenizer, text) for text in LEGACY} == LEGACY


def test_families(tmp_path, byte_level):
    assert tokenizer_family(load(byte_level)) is None
    named = save_byte_level(tmp_path, tokenizer_family="llama_3")
    assert tokenizer_family(load(named)) == "llama_3"


@pytest.mark.parametrize(
    ("family", "token", "index"),
    [("llama_3", "<|begin_of_text|>", 128000), ("qwen_2", "<|im_start|>", 151644)],
)
def test_families_by_the_id_of_their_token(family, token, index):
    """Llama 3 and Qwen 2 put their special tokens behind vocabularies of their own sizes."""
    tokenizer = make_tokenizer(special=[])
    size = index - len(tokenizer)
    tokenizer.add_tokens([f"<filler {number}>" for number in range(size)])
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    assert tokenizer_family(tokenizer) == family


def test_a_special_token_is_known_as_a_whole_or_not_at_all(tokenizer_folder, byte_level):
    mistral, other = load(tokenizer_folder), load(byte_level)
    assert special_id(mistral, "</s>") == 2
    assert special_id(mistral, "<unk>") == 0
    assert special_id(mistral, "<|im_end|>") is None
    assert special_id(other, "<|im_end|>") == other.convert_tokens_to_ids("<|im_end|>")
    assert special_id(other, "<|nothing|>") is None


def test_a_tokenizer_without_character_offsets_is_refused(tmp_path):
    """transformers' byte tokenizer of ByT5 has no fast form."""
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "ByT5Tokenizer"})
    )
    sentence = (
        f"model.language.name: the tokenizer of {str(tmp_path)!r} is ByT5Tokenizer, which reports "
        "no character offsets; expected one with a tokenizer.json"
    )
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        load(tmp_path)
