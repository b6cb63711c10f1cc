"""How many tokens samples take, and by which encoder that was found."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import tokenizers

from lightning_llava.data.schema import Sample
from lightning_llava.errors import SettingError
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.tokenizer import adds_bos
from lightning_llava.tiling import Size


def measure(
    encoder: ConversationEncoder, sample: Sample, images: Sequence[Size]
) -> tuple[int, int, str | None]:
    """Tokenise a sample.

    Args:
        encoder: of turns.
        sample: whose turns count.
        images: size of each of its images.

    Returns:
        Its length (image features included), the turns it loses, and why it is refused: then the
        length is 0.
    """
    try:
        encoded = encoder.encode(sample.turns, images)
    except SettingError as error:
        return 0, 0, str(error)
    return encoded.length, encoded.dropped_turns, None


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
    if encoder.tiling is not None:
        settings["tiling"] = asdict(encoder.tiling)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(backend.to_str().encode())
    for source in _code(encoder.tiling is not None):
        digest.update(source)
    return digest.hexdigest()[:32]


def _code(tiled: bool) -> Iterator[bytes]:
    """Read the modules that make ids: whoever changes them shall not train on old lengths."""
    for name in ("conversation", "tokenizer", "turns"):
        yield (files("lightning_llava") / "text" / f"{name}.py").read_bytes()
    if tiled:
        yield (files("lightning_llava") / "tiling.py").read_bytes()
