"""Load a tokenizer the right way, and tell which family it belongs to."""

from pathlib import Path

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

from lightning_llava.errors import SettingError
from lightning_llava.hub import explain_loading, resolve
from lightning_llava.specs import LanguageSpec

FAMILY_PROBES: dict[str, tuple[str, list[int]]] = {
    "llama_2": ("USER:", [3148, 1001, 29901]),
    "mistral_v1": ("USER:", [2223, 725, 28747]),
    "llama_3": ("<|begin_of_text|>", [128000]),
    "qwen_2": ("<|im_start|>", [151644]),
}
"""A text and its ids, per family of tokenizers that share their vocabulary."""


def load_tokenizer(spec: LanguageSpec) -> PreTrainedTokenizerBase:
    """Load the LLM's tokenizer.

    A folder with a bare `tokenizer.model` goes through `LlamaTokenizer(legacy=True)`:
    `AutoTokenizer` of transformers 5 drops the "▁" in front of every chunk there, and so changes
    the ids of each turn.

    Raises:
        SettingError: nothing loadable under that name, or a tokenizer without character offsets.
    """
    name = resolve(spec.name, "model.language.name")
    folder = Path(name)
    bare_sentencepiece = (folder / "tokenizer.model").is_file() and not (
        folder / "tokenizer.json"
    ).is_file()
    with explain_loading(spec.name, "model.language.name"):
        if bare_sentencepiece:
            tokenizer = LlamaTokenizer.from_pretrained(name, legacy=True)
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


def tokenizer_family(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Name the family whose golden ids this tokenizer gives, or None."""
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
