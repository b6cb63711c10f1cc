"""Copy a tokenizer as it was published: loaded and saved again it may give other ids."""

import shutil
from pathlib import Path

from lightning_llava.models.interop.source import fetch
from lightning_llava.specs import LanguageSpec

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
FILES = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
CHAT_TEMPLATE = "chat_template.jinja"


def copy_tokenizer(spec: LanguageSpec, folder: Path, chat_template: bool = True) -> None:
    """Copy the files of an LLM's tokenizer.

    Args:
        spec: whose.
        folder: where to.
        chat_template: copy that too, where it has a file of its own.
    """
    found = fetch(spec.name, spec.revision, "model.language.name", weights=False)
    for name in (*FILES, *([CHAT_TEMPLATE] if chat_template else [])):
        if (found / name).is_file():
            shutil.copyfile(found / name, folder / name)


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer's vocabulary."""
    return any((folder / name).is_file() for name in VOCABULARIES)
