"""`tools/shards.py convert KIND …`."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.draft import REASONS
from lightning_llava.data.converters.kinds import KINDS, Kind
from lightning_llava.data.converters.run import GO_ON, convert
from lightning_llava.data.converters.summary import print_line, print_summary
from lightning_llava.data.cores import usable_cores

ALL_KINDS = (
    "Every record that is left out is named, with the reason, in OUTPUT/PREFIX.report.json. A"
    " conversion that was stopped goes on when the same command is given again; a finished one is"
    " refused."
)
LEFT_OUT = "\n".join(
    [
        "why a record (a conversation, or a question that cannot be used) is left out:",
        *(
            fill(f"  {reason:<14}{why}", 79, subsequent_indent=" " * 16)
            for reason, why in REASONS.items()
        ),
    ]
)


def add_convert_command(commands: Any) -> None:
    """Add the command, with one subcommand a kind, to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "convert",
        help="write shards from a published data set",
        description=fill(f"Write WebDataset shards from published files. {ALL_KINDS}", 79),
        epilog=f"{LEFT_OUT}\n\n"
        "python tools/shards.py convert KIND --help names the files of a kind, its options\n"
        "and an example.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(title="kinds", required=True, metavar="KIND")
    for name, kind in KINDS.items():
        one = kinds.add_parser(
            name,
            help=kind.help,
            description=fill(f"Write shards from {kind.help}. {ALL_KINDS}", 79),
            epilog=_example(name, kind),
            formatter_class=RawDescriptionHelpFormatter,
        )
        _add_sources(one, kind)
        _add_shared(one, kind)
        one.set_defaults(run=partial(run, name, kind))


def run(name: str, kind: Kind, options: Namespace) -> int:
    """Convert, and print the summary.

    Returns:
        0 when something was written, 1 when nothing was, 130 when Ctrl-C stopped it.

    Raises:
        SettingError: a wrong input.
    """
    arguments = {
        argument: getattr(options, argument)
        for argument in (*kind.files, *kind.optional, *kind.choices)
    }
    prefix = options.prefix or arguments[next(iter(kind.files))].stem
    conversion = Conversion(
        output=options.output,
        prefix=prefix,
        source=options.source or prefix,
        images=options.images if kind.images else None,
        language=options.language,
        max_samples=options.max_samples,
        drop_duplicates=options.drop_duplicates,
        max_side=None if kind.text_only else options.max_side,
        reencode=not kind.text_only and options.reencode,
        origin={"kind": name, **_origin(arguments)},
    )
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        console = Console(stderr=True)
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            shown = bar.add_task(f"Converting {prefix}", total=None)

            def progress(done: int, total: int | None) -> None:
                bar.update(shown, completed=done)
                if total is not None:
                    bar.update(shown, total=total)

            converted = convert(kind.read(**arguments), conversion, options.processes, progress)
    except KeyboardInterrupt:
        print_line(Console(stderr=True), f"stopped; {GO_ON}")
        return 130
    print_summary(converted, conversion)
    return 0 if converted.report.written else 1


def _origin(arguments: Mapping[str, Path | str | None]) -> dict[str, str]:
    return {
        name: str(value.resolve()) if isinstance(value, Path) else value
        for name, value in arguments.items()
        if value is not None
    }


def _add_sources(parser: ArgumentParser, kind: Kind) -> None:
    for name, help_text in kind.files.items():
        _add_path(parser, name, help=f"{help_text} (required)", required=True)
    for name, help_text in kind.optional.items():
        _add_path(parser, name, help=f"{help_text} (default: none)")
    for name, choice in kind.choices.items():
        values = "; ".join(f"{value}: {does}" for value, does in choice.values.items())
        help_text = f"{choice.help}. {values} (default: %(default)s)"
        _add(parser, name, choices=[*choice.values], default=choice.default, help=help_text)
    if kind.images:
        _add(
            parser,
            "images",
            type=Path,
            required=True,
            metavar="FOLDER",
            help=f"{kind.images}; nothing outside the folder is read (required)",
        )


def _example(name: str, kind: Kind) -> str:
    """Write a command, one option a line, that can be copied out of the help."""
    paths = {**kind.example, "output": "shards", "prefix": name}
    options = [f"--{option.replace('_', '-')} {path}" for option, path in paths.items()]
    return "example:\n  " + " \\\n    ".join([f"python tools/shards.py convert {name}", *options])


def _add_path(parser: ArgumentParser, name: str, **options: Any) -> None:
    _add(parser, name, type=Path, metavar="PATH", **options)


def _add(parser: ArgumentParser, name: str, **options: Any) -> None:
    parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **options)


def _add_shared(parser: ArgumentParser, kind: Kind) -> None:
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where the shards PREFIX-000000.tar, … and the report go (required)",
    )
    first = next(iter(kind.files)).replace("_", "-")
    add(
        "--prefix",
        metavar="NAME",
        help=f"start of the shards' names (default: the name of --{first} without its ending)",
    )
    add("--source", metavar="NAME", help="source that samples are marked with (default: PREFIX)")
    add(
        "--language",
        choices=("auto", "en", "ru"),
        default="auto",
        help="language of the answers; auto takes the data set's own where it has one, ru where"
        " more than half of their letters are Cyrillic, else en (default: %(default)s)",
    )
    _add_number(parser, "--max-samples", 5000, "records per shard (default: %(default)s)")
    _add_number(
        parser,
        "--processes",
        usable_cores(),
        "shards that are written at the same time; changes no byte (default: %(default)s, the cores"
        " that may be used)",
    )
    add(
        "--drop-duplicates",
        action="store_true",
        help="leave out records with the turns and images of an earlier one (default: count them)",
    )
    if not kind.text_only:
        _add_picture_options(parser)


def _add_picture_options(parser: ArgumentParser) -> None:
    _add_number(
        parser,
        "--max-side",
        None,
        "pixels; store larger images as JPEGs of this longer side (default: store the bytes as they"
        " are)",
    )
    parser.add_argument(
        "--reencode",
        action="store_true",
        help="make PNGs of BMP, GIF, PPM and TIFF images, and JPEGs of AVIF and JPEG 2000 (default:"
        " leave them out)",
    )


def _add_number(parser: ArgumentParser, flag: str, default: int | None, help_text: str) -> None:
    parser.add_argument(flag, type=int, default=default, metavar="N", help=help_text)
