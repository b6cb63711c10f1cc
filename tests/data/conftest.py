import shutil
from pathlib import Path

import mistral_common
import pytest

from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder

IMAGE_TOKENS = 16


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Mistral-7B-v0.1's own SentencePiece model, as the Saiga repositories hold it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    model = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    shutil.copy(model, folder / "tokenizer.model")
    return folder


@pytest.fixture(scope="session")
def encoder(tokenizer_folder):
    """Every image takes 16 tokens, as many as the tiny towers give."""
    spec = LanguageSpec(name=str(tokenizer_folder), template="mistral_instruct")
    return ConversationEncoder(spec, IMAGE_TOKENS)
