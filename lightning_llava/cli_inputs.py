"""What the user set, by flags and files, and what a parser takes: both as dotted keys."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser

from lightning_llava.ranges import (
    ClosedUnitInterval,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)

PLAIN_TYPES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    PositiveInt: "a whole number from 1 up",
    NonNegativeInt: "a whole number from 0 up",
    NonNegativeFloat: "a number from 0 up",
    ClosedUnitInterval: "a number from 0 to 1",
}


@dataclass(frozen=True)
class Given:
    """A setting as the user wrote it."""

    key: str
    value: str
    """As written, without the quotes of a text."""
    place: str = ""
    """File and line; empty for a flag."""

    def label(self) -> str:
        """Name it the way the user wrote it."""
        return f"{self.place}: {self.key}" if self.place else f"--{self.key}"


class KnownSettings:
    """The settings that a parser takes, inside optional parts, dictionaries and lists too.

    `types` maps dotted keys to types, and a section's key to None. Keys below dictionaries and
    lists have `*` where the user chooses the name.
    """

    def __init__(self, parser: ArgumentParser) -> None:
        self.types: dict[str, Any] = {}
        for action in parser._actions:
            if action.option_strings and not action.dest.endswith(".help"):
                hint = getattr(action, "_typehint", None)
                self.types |= {action.dest: hint} | _nested(action.dest, hint)

    def find(self, key: str) -> str | None:
        """Find the key as `types` has it."""
        parts = key.split(".")
        return next((known for known in self.types if _fill(known, parts) == key), None)

    def children(self, key: str) -> list[str]:
        """Name what a section holds; nothing if the key is no section."""
        if self.types.get(key, key) is not None:
            return []
        start = f"{key}."
        below = (known.removeprefix(start) for known in self.types if known.startswith(start))
        return list(dict.fromkeys(name.split(".")[0] for name in below))

    def nearest(self, key: str) -> list[str]:
        """Find the key that was probably meant, if any.

        That is the same last part elsewhere (`max_steps`: `trainer.max_steps`), else the most
        similar spelling.
        """
        parts = key.split(".")
        filled = [_fill(known, parts) for known in self.types]
        same_leaf = [known for known in filled if known.split(".")[-1] == parts[-1]]
        cutoff = 0.5 if len(parts) > 1 else 0.0
        return get_close_matches(key, same_leaf, 1, cutoff) or get_close_matches(key, filled, 1)


def given_settings(arguments: Sequence[str]) -> list[Given]:
    """List what flags and `--config` files set, in their order, sections included."""
    given: list[Given] = []
    for flag, value in _flags(arguments):
        if flag in ("config", "c"):
            given += _read_config(Path(value))
        elif (node := _compose(value)) is not None:
            given += _flatten(flag, node, value)
        else:
            given.append(Given(flag, value))
    return given


def config_files(arguments: Sequence[str]) -> list[Path]:
    """List the `--config` files."""
    return [Path(value) for flag, value in _flags(arguments) if flag in ("config", "c")]


def accepted(hint: Any) -> list[str]:
    """Say in words what a type takes, one entry per alternative."""
    if get_origin(hint) in (Union, UnionType):
        words = [word for member in get_args(hint) for word in accepted(member)]
        return list(dict.fromkeys(words))
    if get_origin(hint) is Literal:
        return choices(hint)
    if is_dataclass(hint):
        return [f"a mapping with {', '.join(field.name for field in fields(hint))}"]
    if get_origin(hint) is dict:
        return [f"a mapping from names to {accepted(get_args(hint)[1])[0]}"]
    if isinstance(hint, type) and get_origin(hint) is None:
        return [PLAIN_TYPES.get(hint, f"a class_path of {hint.__name__}")]
    return [re.sub(r"\b\w+\.", "", str(hint))]


def choices(hint: Any) -> list[str]:
    """List the values that a type takes by name."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return [value for member in get_args(hint) for value in choices(member)]
    return []


def init_args(class_path: str) -> list[str]:
    """List what a class takes, given its full path; nothing if there is no such class."""
    module, _, name = class_path.rpartition(".")
    try:
        return list(signature(getattr(import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, TypeError):
        return []


def _nested(prefix: str, hint: Any) -> dict[str, Any]:
    if is_dataclass(hint) and isinstance(hint, type):
        types: dict[str, Any] = {}
        for name, member in get_type_hints(hint).items():
            types |= {f"{prefix}.{name}": member} | _nested(f"{prefix}.{name}", member)
        return types
    members = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return {key: found for member in members for key, found in _nested(prefix, member).items()}
    if get_origin(hint) in (dict, list) and members:
        return _nested(f"{prefix}.*", members[-1])
    return {}


def _fill(known: str, parts: list[str]) -> str:
    """Put the user's own names in the place of `*`."""
    pieces = known.split(".")
    own = parts + pieces[len(parts) :]
    pairs = zip(pieces, own, strict=False)
    return ".".join(mine if piece == "*" else piece for piece, mine in pairs)


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument.startswith("--") or argument == "-c":
            flag, equals, value = argument.lstrip("-").partition("=")
            yield flag.removesuffix("+"), value if equals else following


def _read_config(path: Path) -> list[Given]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    node = _compose(text)
    return [] if node is None else _flatten("", node, text, str(path))


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def _flatten(key: str, node: yaml.Node, text: str, path: str = "") -> list[Given]:
    """List a node and all below it; the items of a list are named 0, 1, …."""
    raw = text[node.start_mark.index : node.end_mark.index]
    value = node.value if isinstance(node, yaml.ScalarNode) else " ".join(raw.split())
    place = path and f"{path}, line {node.start_mark.line + 1}"
    given = [Given(key, value, place)] if key else []
    children: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(str(name.value).removesuffix("+"), child) for name, child in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(number), child) for number, child in enumerate(node.value)]
    for name, child in children:
        given += _flatten(f"{key}.{name}" if key else name, child, text, path)
    return given
