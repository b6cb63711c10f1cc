"""Turn ledgers into statements: `python tools/report.py --help`."""

import json
import sys
from argparse import (
    SUPPRESS,
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
)
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_llava.errors import SettingError, explains_wrong_input
from lightning_llava.evaluation.compare import PERMUTATIONS, Comparison, compare
from lightning_llava.evaluation.gallery import MOST, SIDE, build_gallery
from lightning_llava.evaluation.interval_report import (
    HEADINGS,
    interval_lines,
    write_interval_report,
)
from lightning_llava.evaluation.intervals import RESAMPLES, SEED
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow, read_ledger
from lightning_llava.evaluation.measures import with_intervals
from lightning_llava.evaluation.tables import (
    PUBLISHED,
    fill_table,
    markdown_table,
    plain_table,
    rich_table,
)

CONSOLE_WIDTH = 80
"""Where the output is no terminal."""
LEDGER = "ledger.jsonl"
TITLES = {
    "table1": "Table 1: models on English questions",
    "table3": "Table 3: English, and the Russian protocol",
}


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    options = _parser().parse_args(arguments)
    options.run(options)
    return 0


def _scores(options: Namespace) -> None:
    ledgers = _ledgers(options.ledgers)
    if options.output and len(ledgers) > 1:
        raise SettingError(f"--output takes one ledger's report, {len(ledgers)} ledgers are given")
    if len({name for name, _, _ in ledgers}) < len(ledgers):
        raise SettingError("two ledgers have the same name; give each its own, NAME=LEDGER")
    bootstrap = {"resamples": options.resamples, "seed": options.seed}
    scored = {name: with_intervals(rows, **bootstrap) for name, _, rows in ledgers}
    if options.output:
        name, path, rows = ledgers[0]
        write_interval_report(options.output, rows, scored[name], {"ledger": path, **bootstrap})
    if options.json:
        _print_json({name: _plain(intervals) for name, intervals in scored.items()})
        return
    for name, intervals in scored.items():
        header, *lines = interval_lines(intervals)
        _print_lines(f"{name}, in %", header, lines, names=3)


def _compare(options: Namespace) -> None:
    (a, _, first), (b, _, second) = _ledgers([options.first, options.second], ("A", "B"))
    found = compare(
        first,
        second,
        _names(options.benchmark),
        a,
        b,
        options.resamples,
        options.permutations,
        options.seed,
    )
    if options.json:
        _print_json([asdict(comparison) for comparison in found])
        return
    for comparison in found:
        _print_comparison(comparison, a, b)


def _gallery(options: Namespace) -> None:
    ((name, _, rows),) = _ledgers([options.ledger])
    gallery = build_gallery(
        rows,
        options.title or f"Wrong answers of {name}",
        options.most,
        options.choose_seed,
        options.side,
        options.images,
    )
    write_atomically(options.output, gallery.html)
    print(f"{gallery.shown:,} of {gallery.wrong:,} wrong answers in {options.output}")
    if gallery.unreadable:
        print(
            f"{gallery.unreadable:,} of {gallery.pictures:,} pictures could not be read; --images "
            "names the folder they are in"
        )


def _table(options: Namespace) -> None:
    ledgers = [(name, rows) for name, _, rows in _ledgers(options.ledgers)]
    rows = fill_table(options.command, ledgers, resamples=options.resamples, seed=options.seed)
    if options.json:
        _print_json(plain_table(rows))
    elif options.markdown:
        print(markdown_table(rows), end="")
    else:
        _console().print(rich_table(rows, TITLES[options.command]))


def _ledgers(
    arguments: Sequence[str], names: Sequence[str] = ()
) -> list[tuple[str, Path, list[LedgerRow]]]:
    """Read `[NAME=]LEDGER`s; without a name, one of `names` or the path stands for it."""
    ledgers: list[tuple[str, Path, list[LedgerRow]]] = []
    for position, argument in enumerate(arguments):
        name, equals, file = argument.partition("=")
        if not equals or Path(argument).exists():
            name, file = "", argument
        path = Path(file)
        path = path / LEDGER if path.is_dir() else path
        if not name:
            short = path.parent if path.name == LEDGER else path
            name = names[position] if names else short.as_posix()
        ledgers.append((name, path, read_ledger(path)))
    return ledgers


def _names(arguments: Sequence[str] | None) -> dict[str, str] | None:
    if arguments is None:
        return None
    pairs = (argument.partition("=") for argument in arguments)
    return {name: other or name for name, _, other in pairs}


def _print_comparison(found: Comparison, a: str, b: str) -> None:
    console = _console()
    measure = HEADINGS.get(found.measure, found.measure)
    console.print(f"{found.benchmark}, {found.split}, {measure}", style="bold", markup=False)
    console.print(f"{a} {100 * found.a:.2f} %, {b} {100 * found.b:.2f} %", markup=False)
    console.print(found.sentence, markup=False, soft_wrap=True)
    if found.measure == "accuracy":  # the same for all measures
        console.print(
            f"right: both {found.both_right:,}, only {a} {found.only_a:,}, only {b} "
            f"{found.only_b:,}, neither {found.neither:,}",
            markup=False,
            soft_wrap=True,
        )
    console.print()


def _print_lines(
    title: str, header: Sequence[str], lines: Sequence[Sequence[str]], names: int
) -> None:
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    for position, heading in enumerate(header):
        table.add_column(heading, justify="left" if position < names else "right")
    for line in lines:
        table.add_row(*map(escape, line))
    _console().print(table)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else CONSOLE_WIDTH, highlight=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return asdict(value)


def _print_json(content: Any) -> None:
    json.dump(content, sys.stdout, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python tools/report.py",
        description="Turn ledgers (ledger.jsonl, or the folder of a run) into statements.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> Any:
        made = commands.add_parser(
            name, help=text, description=text, formatter_class=ArgumentDefaultsHelpFormatter
        )
        made.set_defaults(run=run, command=name)
        return made

    scores = command("scores", _scores, "Score ledgers, with intervals.")
    scores.add_argument("ledgers", nargs="+", metavar="[NAME=]LEDGER")
    scores.add_argument(
        "--output", type=Path, metavar="FOLDER", help="also write report.json and report.md there"
    )
    comparison = command("compare", _compare, "Say whether B is better than A.")
    comparison.add_argument("first", metavar="[NAME=]A")
    comparison.add_argument("second", metavar="[NAME=]B")
    comparison.add_argument(
        "--benchmark",
        action="append",
        metavar="NAME[=NAME_IN_B]",
        help="what to compare, once for each; None: all, which must pair by name, or by kind and "
        "splits",
    )
    comparison.add_argument("--permutations", type=_positive, default=PERMUTATIONS, help="swaps")
    _add_gallery(command("gallery", _gallery, "Show wrong answers with their pictures (HTML)."))
    for name, title in TITLES.items():
        models = ", ".join(dict.fromkeys(row.model for row in PUBLISHED[name]))
        table = command(name, _table, f"{title}, beside published numbers.")
        table.add_argument(
            "ledgers",
            nargs="*",
            default=[],
            metavar="[NAME=]LEDGER",
            help=f"one of these names puts it below the published row: {models}",
        )
        table.add_argument("--markdown", action="store_true", help="print Markdown")
        _add_common(table)
    for made in (scores, comparison):
        _add_common(made)
    return parser


def _add_gallery(gallery: ArgumentParser) -> None:
    add = gallery.add_argument
    add("ledger", metavar="[NAME=]LEDGER")
    add("--output", type=Path, required=True, default=SUPPRESS, help="the page (required)")
    add("--title", help="of the page; None: names the ledger")
    add("--most", type=_positive, default=MOST, help="wrong answers per benchmark")
    add(
        "--choose-seed",
        type=_seed,
        metavar="SEED",
        help="choose them by this seed; None: the first",
    )
    add("--side", type=_positive, default=SIDE, help="longest side of the pictures, in pixels")
    add("--images", type=Path, metavar="FOLDER", help="pictures by name; None: the ledger's paths")


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument("--resamples", type=_positive, default=RESAMPLES, help="draws of images")
    parser.add_argument("--seed", type=_seed, default=SEED, help="of draws and swaps")
    parser.add_argument("--json", action="store_true", help="print unrounded fractions as JSON")


def _positive(text: str) -> int:
    return _at_least(1, text)


def _seed(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise ArgumentTypeError(f"{text!r}, expected a whole number from {least} up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
