"""Both directions of translation, as the command line names them: one cache, one progress bar."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lightning_llava.evaluation.translation.cache import CachedTranslator, TranslationCache
from lightning_llava.evaluation.translation.loading import load_translator
from lightning_llava.evaluation.translation.translator import Language, Translator

_NAMES = {"en": "English", "ru": "Russian"}


class Directions:
    """Translators that load when they are first needed, a model for both directions once.

    Args:
        options: `to_russian`, perhaps `to_english`, `cache`, `beams`, `batch_size`, `device`.
        bar: shows how far they are.
    """

    def __init__(self, options: Namespace, bar: Progress) -> None:
        self._options = options
        self._bar = bar
        self._cache = TranslationCache(options.cache)
        self._loaded: dict[str, Translator] = {}

    @property
    def to_russian(self) -> CachedTranslator:
        """Translates into Russian."""
        return self._translator("to_russian", "en", "ru")

    @property
    def to_english(self) -> CachedTranslator:
        """Translates into English."""
        return self._translator("to_english", "ru", "en")

    def _translator(self, option: str, source: Language, target: Language) -> CachedTranslator:
        written = getattr(self._options, option)
        load = partial(self._load_named, written, f"--{option.replace('_', '-')}")
        show = partial(self._show, f"into {_NAMES[target]}")
        return CachedTranslator(load, self._cache, source, target, show)

    def _load_named(self, written: str, setting: str) -> Translator:
        if written not in self._loaded:
            options = self._options
            self._loaded[written] = load_translator(
                written, setting, options.beams, options.batch_size, options.device
            )
        return self._loaded[written]

    def _show(self, what: str, done: int, total: int) -> None:
        """Draw one bar for all that goes into a language, from its first text on."""
        tasks = {task.description: task for task in self._bar.tasks}
        if what not in tasks or tasks[what].total != total:
            for task in tasks.values():
                self._bar.remove_task(task.id)
            self._bar.add_task(what, total=total, completed=done)
        else:
            self._bar.update(tasks[what].id, completed=done)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress where it does not get into what is printed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar
