"""JSON lines in and out: errors that name file and line, and writes that are whole or absent."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError


def read_json_lines(path: Path, setting: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of every line that is not blank.

    Args:
        path: a UTF-8 file with one JSON object per line.
        setting: the key or argument that names the file, for the error.

    Raises:
        SettingError: the file does not exist, or a line is not a JSON object.
    """
    if not path.is_file():
        raise SettingError(
            f"{setting}: the file {str(path)!r} does not exist; give an existing JSON-lines file"
        )
    # Bytes, because text mode would also break lines at a lone carriage return.
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise SettingError(
                    f"{path}, line {number}: not JSON ({error}); expected one JSON object per "
                    f"line; mend the file or change {setting}"
                ) from error
            if not isinstance(record, dict):
                raise SettingError(
                    f"{path}, line {number}: a JSON {type(record).__name__}, expected one JSON "
                    f"object per line; mend the file or change {setting}"
                )
            yield number, record


def write_atomically(path: Path, text: str) -> None:
    """Write a UTF-8 file such that readers, also after a kill, see the old or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
