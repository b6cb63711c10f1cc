"""The command line's parser without the run behind it: built once, for the tests of parsing."""

import sys
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lightning_llava.cli import LlavaCLI
from lightning_llava.cli_errors import FriendlyParser

ROOT = Path(__file__).parents[1]


class ParseOnly(LlavaCLI):
    def before_instantiate_classes(self) -> None: ...

    def instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


@cache
def parser() -> FriendlyParser:
    # Lightning warns when arguments come from both sides, and pytest has some of its own.
    with patch.object(sys, "argv", ["pytest"]):
        return ParseOnly(["fit"]).parser


def parse(*arguments: str) -> dict[str, Any]:
    """Return the settings that a subcommand would run with."""
    parsed = parser().parse_args([str(argument) for argument in arguments])
    settings = parsed[parsed.subcommand].as_dict()
    del settings["config"]  # which files they come from
    return settings


def stack(*files: str | Path) -> dict[str, Any]:
    return parse("fit", *(word for file in files for word in ("-c", str(ROOT / file))))
