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
from contextlib import chdir
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
    init_args,
)
from lightning_llava.errors import SettingError

RAISED = f"{SettingError.__module__}.{SettingError.__qualname__}: "
"""How a traceback's last line begins where a SettingError ends it."""
REFUSED_BY_LIBRARIES = ("`val_check_interval`", "num_workers option")
"""How ValueErrors begin with which Lightning and torch refuse a setting once the data are there."""
MAX_LINES = 6
MAX_WIDTH = 300


class FriendlyParser(LightningArgumentParser):
    """Parser with short errors, for `LightningCLI(..., parser_class=FriendlyParser)`."""

    start = Path()
    """The folder that the command was given in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.linked: dict[str, Any] = {}

    def link_arguments(self, source: Any, target: str, *args: Any, **kwargs: Any) -> None:
        """Link, and remember it."""
        super().link_arguments(source, target, *args, **kwargs)
        self.linked[target] = source

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Parse, and refuse what jsonargparse lets pass in a file and then drops or trips over."""
        if _root(self) is not self:
            return super().parse_args(args, *rest, **kwargs)
        self.start = Path.cwd()
        self.args = sys.argv[1:] if args is None else list(args)
        in_files = [given for given in given_settings(self.args) if given.place]
        self._refuse_linked(in_files)
        self._refuse_repeated(in_files)
        try:
            parsed = super().parse_args(args, *rest, **kwargs)
        except UnicodeDecodeError as error:
            self.error("Problems parsing config", error)
        settings = parsed[parsed.subcommand] if "subcommand" in parsed else parsed
        self._refuse_plain_sections(in_files, settings)
        return parsed

    def _refuse_plain_sections(self, in_files: list[Given], settings: Namespace) -> None:
        """Jsonargparse fails on `trainer: 3` in the middle of its own code, later."""
        known = KnownSettings(_subparser(self))
        for given in in_files:
            plain = not isinstance(settings.get(given.key, settings), Namespace)
            if plain and known.children(given.key):
                self.error(f'Parser key "{given.key}": Got value: {given.value}')

    def _refuse_linked(self, in_files: list[Given]) -> None:
        """Refuse what the source of a link would overwrite without a word."""
        for given in in_files:
            for target, source in _subparser(self).linked.items():
                if f"{given.key}.".startswith(f"{target}."):
                    self.error(f"{given.label()} follows from {source}; set that instead")

    def _refuse_repeated(self, in_files: list[Given]) -> None:
        """Refuse two sections of one name in one file, of which YAML would drop the first."""
        first: dict[tuple[str, str], Given] = {}
        for given in in_files:
            file = given.place.rpartition(", line ")[0]
            if (before := first.setdefault((file, given.key), given)) is not given:
                line = before.place.rpartition(" ")[2]
                self.error(f"{given.label()} is set already in line {line}; join the two")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong on stderr, and exit with 2."""
        # jsonargparse tries the members of a union with parsers that raise instead of exiting.
        if not self.exit_on_error or "JSONARGPARSE_DEBUG" in os.environ:
            super().error(message, ex)
        # jsonargparse complains from within the folder of the file that it reads.
        with chdir(_root(self).start):
            sys.stderr.write(explain(self, message) + "\n")
        self.exit(2)


def sentence(error: Exception) -> str | None:
    """Return what a SettingError says, whichever process raised it; None for any other error.

    torch hands the error of a DataLoader's worker on with its traceback as text, and that of a
    spawned rank as an error of another class.
    """
    _, raised, said = str(error).strip().rpartition(RAISED)
    foreign = isinstance(error, ValueError) and said.startswith(REFUSED_BY_LIBRARIES)
    if not raised and not foreign and not isinstance(error, SettingError):
        return None
    return "\n  ".join(said.strip().splitlines()[:MAX_LINES])


def explain(parser: FriendlyParser, message: str) -> str:
    """Turn one of jsonargparse's messages into at most six lines.

    Args:
        parser: The parser that complains, of the whole command line or of a subcommand.
        message: What it says.
    """
    root, subparser = _root(parser), _subparser(parser)
    arguments: Sequence[str] = getattr(root, "args", [])
    known = KnownSettings(subparser)
    for target, source in subparser.linked.items():  # the user wrote the source
        message = message.replace(f'Parser key "{target}"', f'Parser key "{source}"')
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


def _subcommand(message: str, root: FriendlyParser) -> list[str]:
    names = ", ".join(_subparsers(root))
    arguments = getattr(root, "args", [])
    if (called := next((a for a in arguments if a in _subparsers(root)), None)) and (
        "invalid choice: " in message or "is not accepted before subcommand" in message
    ):
        return [f"{arguments[0]} is set before `{called}`; put flags and --config behind it"]
    if found := re.search(r"invalid choice: '(.*?)' \(choose from", message):
        meant = get_close_matches(found[1], _subparsers(root), 1)
        return [f"{found[1]!r} is no subcommand, expected one of {names}", *_did_you_mean(meant)]
    if 'expected "subcommand" to be one of' in message:
        return [f"no subcommand, expected one of {names}"]
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
    part, inside, name = one.key.rpartition(".init_args.")
    if inside:  # what the class behind a class_path takes is not in `known`
        classes = [g.value for g in given if g.key == f"{part}.class_path"]
        names = init_args(classes[-1]) if classes else []
        meant = [f"{part}{inside}{near}" for near in get_close_matches(name, names, 1)]
    else:
        meant = known.nearest(one.key)
    return [f"{one.label()} is not a setting", *_did_you_mean(meant, "" if one.place else "--")]


def _wrong_value(message: str, given: list[Given], known: KnownSettings) -> list[str]:
    keys = list(dict.fromkeys(re.findall(r'Parser key "(.*?)"', message)))
    value = re.search(
        r"(?:Got value: |Given value: |Unable to load config '|Not of type \w+: )(.*?)'?$",
        message,
        re.MULTILINE,
    )
    found = _about(keys, given) if keys else []
    if not found or not value:
        return []
    exact = [one for one in found if one.value == value[1] or one.key == keys[0]]
    one = (exact or found)[-1]
    if "NestedArg(" in value[1] and len(keys) == 1:
        one = next((flag for flag in reversed(found) if flag.key != keys[0]), one)
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


def _root(parser: FriendlyParser) -> FriendlyParser:
    parent = getattr(parser, "parent_parser", None)
    return parser if parent is None else _root(parent)


def _subparsers(root: FriendlyParser) -> dict[str, Any]:
    actions = (action for action in root._actions if isinstance(action, _SubParsersAction))
    return next((dict(action.choices) for action in actions), {})


def _subparser(parser: FriendlyParser) -> FriendlyParser:
    """Find the parser of the subcommand that was asked for; the parser itself if there is none."""
    subparsers = _subparsers(_root(parser))
    names = [name for name in getattr(_root(parser), "args", []) if name in subparsers]
    return subparsers[names[0]] if names else parser
