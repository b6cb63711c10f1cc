"""Load a tokenizer the right way, and tell which family it belongs to."""

import json
from typing import Any

from tokenizers.models import BPE
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.specs import LanguageSpec

FAMILY_PROBES: dict[str, tuple[str, list[int]]] = {
    "phi_3": ("<|user|>", [32010]),  # before llama_2, whose vocabulary it goes on from
    "llama_2": ("USER:", [3148, 1001, 29901]),
    "mistral_v1": ("USER:", [2223, 725, 28747]),
    "llama_3": ("<|begin_of_text|>", [128000]),
    "qwen_2": ("<|im_start|>", [151644]),
    "gemma_1": ("<start_of_turn>", [106]),
    "gemma_3": ("<start_of_turn>", [105]),
    "phi_4_mini": ("<|user|>", [200021]),
}
"""A text and its ids, per family of tokenizers that share their vocabulary; the first counts."""


def load_tokenizer(spec: LanguageSpec) -> PreTrainedTokenizerBase:
    """Load the LLM's tokenizer.

    A folder or repository with a bare `tokenizer.model` goes through `LlamaTokenizer(legacy=True)`:
    `AutoTokenizer` of transformers 5 drops the "▁" in front of every chunk there, and so changes
    the ids of each turn.

    Raises:
        SettingError: nothing loadable under that name, or a tokenizer without character offsets.
    """
    name = resolve(spec.name, "model.language.name")
    with explain_loading(spec.name, "model.language.name"):
        has_json = _has_file(name, "tokenizer.json", spec.revision)
        if not has_json and _has_file(name, "tokenizer.model", spec.revision):
            revision = spec.revision or "main"
            tokenizer = LlamaTokenizer.from_pretrained(name, revision=revision, legacy=True)
            _order_merges(tokenizer, str(cached_file(name, "tokenizer.model", revision=revision)))
            tokenizer.init_kwargs["legacy"] = True  # or else it would be lost when saved
            if "add_bos_token" not in tokenizer.init_kwargs:
                tokenizer.add_bos_token = True  # the default that transformers 5 has lost
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                name, revision=spec.revision, trust_remote_code=False
            )
    if not tokenizer.is_fast:
        raise SettingError(
            f"model.language.name: the tokenizer of {spec.name!r} is "
            f"{type(tokenizer).__name__}, which "
            "reports no character offsets; expected one with a tokenizer.json"
        )
    return tokenizer


def _order_merges(tokenizer: PreTrainedTokenizerBase, model_file: str) -> None:
    """Merge pieces in the order of their scores, as SentencePiece does.

    transformers takes the order of their ids. The two differ where runs of spaces come first but
    have the lowest scores (Mistral): "a  k" is "▁a", "▁", "▁k", not "▁a", "▁▁", "k".
    """
    from sentencepiece import SentencePieceProcessor  # transformers needed it a moment ago

    pieces = SentencePieceProcessor(model_file=model_file)
    scores = {pieces.id_to_piece(i): pieces.get_score(i) for i in range(pieces.get_piece_size())}
    backend: Any = tokenizer.backend_tokenizer  # a tokenizers.Tokenizer
    model = json.loads(backend.to_str())["model"]
    # Stable: ways to split one piece keep their order.
    merges = sorted(map(tuple, model["merges"]), key=lambda pair: -scores["".join(pair)])
    backend.model = BPE(model["vocab"], merges, fuse_unk=True, byte_fallback=True)


def _has_file(name: str, file: str, revision: str | None) -> bool:
    """Tell whether a folder or hub repository holds a file."""
    found = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found is not None


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the tokenizer begins every text with BOS, so that its LLM expects it."""
    ids = list(tokenizer("x")["input_ids"])  # pyright: ignore[reportArgumentType]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def swallows_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether a text's own leading space takes the place of SentencePiece's dummy prefix.

    SentencePiece itself, and with it LLaVA's slow tokenizers, writes both.
    """
    texts = ("x", " x", "  x")
    bare, one, two = (tokenizer.tokenize(text) for text in texts)
    return bare == one != two


def tokenizer_family(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Name the family whose golden ids this tokenizer gives, or that its config names, or None."""
    if declared := tokenizer.init_kwargs.get("tokenizer_family"):
        return str(declared)
    for family, (text, ids) in FAMILY_PROBES.items():
        if tokenizer(text, add_special_tokens=False)["input_ids"] == ids:
            return family
    return None


def special_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Return the id of a token that the tokenizer knows as a whole, or None."""
    index = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(index, int):
        return None
    known = index != tokenizer.unk_token_id or token == tokenizer.unk_token
    return index if known else None
