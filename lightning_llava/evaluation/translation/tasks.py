"""What the commands of `tools/translate.py` do."""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.kinds import IN_ENGLISH
from lightning_llava.evaluation.ledger import LedgerRow, read_ledger, write_ledger
from lightning_llava.evaluation.translation.answers import AnswerChain, is_translated
from lightning_llava.evaluation.translation.ceiling import ceiling, question_ceiling
from lightning_llava.evaluation.translation.directions import Directions, progress_bar
from lightning_llava.evaluation.translation.lexicon import (
    Lexicon,
    build_lexicon,
    read_lexicon,
    write_lexicon,
)
from lightning_llava.evaluation.translation.protocol import RussianProtocol
from lightning_llava.evaluation.translation.question_file import QuestionFile, question_files
from lightning_llava.evaluation.translation.questions import (
    Rendered,
    Reviewed,
    describe_failures,
    render,
)
from lightning_llava.evaluation.translation.report import (
    Answered,
    report,
    route_table,
    score_table,
)
from lightning_llava.evaluation.translation.snap import read_vocabulary
from lightning_llava.evaluation.translation.translator import read_table

FAILED = "failed.tsv"
_OF_ANSWERS = ("score", "routes", "problems", "language")
"""What a report says about a model's answers, which the ceiling alone has none of."""
Numbers = dict[str, Any]


def put_questions_into_russian(options: Namespace) -> int:
    """Translate files of questions, or none of them where a translation fails its checks."""
    files = [file for path in options.files for file in question_files(path)]
    texts = list(dict.fromkeys(text for file in files for text in file.texts()))
    with progress_bar() as bar:
        to_russian = Directions(options, bar).to_russian
        russian = dict(zip(texts, render(texts, to_russian, read_reviewed(options)), strict=True))
    failed = {text: found for text, found in russian.items() if found.problem}
    if failed and not options.keep_failed:
        _refuse_failed(failed, options)
    for file in files:
        _write(file, russian, options)
    reviewed = sum(found.is_reviewed for found in russian.values())
    _say(
        f"{sum(len(file.records) for file in files):,} questions, {len(texts):,} different: "
        f"{reviewed:,} reviewed, {len(texts) - reviewed:,} translated, {len(failed):,} of these "
        "failed the checks"
    )
    return 0


def _write(file: QuestionFile, russian: Mapping[str, Rendered], options: Namespace) -> None:
    path = options.output / file.path.name
    if path.exists() and file.path.exists() and path.samefile(file.path):
        raise SettingError(f"--output: would write over {file.path}; name another folder")
    file.translate(russian)
    file.write(path)


def _refuse_failed(failed: Mapping[str, Rendered], options: Namespace) -> None:
    lines = [f"# {found.problem}\n{text}\t{found.text}\n" for text, found in failed.items()]
    write_atomically(options.output / FAILED, "".join(lines))
    raise SettingError(
        f"{describe_failures(failed)}; all are in {options.output / FAILED}, for --reviewed once "
        "they are mended; or add --keep-failed"
    )


def bring_answers_back(options: Namespace) -> int:
    """Write a ledger with English answers, and print what they score."""
    ledger = read_ledger(options.ledger)
    if not any(map(is_translated, ledger)):
        raise SettingError(
            f"{options.ledger}: no row was asked in Russian and is scored in English; expected a "
            f"ledger of {', '.join(sorted(IN_ENGLISH))} with language ru"
        )
    vocabulary = read_vocabulary(options.vocabulary) if options.vocabulary else None
    with progress_bar() as bar:
        directions = Directions(options, bar)
        protocol = RussianProtocol(
            directions.to_russian,
            directions.to_english,
            lexicon=read_asked_lexicon(options),
            vocabulary=vocabulary,
            with_ceiling=not options.without_ceiling,
        )
        write_ledger(options.output, protocol.after(ledger))
    _print(protocol.splits, protocol.questions, options)
    return 0


def measure_ceiling(options: Namespace) -> int:
    """Print what right answers score after the way there and back."""
    rows = [row for row in read_ledger(options.ledger) if row.kind in IN_ENGLISH and row.label]
    if not rows:
        raise SettingError(
            f"{options.ledger}: no row of {', '.join(sorted(IN_ENGLISH))} with a label; nothing to "
            "measure"
        )
    with progress_bar() as bar:
        directions = Directions(options, bar)
        reviewed = read_reviewed(options)
        rows = _asked_in_russian(rows, directions, reviewed)
        lexicon = read_asked_lexicon(options)
        if lexicon:
            lexicon.check_unseen(rows)
        top = ceiling(rows, directions.to_russian, AnswerChain(directions.to_english, lexicon))
        questions = question_ceiling(
            reviewed.not_found(rows), directions.to_russian, directions.to_english
        )
    splits = {
        name: {key: value for key, value in numbers.items() if key not in _OF_ANSWERS}
        for name, numbers in report(Answered(top.rows, top.brought), top).items()
    }
    _print(splits, questions, options)
    return 0


def count_lexicon(options: Namespace) -> int:
    """Write a lexicon."""
    lexicon = build_lexicon(options.english, options.russian)
    write_lexicon(lexicon, options.output)
    used = sum(lexicon.find(russian) is not None for russian in lexicon.counts)
    _say(
        f"{len(lexicon.counts):,} different Russian answers, {used:,} with an English one that "
        f"stands out: {options.output}"
    )
    return 0


def read_reviewed(options: Namespace) -> Reviewed:
    """Read the reviewed questions that are named; those that are built in come after them."""
    return Reviewed(read_table(options.reviewed, "--reviewed") if options.reviewed else None)


def read_asked_lexicon(options: Namespace) -> Lexicon | None:
    """Read the lexicon that is named, if one is."""
    if options.lexicon is None:
        return None
    return read_lexicon(options.lexicon, lemmas=not options.without_lemmas)


def _asked_in_russian(
    rows: Sequence[LedgerRow], directions: Directions, reviewed: Reviewed
) -> list[LedgerRow]:
    """Ask in Russian what was asked in English; without a usable translation, ask nothing."""
    texts = list(dict.fromkeys(row.question for row in rows if row.language == "en"))
    rendered = render(texts, directions.to_russian, reviewed)
    russian = {
        text: "" if found.problem else found.text
        for text, found in zip(texts, rendered, strict=True)
    }
    return [
        replace(row, question=russian[row.question], source=row.question, language="ru")
        if row.language == "en"
        else row
        for row in rows
    ]


def _print(splits: Numbers, questions: Numbers, options: Namespace) -> None:
    text = measured_json(splits, questions)
    if options.report:
        write_atomically(options.report, text)
    if options.json:
        sys.stdout.write(text)
        return
    print_measured(splits, questions)


def measured_json(splits: Numbers, questions: Numbers) -> str:
    """Write all numbers that `RussianProtocol` measured."""
    content = {"splits": splits, "questions": questions}
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def print_measured(splits: Numbers, questions: Numbers) -> None:
    """Print score, ceiling and routes, as `RussianProtocol` measured them."""
    console = Console()
    console.print(score_table(splits))
    for key, title in (
        ("routes", "Answers by route"),
        ("ceiling_routes", "Right answers, there and back, by route"),
    ):
        if any(key in numbers for numbers in splits.values()):
            console.print(route_table(splits, key, title))
    for key in ("problems", "ceiling_problems"):
        for name, numbers in splits.items():
            for problem, count in numbers.get(key, {}).items():
                _say(f"{name}, {key.replace('_', ' ')}: {problem}: {count:,} rows")
    if questions:
        _say(
            f"{questions['total']:,} questions into Russian and back: "
            f"{100 * questions['accuracy']:.2f} % the same, WER {100 * questions['wer']:.2f} %"
        )


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
