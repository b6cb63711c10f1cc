"""A conversation template that is a YAML file goes with the model; a name says all by itself."""

import shutil
from dataclasses import asdict
from pathlib import Path

import yaml

from lightning_llava.text.template import Template

SUFFIXES = (".yaml", ".yml")
DERIVED = "conversation.yaml"


def hand_on_template(template: str, folder: Path, derived: Template | None = None) -> str:
    """Copy a template's file, if it is one, into a folder; return what the folder calls it.

    Args:
        template: as `model.language.template` names it.
        folder: where to.
        derived: what `auto` was read as, where the tokenizer's own chat template stays behind.
    """
    if template == "auto" and derived is not None:
        content = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(derived).items()
            if key != "name"
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (folder / DERIVED).write_text(text, encoding="utf-8")
        return DERIVED
    if not template.endswith(SUFFIXES):
        return template
    file = Path(template).expanduser()
    folder.mkdir(exist_ok=True)
    shutil.copyfile(file, folder / file.name)
    return file.name


def find_template(named: str | None, folder: Path) -> str:
    """Return a template as the settings of this project take it; "" where none is named."""
    named = named or ""
    return str((folder / Path(named).name).absolute()) if named.endswith(SUFFIXES) else named
