"""Translate unique texts, each once for ever: what was said is kept and checked when it is used."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.checks import Problem, find_problem
from lightning_llava.evaluation.translation.translator import Language, Translator

AT_ONCE = 256
"""Texts between two writes: a kill loses at most these."""
Progress = Callable[[int, int], None]
"""Told texts translated and texts to translate."""

_Key = tuple[str, str, str, str, str | None]
"""Translator, source, target, text and context."""
_FIELDS = ("translator", "source", "target", "text", "context")


@dataclass(frozen=True)
class Translation:
    """What a translator said, and why it must not be used, if so."""

    text: str
    problem: Problem | None


class TranslationCache:
    """Translations of any number of translators: JSON lines that are only ever added to.

    A kill can tear the last line. It is left where it is, and its text is translated again.

    Args:
        path: created if need be; None keeps nothing beyond the process.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[_Key, str] = dict(_read(path)) if path and path.exists() else {}

    def get(self, key: _Key) -> str | None:
        """Return what is known, or None."""
        return self._known.get(key)

    def add(self, translations: dict[_Key, str]) -> None:
        """Keep translations, on disk before this returns."""
        self._known |= translations
        if self._path is None:
            return
        lines = "".join(
            json.dumps(dict(zip(_FIELDS, key, strict=True)) | {"said": said}, ensure_ascii=False)
            + "\n"
            for key, said in translations.items()
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as handle:
            handle.write(("\n" * _is_torn(self._path) + lines).encode())
            handle.flush()
            os.fsync(handle.fileno())


def _is_torn(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read() != b"\n"


def _read(path: Path) -> Iterator[tuple[_Key, str]]:
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                record: Any = json.loads(line)
            except ValueError:
                continue  # blank, or torn by a kill
            if not isinstance(record, dict) or record.keys() != {*_FIELDS, "said"}:
                raise SettingError(
                    f"{path}, line {number}: not a translation of this project; name another cache"
                )
            translator, source, target, text, context = (record[field] for field in _FIELDS)
            yield (translator, source, target, text, context), record["said"]


class CachedTranslator:
    """A translator in one direction behind a cache and the checks.

    Args:
        load: returns the translator; called only when there is a text to translate.
        cache: shared by any number of translators.
        source: language of the texts.
        target: language of the translations.
        progress: told after every batch.
    """

    def __init__(
        self,
        load: Callable[[], Translator],
        cache: TranslationCache,
        source: Language,
        target: Language,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._load = load
        self._cache = cache
        self.source: Language = source
        self.target: Language = target
        self._progress = progress

    @cached_property
    def translator(self) -> Translator:
        """The translator itself, loaded when it is first needed."""
        return self._load()

    def translate(
        self, texts: Sequence[str], context: Sequence[str | None] = ()
    ) -> list[Translation]:
        """Translate each different text, in each different context, once.

        A text without letters is the same in every language, and models make words of it (Marian
        says "No, no, no…" to "-"): it stays as it is.
        """
        pairs = list(zip(texts, context or [None] * len(texts), strict=True))
        wordy = [(text, around) for text, around in dict.fromkeys(pairs) if _has_letters(text)]
        said = self._say(wordy) if wordy else {}
        return [
            Translation(said[pair], find_problem(pair[0], said[pair], self.target))
            if pair in said
            else Translation(pair[0], None if pair[0].strip() else "empty")
            for pair in pairs
        ]

    def _say(self, pairs: Sequence[tuple[str, str | None]]) -> dict[tuple[str, str | None], str]:
        keys = {pair: (self.translator.name, self.source, self.target, *pair) for pair in pairs}
        # Texts of like length together: less padding.
        new = sorted(
            (pair for pair in pairs if self._cache.get(keys[pair]) is None),
            key=lambda pair: (len(pair[0]) + len(pair[1] or ""), pair[0]),
        )
        for start in range(0, len(new), AT_ONCE):
            batch = new[start : start + AT_ONCE]
            said = self._translate(batch)
            self._cache.add({keys[pair]: text for pair, text in zip(batch, said, strict=True)})
            self._progress(start + len(batch), len(new))
        return {pair: self._cache.get(keys[pair]) or "" for pair in pairs}

    def _translate(self, batch: Sequence[tuple[str, str | None]]) -> list[str]:
        texts, context = [text for text, _ in batch], [around for _, around in batch]
        if not any(context):
            context = []
        return self.translator.translate(texts, self.source, self.target, context)


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))
