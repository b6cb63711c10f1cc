"""Read the files of benchmarks and of answers, whatever published form they have."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import read_json_lines


def read_json(path: Path, option: str) -> Any:
    """Read a whole JSON file.

    Raises:
        SettingError: the file does not exist or is not JSON.
    """
    check_exists(path, option)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{option}: {path} is not JSON ({error}); mend the file") from error


def read_records(path: Path, option: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) of a JSON array of objects, or of JSON lines.

    Raises:
        SettingError: the file is neither.
    """
    check_exists(path, option)
    with path.open("rb") as handle:
        is_array = next((line.lstrip()[:1] == b"[" for line in handle if line.strip()), False)
    if not is_array:
        for number, record in read_json_lines(path, option):
            yield f"{path}, line {number}", record
        return
    for number, record in enumerate(read_json(path, option)):
        where = f"{path}, entry {number}"
        if not isinstance(record, dict):
            raise SettingError(f"{where}: {record!r:.60}, expected an object; mend the file")
        yield where, record


def check_exists(path: Path, option: str) -> None:
    """Refuse what is not a file.

    Raises:
        SettingError: names the option.
    """
    if not path.is_file():
        raise SettingError(f"{option}: the file {str(path)!r} does not exist")


def text(record: dict[str, Any], key: str, where: str) -> str:
    """Return a text, which may be empty.

    Raises:
        SettingError: it is missing or no text.
    """
    value = record.get(key)
    if not isinstance(value, str):
        found = f"{key} is {value!r:.60}" if key in record else f"no {key!r} among {list(record)}"
        raise SettingError(f"{where}: {found}, expected a text; mend the file")
    return value


def identifier(record: dict[str, Any], key: str, where: str) -> str:
    """Return an id as text: published files write the same ids as numbers and as texts.

    Raises:
        SettingError: it is missing, or neither.
    """
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        found = f"{key} is {value!r:.60}" if key in record else f"no {key!r} among {list(record)}"
        raise SettingError(f"{where}: {found}, expected a number or a text; mend the file")
    return str(value)
