import json
from functools import cache

import pytest
from byte_level import save_byte_level
from official import SlowTokenizer

from lightning_llava.specs import LanguageSpec
from lightning_llava.text import conversation
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def slow(tokenizer_folder):
    """The same SentencePiece model, as LLaVA's tokenizer uses it."""
    return SlowTokenizer(tokenizer_folder / "tokenizer.model", {"<s>": 1, "</s>": 2})


@pytest.fixture(scope="session")
def make(tokenizer_folder):
    """Make an encoder, once per setting; of Mistral's tokenizer where no folder is given."""

    @cache
    def of(template, name=None, image_tokens=4, **settings):
        settings.setdefault("allow_foreign_template", name is None)
        spec = LanguageSpec(name=str(name or tokenizer_folder), template=template, **settings)
        with pytest.MonkeyPatch.context() as patch:
            # Loading takes longer than all that is shown with an encoder; none changes its
            # tokenizer.
            patch.setattr(conversation, "load_tokenizer", lambda spec: load(spec.name))
            return ConversationEncoder(spec, image_tokens)

    @cache
    def load(name):
        return load_tokenizer(LanguageSpec(name=name))

    return of


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory):
    """A byte-level BPE made here, with the special tokens of Llama 3, ChatML and Gemma."""
    return save_byte_level(tmp_path_factory.mktemp("byte_level"))


LAYOUTS = ["tokenizer.model", "saved again", "normalizer", "tokenizer.json"]


@pytest.fixture(scope="session", params=LAYOUTS)
def layout(request, tokenizer_folder, make, tmp_path_factory, shared_data):
    """Mistral's tokenizer in the ways in which it lies in folders."""
    if request.param == "tokenizer.model":
        return tokenizer_folder
    if request.param == "tokenizer.json":
        (folder,) = shared_data("mistral_v1")
        return folder
    folder = tmp_path_factory.mktemp("saved_again")
    make("mistral_instruct").tokenizer.save_pretrained(folder)
    if request.param == "normalizer":
        rewrite_as_normalizer(folder)
    return folder


def rewrite_as_normalizer(folder):
    """Write the prefix as transformers 4's converter did, for a class that leaves it so."""
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = {"type": "Sequence", "normalizers": [prepend, replace]}
    changes = {
        "tokenizer.json": {"normalizer": steps, "pre_tokenizer": None},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
    }
    for name, values in changes.items():
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(content | values), encoding="utf-8")
