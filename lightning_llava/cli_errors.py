"""Errors of the command line in a few lines: where a setting stands, what is wrong, what was meant.

jsonargparse answers a mistyped key with its whole usage, and a wrong value with every branch of the
type. This looks the key that it complains of up in the files and flags that were given and in the
parser's own types. A message of a form that is not known here is passed on, shortened.
"""

import os
import re
import sys
from argparse import _SubParsersAction
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_llava.cli_inputs import (
    Given,
    KnownSettings,
    accepted,
    choices,
    config_files,
    given_settings,
)

MAX_LINES = 6
MAX_WIDTH = 300


class FriendlyParser(LightningArgumentParser):
    """Parser with short errors, for `LightningCLI(..., parser_class=FriendlyParser)`."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse, and refuse a section of a file that is no mapping.

        jsonargparse lets such a section pass, and fails on it in the middle of its own code.
        """
        parsed = super().parse_args(*args, **kwargs)
        if _root(self) is self:
            known = KnownSettings(_subparser(self))
            settings = parsed[parsed.subcommand] if "subcommand" in parsed else parsed
            for given in given_settings(self.args):
                wrong = not isinstance(settings.get(given.key, settings), Namespace)
                if given.place and wrong and known.children(given.key):
                    self.error(f'Parser key "{given.key}": Got value: {given.value}')
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong on stderr, and exit with 2."""
        # jsonargparse tries the members of a union with parsers that raise instead of exiting.
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        sys.stderr.write(explain(self, message) + "\n")
        self.exit(2)


def explain(parser: LightningArgumentParser, message: str) -> str:
    """Turn one of jsonargparse's messages into at most six lines.

    Args:
        parser: The parser that complains, of the whole command line or of a subcommand.
        message: What it says.
    """
    root, subparser = _root(parser), _subparser(parser)
    arguments: Sequence[str] = getattr(root, "args", [])
    known = KnownSettings(subparser)
    lines = (
        _subcommand(message, root)
        or _config_file(message, config_files(arguments))
        or _unrecognised(message, known)
        or _unknown_key(message, given_settings(arguments), known)
        or _wrong_value(message, given_settings(arguments), known)
        or message.strip().splitlines()
    )
    help_line = f"all settings: {subparser.prog.replace(' [options]', '')} --help"
    shown = [f"error: {lines[0]}", *lines[1 : MAX_LINES - 1], help_line]
    return "\n  ".join(line[:MAX_WIDTH] + "…" * (len(line) > MAX_WIDTH) for line in shown)


def _subcommand(message: str, root: LightningArgumentParser) -> list[str]:
    names = ", ".join(_subparsers(root))
    if found := re.search(r"invalid choice: '(.*?)' \(choose from", message):
        meant = get_close_matches(found[1], _subparsers(root), 1)
        return [f"{found[1]!r} is no subcommand, expected one of {names}", *_did_you_mean(meant)]
    if 'expected "subcommand" to be one of' in message:
        return [f"no subcommand, expected one of {names}"]
    if found := re.search(r"'(.*)' is not accepted before subcommand '(.*)'", message):
        return [f"{found[1]} is set before `{found[2]}`; put flags and --config behind it"]
    return []


def _config_file(message: str, files: list[Path]) -> list[str]:
    if message.startswith('Parser key "config"'):
        for path in files:
            if path.is_dir():
                return [f"--config {path} is a folder, expected a YAML file"]
            if not path.exists():
                stems = {
                    str(other.with_suffix("")): str(other) for other in path.parent.glob("*.y*ml")
                }
                meant = get_close_matches(str(path.with_suffix("")), stems, 1)
                suggestion = _did_you_mean([stems[stem] for stem in meant])
                return [f"--config {path} does not exist", *suggestion]
    if message.startswith(("Problems parsing config", "Unexpected config", "Key must be a string")):
        return next(([problem] for path in files if (problem := _yaml_problem(path))), [])
    return []


def _yaml_problem(path: Path) -> str | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return f"{path}{place}: not valid YAML: {error.problem}"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"{path}: not valid YAML: {error}"
    if not content:
        return f"{path} holds no settings"
    if not isinstance(content, dict):
        return f"{path} holds {content!r}, expected settings like `trainer:`"
    wrong = [key for key in content if not isinstance(key, str)]
    return f"{path}: the key {wrong[0]!r} is no text" if wrong else None


def _unrecognised(message: str, known: KnownSettings) -> list[str]:
    if not message.startswith("unrecognized arguments: "):
        return []
    words = message.removeprefix("unrecognized arguments: ").split()
    lines: list[str] = []
    for flag in (word.split("=")[0] for word in words if word.startswith("-")):
        meant = known.nearest(flag.lstrip("-").replace("-", "_"))
        lines += [f"{flag} is not a setting", *_did_you_mean(meant, "--")]
    configs = [word for word in words if word.endswith((".yaml", ".yml"))]
    return lines or [f"unexpected argument {words[0]!r}", *_did_you_mean(configs, "--config ")]


def _unknown_key(message: str, given: list[Given], known: KnownSettings) -> list[str]:
    unknown = re.search(r"(?:not accept option|Option) '(.*?)'", message)
    if not unknown:
        return []
    keys = [*re.findall(r'Parser key "(.*?)"', message), unknown[1]]
    found = [one for one in _about(keys, given) if not known.find(one.key)]
    if not found:
        return [f"{unknown[1]} is not a setting", *_did_you_mean(known.nearest(unknown[1]))]
    one = found[-1]
    # What a class behind a class_path takes is not in `known`.
    meant = [] if ".init_args." in one.key else known.nearest(one.key)
    return [f"{one.label()} is not a setting", *_did_you_mean(meant, "" if one.place else "--")]


def _wrong_value(message: str, given: list[Given], known: KnownSettings) -> list[str]:
    keys = list(dict.fromkeys(re.findall(r'Parser key "(.*?)"', message)))
    value = re.search(
        r"(?:Got value: |Given value: |Unable to load config ')(.*?)'?$", message, re.MULTILINE
    )
    found = _about(keys, given) if keys else []
    if not found or not value:
        return []
    exact = [one for one in found if one.value == value[1] or one.key == keys[0]]
    one = (exact or found)[-1]
    if "NestedArg(" in value[1] and len(keys) == 1:
        return [f"{one.label()} cannot be set alone; set {keys[0]} as a whole, or in a file"]
    pattern = known.find(one.key)
    if pattern is None:
        return []
    if children := known.children(one.key):
        return [
            f"{one.label()} is {one.value!r}, expected a mapping (or a file) with "
            f"{', '.join(children)}"
        ]
    words = accepted(known.types[pattern])
    expected = " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    reason = re.search(r"Problem with given class_path '.*':\n +(?! |Parser key)(.*)", message)
    return [
        f"{one.label()} is {one.value!r}, expected {expected}",
        *([reason[1]] if reason else []),
        *_did_you_mean(get_close_matches(one.value, choices(known.types[pattern]), 1)),
    ]


def _about(keys: list[str], given: list[Given]) -> list[Given]:
    """Pick what is set under the first of the keys and, if there are several, ends in the last."""
    under = [one for one in given if f"{one.key}.".startswith(f"{keys[0]}.")]
    return [one for one in under if len(keys) == 1 or one.key.endswith(f".{keys[-1]}")]


def _did_you_mean(meant: Sequence[str], prefix: str = "") -> list[str]:
    return [f"did you mean {prefix}{meant[0]}?"] if meant else []


def _root(parser: LightningArgumentParser) -> LightningArgumentParser:
    parent = getattr(parser, "parent_parser", None)
    return parser if parent is None else _root(parent)


def _subparsers(root: LightningArgumentParser) -> dict[str, Any]:
    actions = (action for action in root._actions if isinstance(action, _SubParsersAction))
    return next((dict(action.choices) for action in actions), {})


def _subparser(parser: LightningArgumentParser) -> LightningArgumentParser:
    """Find the parser of the subcommand that was asked for; the parser itself if there is none."""
    subparsers = _subparsers(_root(parser))
    names = [name for name in getattr(_root(parser), "args", []) if name in subparsers]
    return subparsers[names[0]] if names else parser
