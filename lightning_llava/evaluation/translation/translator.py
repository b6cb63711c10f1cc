"""What a translator is, and the two that need no model: a table and an oracle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from lightning_llava.errors import SettingError

Language = Literal["en", "ru"]


class Translator(Protocol):
    """Turns texts of one language into another; a text that it cannot translate becomes empty."""

    @property
    def name(self) -> str:
        """Model, revision and all settings that change what it says: the cache's key."""
        ...

    def translate(
        self,
        texts: Sequence[str],
        source: Language,
        target: Language,
        context: Sequence[str | None] = (),
    ) -> list[str]:
        """Translate texts.

        Args:
            texts: any number.
            source: their language.
            target: another one.
            context: to each text the question, in the same language, that it answers, or None; none
                at all where no text answers anything.
        """
        ...


class TableTranslator:
    """Looks texts up, whole and as they are written.

    Args:
        table: English → Russian. Where several English texts have one Russian, the first is taken
            back.
        name: of the file or person it comes from.
    """

    def __init__(self, table: Mapping[str, str], name: str) -> None:
        backwards: dict[str, str] = {}
        for english, russian in table.items():
            backwards.setdefault(russian, english)
        self._tables = {("en", "ru"): table, ("ru", "en"): backwards}
        self.name = f"table {name}"

    def translate(
        self,
        texts: Sequence[str],
        source: Language,
        target: Language,
        context: Sequence[str | None] = (),
    ) -> list[str]:
        """Look the texts up; the context makes no difference."""
        table = self._tables[source, target]
        return [table.get(text, "") for text in texts]


def read_table(path: Path, setting: str) -> dict[str, str]:
    """Read English → Russian from `english<TAB>russian` lines, or from a JSON object (`.json`).

    Raises:
        SettingError: the file is missing, has another form, or gives a text twice.
    """
    if not path.is_file():
        raise SettingError(f"{setting}: the file {str(path)!r} does not exist")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".json":
        try:
            table = json.loads(text)
        except ValueError as error:
            raise SettingError(f"{setting}: {path} is not JSON ({error}); mend the file") from error
        if isinstance(table, dict) and all(isinstance(value, str) for value in table.values()):
            return table
        raise SettingError(f"{setting}: {path} is no object of texts, expected English: Russian")
    table = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells) or cells[0] in table:
            raise SettingError(
                f"{setting}: {path}, line {number}: {line!r:.80}, expected english<TAB>russian, "
                "every English text once; mend the line"
            )
        table[cells[0]] = cells[1]
    return table


_LATIN = "abcdefghijklmnopqrstuvwxyz"
_RARE = {letter: (chr(0x48A + 2 * i), chr(0x48B + 2 * i)) for i, letter in enumerate(_LATIN)}
"""Latin letter → a capital and a small Cyrillic one that Russian does not have."""
_TO_RARE = {ord(letter): small for letter, (_, small) in _RARE.items()} | {
    ord(letter.upper()): capital for letter, (capital, _) in _RARE.items()
}
_FROM_RARE = {ord(str(rare)): chr(latin) for latin, rare in _TO_RARE.items()}


class OracleTranslator:
    """Loses nothing: what it says back is, letter by letter, what it was told.

    Its "Russian" is the English text in Cyrillic letters that Russian does not have. With it, the
    protocol must give the English score; so it tests the protocol, and a model never.
    """

    name = "oracle"

    def translate(
        self,
        texts: Sequence[str],
        source: Language,
        target: Language,
        context: Sequence[str | None] = (),
    ) -> list[str]:
        """Exchange the letters; the context makes no difference."""
        letters = _TO_RARE if target == "ru" else _FROM_RARE
        return [text.translate(letters) for text in texts]
