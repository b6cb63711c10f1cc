"""Make WebDataset shards, and look after them: `python tools/shards.py --help`."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from lightning_llava.errors import explains_wrong_input


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return a command's exit code; 2 on a wrong input, 130 when Ctrl-C stopped it."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser(given).parse_args(given)
        return options.run(options)
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130


# Each command is imported when it is called: index and look bring transformers, which takes
# seconds; and a process that convert starts imports this file anew, and needs none of them.


def _add_convert(commands: Any) -> None:
    from lightning_llava.data.converters.command import add_convert_command

    add_convert_command(commands)


def _add_index(commands: Any) -> None:
    from lightning_llava.data.index_command import add_index_command

    add_index_command(commands)


def _add_look(commands: Any) -> None:
    from lightning_llava.data.look import add_look_command

    add_look_command(commands)


COMMANDS = {"convert": _add_convert, "index": _add_index, "look": _add_look}


def _parser(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog="python tools/shards.py",
        description="Make WebDataset shards, and look after them.",
        epilog="python tools/shards.py COMMAND --help explains one.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    called = arguments[0] if arguments else None
    for name in [called] if called in COMMANDS else COMMANDS:
        COMMANDS[name](commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
