"""What short Russian answers are called in English, counted on training questions in both."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

from lightning_llava.data.converters.published import is_parquet, parquet_rows
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_files import read_json
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.russian import lemma_sets, normalise
from lightning_llava.evaluation.scorers.language import SCRIPTS, script_share
from lightning_llava.evaluation.translation.question_file import read_question_file

LEAST_COUNT = 2
"""Answers seen less often are not trusted."""
LEAST_SHARE = 0.5
"""Below, no one English answer stands out, and a translation in context knows more."""
_MOST_READINGS = 16
_ANSWER_KEYS = ("answer", "multiple_choice_answer", "label")

Counts = dict[str, Counter[str]]
"""Normalised Russian → English → training questions answered by both."""


@dataclass
class Lexicon:
    """Russian → English answers, and which questions they were counted on.

    Args:
        counts: the pairs.
        questions: fingerprints of the questions, so that none of them is scored with it.
        lemmas: also find other forms of the words, for which pymorphy3 must be installed.
        least_count: how often the Russian answer must have been seen.
        least_share: how much of that one English answer must make up.
    """

    counts: Counts
    questions: set[str] = field(default_factory=set)
    lemmas: bool = True
    least_count: int = LEAST_COUNT
    least_share: float = LEAST_SHARE

    def __post_init__(self) -> None:
        self._by_lemmas: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for russian, english in self.counts.items() if self.lemmas else ():
            for reading in _readings(russian):
                self._by_lemmas[reading].update(english)

    def find(self, answer: str) -> str | None:
        """Return the English of an answer, as written in training; None if nothing stands out."""
        if known := self.counts.get(normalise(answer)):
            return self._choose(known)
        if not self.lemmas:
            return None
        found = {
            self._choose(self._by_lemmas[r]) for r in _readings(answer) if r in self._by_lemmas
        }
        return found.pop() if len(found) == 1 else None

    def _choose(self, known: Counter[str]) -> str | None:
        # The first in the alphabet of the commonest, whatever the order of the file was.
        english, count = min(known.items(), key=lambda item: (-item[1], item[0]))
        total = known.total()
        if total < self.least_count or count < self.least_share * total:
            return None
        return english

    def check_unseen(self, rows: Iterable[LedgerRow]) -> None:
        """Refuse to score questions that the lexicon was made of.

        Raises:
            SettingError: says how many.
        """
        seen = [
            row
            for row in rows
            if fingerprint(row.question_id, row.source or row.question) in self.questions
        ]
        if seen:
            raise SettingError(
                f"--lexicon: {len(seen):,} of the questions to score are among those that the "
                f"lexicon was counted on, first {seen[0].question_id!r} of {seen[0].benchmark!r}; "
                "build it from training splits only"
            )


def _readings(text: str) -> Iterator[tuple[str, ...]]:
    """List the ways to read a text as lemmas; where there are very many, the first of them."""
    words = [sorted(lemmas) for lemmas in lemma_sets(text)]
    if words:
        yield from islice(product(*words), _MOST_READINGS)


def fingerprint(question_id: str, question: str) -> str:
    """Tell a question from others by id and text: ids alone repeat in other benchmarks."""
    text = " ".join(question.split())
    return hashlib.sha256(f"{question_id}\n{text}".encode()).hexdigest()[:12]


def build_lexicon(english: Path, russian: Path) -> Lexicon:
    """Count the pairs of answers that two files give to the same question ids.

    Args:
        english: questions and answers of a training split, as published.
        russian: the same questions with Russian answers, or some of them; GQA-ru's parquet, too.

    Raises:
        SettingError: a file has another form, or they share no ids.
    """
    answers = dict(_answers(english, "--english"))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    questions: set[str] = set()
    for question_id, (text, answer) in _answers(russian, "--russian"):
        if question_id not in answers:
            continue
        source, original = answers[question_id]
        questions |= {fingerprint(question_id, source), fingerprint(question_id, text)}
        # Numbers need no lexicon, and English answers must not become Russian ones.
        if script_share(answer, SCRIPTS["ru"]) > 0.5:
            counts[normalise(answer)][original.strip()] += 1
    if not counts:
        reason = "has Russian answers" if questions else f"is in {english}"
        raise SettingError(
            f"--russian: none of the question ids of {russian} {reason}; give the same training "
            "split in both languages"
        )
    return Lexicon(dict(counts), questions, lemmas=False)


def _answers(path: Path, option: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield id, question (empty where annotations have none) and answer."""
    for question_id, record in _records(path, option):
        found = [record[key] for key in _ANSWER_KEYS if isinstance(record.get(key), str)]
        if not found:
            raise SettingError(
                f"{option}: {path}, question {question_id}: no text under "
                f"{', '.join(_ANSWER_KEYS)} among {list(record)}"
            )
        asked = record.get("question", record.get("text", ""))
        yield question_id, (str(asked), found[0])


def _records(path: Path, option: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if is_parquet(path):
        expected = f"deepvk/GQA-ru's *_balanced_instructions under {option}"
        for row in parquet_rows(path, ("id", "question", "answer"), expected):
            yield str(row["id"]), row
        return
    file = read_question_file(path, option)
    yield from zip(file.ids, file.records, strict=True)


def write_lexicon(lexicon: Lexicon, path: Path) -> None:
    """Write a lexicon as one JSON object, the same for the same counts."""
    content = {
        "answers": {
            key: dict(sorted(lexicon.counts[key].items())) for key in sorted(lexicon.counts)
        },
        "questions": sorted(lexicon.questions),
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def read_lexicon(path: Path, lemmas: bool = True) -> Lexicon:
    """Read a lexicon back.

    Args:
        path: what `write_lexicon` wrote.
        lemmas: see `Lexicon`.

    Raises:
        SettingError: the file is missing or no lexicon, or pymorphy3 is not installed.
    """
    content = read_json(path, "--lexicon")
    try:
        counts = {key: Counter(english) for key, english in content["answers"].items()}
        return Lexicon(counts, set(content["questions"]), lemmas)
    except (TypeError, KeyError, AttributeError) as error:
        raise SettingError(
            f"--lexicon: {path} is no lexicon ({error!r}); expected what "
            "`tools/translate.py lexicon` wrote"
        ) from error
