"""`tools/evaluate.py --protocol russian`: its options, and what it does around an evaluation."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.processes import Processes
from lightning_llava.evaluation.translation.command import (
    add_measuring,
    add_reviewed,
    add_translators,
)
from lightning_llava.evaluation.translation.directions import Directions, progress_bar
from lightning_llava.evaluation.translation.loading import BATCH_SIZE
from lightning_llava.evaluation.translation.protocol import RussianProtocol
from lightning_llava.evaluation.translation.tasks import (
    measured_json,
    print_measured,
    read_asked_lexicon,
    read_reviewed,
)

ENGLISH, RUSSIAN = "english", "russian"
REPORT = "russian.json"


def add_protocol(parser: ArgumentParser) -> None:
    """Add the options to those of `tools/evaluate.py`."""
    parser.add_argument(
        "--protocol",
        choices=(ENGLISH, RUSSIAN),
        default=ENGLISH,
        help="russian: questions of benchmarks with English answers are translated into Russian,"
        " answers back into English; the MT ceiling and the score by route are printed beside the"
        " score (default: %(default)s, questions as they are)",
    )
    _add_russian(parser.add_argument_group("with --protocol russian"))


def _add_russian(group: Any) -> None:
    for add in (add_translators, add_reviewed, add_measuring):
        add(group)


def _refuse_foreign(options: Namespace) -> None:
    """Refuse what would be ignored."""
    alone = ArgumentParser()
    _add_russian(alone)
    for name, default in vars(alone.parse_args([])).items():
        if getattr(options, name) != default:
            raise SettingError(
                f"--{name.replace('_', '-')}: --protocol {options.protocol} does not take it; add "
                f"--protocol {RUSSIAN} to ask in Russian"
            )


class Around:
    """`before` and `after` of an evaluation, in one process or in each of several.

    Args:
        options: what `add_protocol` added, and `device`.
        processes: the first translates; the others read what it kept.
    """

    def __init__(self, options: Namespace, processes: Processes) -> None:
        if options.protocol != RUSSIAN:
            _refuse_foreign(options)
        device = "auto" if options.device is None else str(options.device)
        self._options = Namespace(**vars(options) | {"batch_size": BATCH_SIZE, "device": device})
        self._processes = processes
        self._measured: RussianProtocol | None = None

    @property
    def _is_russian(self) -> bool:
        return self._options.protocol == RUSSIAN

    def before(self, questions: Sequence[Question]) -> list[Question]:
        """Put English questions into Russian; the same ones in all processes."""
        if not self._is_russian:
            return list(questions)
        if not self._processes.first:
            self._processes.total(0)  # until the first has translated
        with self._protocol() as protocol:
            translated = protocol.before(questions)
        if self._processes.first:
            self._processes.total(0)
        return translated

    def after(self, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
        """Bring Russian answers back, and measure."""
        if not self._is_russian:
            return list(rows)
        with self._protocol() as self._measured:
            return self._measured.after(rows)

    def report(self, folder: Path) -> None:
        """Say what was measured, and write `russian.json` beside the report."""
        if self._measured is not None:
            measured = self._measured.splits, self._measured.questions
            write_atomically(folder / REPORT, measured_json(*measured))
            print_measured(*measured)

    @contextmanager
    def _protocol(self) -> Iterator[RussianProtocol]:
        """Make the protocol anew: its bar and the one of the questions cannot share a terminal."""
        options = self._options
        with progress_bar() as bar:
            directions = Directions(options, bar)
            yield RussianProtocol(
                directions.to_russian,
                directions.to_english,
                reviewed=read_reviewed(options),
                lexicon=read_asked_lexicon(options),
                with_ceiling=not options.without_ceiling,
            )
