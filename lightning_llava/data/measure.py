"""How many tokens samples take, and by which encoder that was found."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import tokenizers

from lightning_llava.data.schema import Sample
from lightning_llava.errors import SettingError
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.tokenizer import adds_bos


def measure(encoder: ConversationEncoder, sample: Sample) -> tuple[int, int, str | None]:
    """Tokenise a sample.

    Returns:
        Its length (image features included), the turns it loses, and why it is refused: then the
        length is 0.
    """
    try:
        encoded = encoder.encode(sample.turns, len(sample.images))
    except SettingError as error:
        return 0, 0, str(error)
    return encoder.length(encoded.input_ids), encoded.dropped_turns, None


def encoder_fingerprint(encoder: ConversationEncoder) -> str:
    """Hash all that the ids of a conversation depend on, our own code included."""
    backend: Any = encoder.tokenizer.backend_tokenizer  # a tokenizers.Tokenizer
    settings = {
        "template": asdict(encoder.template),
        "system": encoder.system,
        "max_length": encoder.max_length,
        "image_tokens": encoder.image_tokens,
        "special_ids": encoder.special_ids,
        "adds_bos": adds_bos(encoder.tokenizer),
        "tokenizers": tokenizers.__version__,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(backend.to_str().encode())
    for source in _code():
        digest.update(source)
    return digest.hexdigest()[:32]


def _code() -> Iterator[bytes]:
    """Read the modules that make ids: whoever changes them shall not train on old lengths."""
    for name in ("conversation", "tokenizer", "turns"):
        yield (files("lightning_llava") / "text" / f"{name}.py").read_bytes()
