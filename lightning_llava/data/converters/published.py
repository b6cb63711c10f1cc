"""Published files to records: JSON, JSON lines and parquet, of any size, and never a pickle."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from reprlib import Repr
from typing import Any, NoReturn

from lightning_llava.errors import SettingError

CHUNK = 1 << 20
"""Characters of a JSON array that are read at a time."""
ROWS_AT_ONCE = 64
"""Rows of a parquet file that are in memory at a time; they may hold images."""
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(path: Path, expected: str, drop: Collection[str] = ()) -> Any:
    """Read a whole JSON file.

    Args:
        path: The file.
        expected: Name of the published file, for errors.
        drop: Keys that are thrown away wherever they occur, while the file is parsed. What is
            published is often ten times what a reader needs.

    Raises:
        SettingError: no such file, a pickle, or not JSON.
    """
    with _opened(path, expected) as stream:
        try:
            return json.load(stream, object_hook=_without(drop))
        except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8 and long numbers
            raise SettingError(f"{path} is not JSON: {error}; expected {expected}") from error


def json_records(path: Path, expected: str) -> Iterator[Any]:
    """Read the elements of a JSON array, or JSON lines, holding one at a time.

    Raises:
        SettingError: no such file, a pickle, another kind of JSON, or broken JSON (with where).
    """
    with _opened(path, expected) as stream:
        try:
            text = stream.read(CHUNK).lstrip()
            if text.startswith("["):
                yield from _elements(stream.read, text[1:], path, expected)
                return
        except UnicodeDecodeError as error:
            raise SettingError(f"{path} is not UTF-8: {error}; expected {expected}") from error
    yield from _lines(path, expected)


def parquet_rows(path: Path, columns: Sequence[str], expected: str) -> Iterator[dict[str, Any]]:
    """Read rows of a parquet file, or of all in a folder in the order of their names.

    Args:
        path: The file or the folder.
        columns: Read these, and leave all others on the disk.
        expected: Name of the published file, for errors.

    Raises:
        SettingError: pyarrow is missing, no such file, not parquet, or other columns.
    """
    try:
        import pyarrow as arrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        message = f"reading {path} takes pyarrow: pip install 'lightning-llava[data]'"
        raise SettingError(message) from error
    for file in _parquet_files(path, expected):
        try:
            source = ParquetFile(file)
            if missing := set(columns) - set(source.schema_arrow.names):
                raise SettingError(
                    f"{file} has no column {', '.join(sorted(missing))}, but "
                    f"{', '.join(source.schema_arrow.names)}; expected {expected}"
                )
            for batch in source.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                yield from batch.to_pylist()
        except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise SettingError(f"cannot read {file}: {error}; expected {expected}") from error


def is_parquet(path: Path) -> bool:
    """Tell parquet (a file, or a folder of files) from JSON, by the name."""
    return path.is_dir() or path.suffix == ".parquet"


def entries(content: Any, key: str, path: Path, expected: str) -> list[Any]:
    """Take the list that a file holds under a key.

    Raises:
        SettingError: the file has another form.
    """
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        other_form(content, path, f"{expected}, which has a list of `{key}`")
    return found


def check_form(records: Iterable[Any], key: str, path: Path, expected: str) -> Iterator[Any]:
    """Pass records on; a file whose first hundred all lack a field is another file.

    Raises:
        SettingError: they all do.
    """
    records = iter(records)
    first = list(islice(records, 100))
    if first and not any(isinstance(record, dict) and key in record for record in first):
        raise SettingError(
            f"{path} holds records such as {_shown(first[0])}; expected {expected}, whose records "
            f"have `{key}`"
        )
    return chain(first, records)


def objects_by_key(
    content: Any, name: str, key: str, path: Path, expected: str
) -> Iterator[dict[str, Any]]:
    """Take the records of an object that names them; each gets its name as a field.

    Args:
        content: The whole file.
        name: Field for the names; a value that is no object becomes a record without others.
        key: A field of the records; a file whose first hundred all lack it is another file.
        path: The file.
        expected: Name of the published file, for errors.

    Raises:
        SettingError: the file has another form.
    """
    values = [*content.values()][:100] if isinstance(content, dict) else []
    if content != {} and not any(isinstance(value, dict) and key in value for value in values):
        other_form(content, path, f"{expected}, an object of records that have `{key}`")
    return (
        {name: each, **found} if isinstance(found, dict) else {name: each}
        for each, found in content.items()
    )


def other_form(content: Any, path: Path, expected: str) -> NoReturn:
    """Say what a file holds that is JSON, but not of the expected form.

    Raises:
        SettingError: always.
    """
    raise SettingError(f"{path} holds {_shown(content)}; expected {expected}")


def _shown(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join([*content][:5])}{', …' if len(content) > 5 else ''}"
    if isinstance(content, list):
        return f"an array of {len(content)}"
    return shortened(content)


def shortened(content: Any) -> str:
    """Write a value as Python does, long ones without their middle."""
    return _SHORT.repr(content)


def _opened(path: Path, expected: str) -> Any:
    try:
        with path.open("rb") as stream:
            head = stream.read(2)
        if head[:1] == b"\x80":
            raise SettingError(
                f"{path} is a pickle, which can run code and is never read; expected {expected}"
            )
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error}; expected {expected}") from error


def _without(keys: Collection[str]) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    def hook(found: dict[str, Any]) -> dict[str, Any]:
        for key in keys:
            found.pop(key, None)
        return found

    return hook if keys else None


def _elements(read: Callable[[int], str], text: str, path: Path, expected: str) -> Iterator[Any]:
    """Decode an array that begins before `text`, reading on where an element is incomplete."""
    decode, start, first = JSONDecoder().raw_decode, 0, True
    while True:
        try:
            at = _end_of_space(text, start)
            if text[at] == "]":
                return
            if not first:
                if text[at] != ",":
                    raise JSONDecodeError("Expecting ',' delimiter", text, at)
                at = _end_of_space(text, at + 1)
            element, end = decode(text, at)
            if text[end] not in " \t\n\r,]":  # a number that goes on in what was not yet read
                raise JSONDecodeError("Expecting ',' delimiter", text, end)
        except (IndexError, ValueError, RecursionError) as error:
            # Twice as much each time: a broken element costs one pass over the rest of the file.
            more = read(max(CHUNK, len(text) - start))
            if not more:
                shown = text[start : start + 40]
                message = (
                    f"{path} is not a whole JSON array, from {shown!r} on; expected {expected}"
                )
                raise SettingError(message) from error
            text, start = text[start:] + more, 0
            continue
        yield element
        start, first = end, False


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _lines(path: Path, expected: str) -> Iterator[Any]:
    with _opened(path, expected) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                try:
                    if line.strip():
                        yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    message = f"{path}, line {number}: {error}; expected {expected}"
                    raise SettingError(message) from error
        except UnicodeDecodeError as error:
            raise SettingError(f"{path} is not UTF-8: {error}; expected {expected}") from error


def _parquet_files(path: Path, expected: str) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise SettingError(f"{path} holds no *.parquet; expected {expected}")
    return files
