import pytest

from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder

IMAGE_TOKENS = 16


@pytest.fixture(scope="session")
def encoder(tokenizer_folder):
    """Every image takes 16 tokens, as many as the tiny towers give."""
    spec = LanguageSpec(name=str(tokenizer_folder), template="mistral_instruct")
    return ConversationEncoder(spec, IMAGE_TOKENS)
