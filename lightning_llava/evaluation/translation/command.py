"""The command line of `tools/translate.py`."""

from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_llava.evaluation.translation.loading import BATCH_SIZE, BEAMS, NONE, ORACLE
from lightning_llava.evaluation.translation.tasks import (
    bring_answers_back,
    count_lexicon,
    measure_ceiling,
    put_questions_into_russian,
)

TO_RUSSIAN = "Helsinki-NLP/opus-mt-en-ru"
TO_ENGLISH = "Helsinki-NLP/opus-mt-ru-en"
CACHE = "translations.jsonl"


class Defaults(ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: Any) -> str | None:
        is_plain = action.default in (None, False) or action.required
        return action.help if is_plain else super()._get_help_string(action)


def run(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Raises:
        SettingError: a wrong input.
    """
    options = parser().parse_args(arguments)
    return options.run(options)


def parser() -> ArgumentParser:
    """Build the argument parser."""
    parser = ArgumentParser(
        prog="python tools/translate.py",
        description="The Russian protocol: ask a benchmark in Russian, score the answers in "
        "English. Everything works from files, and never asks the measured model again.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_questions(commands)
    _add_answers(commands)
    _add_ceiling(commands)
    _add_lexicon_command(commands)
    return parser


def _command(commands: Any, name: str, what: str, run: Any) -> ArgumentParser:
    one = commands.add_parser(name, help=what, description=what, formatter_class=Defaults)
    one.set_defaults(run=run)
    return one


def _add_questions(commands: Any) -> None:
    what = "questions into Russian, in the published form; labels stay"
    one = _command(commands, "questions", what, put_questions_into_russian)
    one.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="published questions (POPE, VQAv2, GQA, TextVQA), or a ledger of POPE",
    )
    one.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="gets a file of the same name per FILE; `source` keeps the English (required)",
    )
    add_reviewed(one)
    one.add_argument(
        "--keep-failed",
        action="store_true",
        help="write questions whose translation fails its checks, too, marked with `problem`, "
        "instead of listing them in FOLDER/failed.tsv and ending with 2",
    )
    _add_work(one, to_english=False)


def _add_answers(commands: Any) -> None:
    what = "answers of a ledger back into English, scored by route beside the MT ceiling"
    one = _command(commands, "answers", what, bring_answers_back)
    one.add_argument("ledger", type=Path, metavar="LEDGER", help="of a run in Russian")
    one.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="ledger with `english` and `route` filled, and judged again (required)",
    )
    one.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="one English answer per line; also score answers put to the most alike of these",
    )
    add_measuring(one)
    _add_output(one)
    _add_work(one, to_english=True)


def _add_ceiling(commands: Any) -> None:
    what = "what right answers score after the way into Russian and back, without a model's answers"
    one = _command(commands, "ceiling", what, measure_ceiling)
    one.add_argument(
        "ledger", type=Path, metavar="LEDGER", help="of a run in either language; gives the labels"
    )
    add_reviewed(one)
    add_lexicon(one)
    _add_output(one)
    _add_work(one, to_english=True)


def _add_lexicon_command(commands: Any) -> None:
    what = "count Russian → English answers on a training split in both languages"
    one = _command(commands, "lexicon", what, count_lexicon)
    for name, how in {
        "english": "questions and answers as published, or VQAv2's annotations",
        "russian": "the same question ids with Russian answers; GQA-ru's parquet, too",
        "output": "the lexicon, JSON",
    }.items():
        one.add_argument(
            f"--{name}", required=True, type=Path, metavar="FILE", help=f"{how} (required)"
        )


def add_reviewed(one: Any) -> None:
    """Add the option that `read_reviewed` reads."""
    one.add_argument(
        "--reviewed",
        type=Path,
        metavar="FILE",
        help="english<TAB>russian questions, before translation (default: POPE's, which are"
        " built in)",
    )


def add_measuring(one: Any) -> None:
    """Add the options that decide what is measured on answers."""
    one.add_argument(
        "--without-ceiling",
        action="store_true",
        help="leave out the MT ceiling, to save time (default: measure it)",
    )
    add_lexicon(one)


def add_lexicon(one: Any) -> None:
    """Add the options that `read_asked_lexicon` reads."""
    one.add_argument(
        "--lexicon",
        type=Path,
        metavar="FILE",
        help="what `lexicon` wrote (default: none, a step less)",
    )
    one.add_argument(
        "--without-lemmas",
        action="store_true",
        help="find only the forms that the lexicon has; otherwise pymorphy3 must be installed"
        " (default: by lemmas)",
    )


def _add_output(one: ArgumentParser) -> None:
    one.add_argument("--report", type=Path, metavar="FILE", help="also write all numbers as JSON")
    one.add_argument("--json", action="store_true", help="print all numbers, instead of tables")


def add_translators(one: Any, to_english: bool = True) -> None:
    """Add the options that `Directions` reads, but for `--batch-size` and `--device`.

    Args:
        one: of any command that translates.
        to_english: whether it translates into English, too.
    """
    what = (
        "folder or hub name, @REVISION behind it or not, of a sequence-to-sequence or chat model; "
        f"a .tsv or .json file of translations; {NONE}; or {ORACLE}, to try the protocol out"
    )
    one.add_argument("--to-russian", default=TO_RUSSIAN, metavar="MODEL", help=what)
    if to_english:
        one.add_argument("--to-english", default=TO_ENGLISH, metavar="MODEL", help="likewise")
    one.add_argument(
        "--cache",
        type=Path,
        default=Path(CACHE),
        metavar="FILE",
        help="keeps every translation, of all models",
    )
    one.add_argument("--beams", type=int, default=BEAMS, help="of a sequence-to-sequence model")


def _add_work(one: ArgumentParser, to_english: bool) -> None:
    add_translators(one, to_english=to_english)
    one.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="texts at once")
    one.add_argument("--device", default="auto", help="cpu, cuda, …; auto takes a GPU if any")
