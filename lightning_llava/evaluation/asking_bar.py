"""The progress of an evaluation, on a terminal and in a log."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 60.0
"""Between two lines where there is no terminal to draw a bar on."""


class AskingBar:
    """A bar with the numbers of questions answered, asked now and known before, and time left.

    Args:
        console: where it is drawn.
        total: questions in all.
        kept: those that are answered already; the time left is told from the others.
    """

    def __init__(self, console: Console, total: int, kept: int) -> None:
        self._console, self._total, self._kept, self._asked = console, total, kept, 0
        self._start = self._written = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=300,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(self._text(), total=total, completed=kept)

    def __enter__(self) -> "AskingBar":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def advance(self, asked: int) -> None:
        """Count questions that were asked."""
        self._asked += asked
        self._progress.update(self._task, advance=asked, description=self._text())
        now = time.monotonic()
        if not self._console.is_terminal and now - self._written > LOG_EVERY_S:
            self._written = now
            left = self._total - self._kept - self._asked
            minutes = left * (now - self._start) / self._asked / 60
            done = self._kept + self._asked
            self._console.print(
                f"{done:,} of {self._total:,} ({self._text()}), about {minutes:.0f} min left",
                markup=False,
                highlight=False,
            )

    def _text(self) -> str:
        return f"asked {self._asked:,}, kept {self._kept:,}"
