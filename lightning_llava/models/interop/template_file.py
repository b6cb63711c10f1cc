"""A conversation template that is a YAML file goes with the model; a name says all by itself."""

import shutil
from pathlib import Path

SUFFIXES = (".yaml", ".yml")


def hand_on_template(template: str, folder: Path) -> str:
    """Copy a template's file, if it is one, into a folder; return what the folder calls it."""
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
