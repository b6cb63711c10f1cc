"""What training records are like, counted."""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from rich.table import Column, Table

from lightning_llava.data.schema import Sample
from lightning_llava.text.turns import IMAGE_PLACEHOLDER

YES_NO = {"yes", "no", "да", "нет"}
NUMBER = re.compile(r"[-+−]?\d+([.,:/]\d+)*\s*%?")
FRACTION = r"\s*-?\d*[.,]?\d+\s*"
BOX = re.compile(
    rf"[\[(]{FRACTION}([,;]{FRACTION}){{3}}[\])]|[\[(]{FRACTION}(\s{FRACTION}){{3}}[\])]"
)
PHRASE_WORDS = 12
"""More words, or a full stop after several, make a sentence."""
ANSWER_TYPES = ("yes/no", "number", "one word", "phrase", "sentence", "box", "empty")
SPREAD = ("smallest", "median", "mean", "99 % up to", "largest")
COMMON_SIZES = 5
"""Image sizes that are named."""


def answer_type(answer: str) -> str:
    """Tell what kind of answer a text is: one of `ANSWER_TYPES`."""
    text = answer.strip()
    bare = text.rstrip(".!").strip()
    words = text.split()
    if not words:
        return "empty"
    if BOX.fullmatch(bare):
        return "box"
    if bare.lower() in YES_NO:
        return "yes/no"
    if NUMBER.fullmatch(bare):
        return "number"
    if len(words) == 1:
        return "one word"
    ends = text[-1] in ".!?…" or len(words) > PHRASE_WORDS
    return "sentence" if ends else "phrase"


def _column() -> array:
    return array("q")


@dataclass
class Statistics:
    """Counts over samples, without the samples."""

    count_tokens: Callable[[str], int] | None = None
    """Of a text alone; None counts none."""
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Samples by source and language, as the records say."""
    images: Counter[int] = field(default_factory=Counter)
    """Samples by number of images."""
    answers: Counter[str] = field(default_factory=Counter)
    """Answers by type."""
    pairs: array = field(default_factory=_column)
    """Questions with their answers, per sample."""
    question_words: array = field(default_factory=_column)
    answer_words: array = field(default_factory=_column)
    question_tokens: array = field(default_factory=_column)
    answer_tokens: array = field(default_factory=_column)

    def add(self, sample: Sample) -> None:
        """Count a sample; the content of its images is not looked at."""
        self.sources[sample.source, sample.language] += 1
        self.images[len(sample.images)] += 1
        self.pairs.append(len(sample.turns) // 2)
        for turn in sample.turns:
            asks = turn.role == "user"
            text = turn.text.replace(IMAGE_PLACEHOLDER, "").strip()
            (self.question_words if asks else self.answer_words).append(len(text.split()))
            if self.count_tokens:
                tokens = self.question_tokens if asks else self.answer_tokens
                tokens.append(self.count_tokens(text))
            if not asks:
                self.answers[answer_type(text)] += 1

    @property
    def samples(self) -> int:
        """How many were added."""
        return len(self.pairs)

    def tables(self, image_sizes: np.ndarray, lengths: np.ndarray | None = None) -> list[Table]:
        """Lay everything out.

        Args:
            image_sizes: width and height of all images, in pixels.
            lengths: tokens of whole samples, where they were measured.
        """
        sources = Table("source", "language", _right("samples"), _right("share"), title="Samples")
        for (source, language), count in self.sources.most_common():
            sources.add_row(source or "(none)", language, *_part(count, self.samples))
        images = Table("images", _right("samples"), _right("share"), title="Images a sample")
        for number, count in sorted(self.images.items()):
            images.add_row(str(number) if number else "text-only", *_part(count, self.samples))
        types = Table("kind of answer", _right("answers"), _right("share"), title="Answers")
        for name in ANSWER_TYPES:
            if count := self.answers[name]:
                types.add_row(name, *_part(count, self.answers.total()))
        made = [sources, images, self._lengths(image_sizes, lengths), types]
        return [*made, common_sizes(image_sizes)] if len(image_sizes) else made

    def _lengths(self, image_sizes: np.ndarray, lengths: np.ndarray | None) -> Table:
        table = Table("", *map(_right, SPREAD), title="Sizes")
        width, height = image_sizes.reshape(-1, 2).T
        rows: dict[str, Iterable[int]] = {
            "questions a sample": self.pairs,
            "words of a question": self.question_words,
            "words of an answer": self.answer_words,
            "tokens of a question": self.question_tokens,
            "tokens of an answer": self.answer_tokens,
            "tokens of a sample": [] if lengths is None else lengths,
            "width of an image": width,
            "height of an image": height,
        }
        for name, values in rows.items():
            column = np.asarray(values)
            if column.size:
                least, median, most = np.quantile(column, [0, 0.5, 1])
                high = np.quantile(column, 0.99, method="inverted_cdf")
                numbers = (f"{value:,.0f}" for value in (least, median))
                table.add_row(name, *numbers, f"{column.mean():,.1f}", f"{high:,}", f"{most:,.0f}")
        return table


def common_sizes(image_sizes: np.ndarray) -> Table:
    """Name the sizes that most images have."""
    table = Table("width x height", _right("images"), _right("share"), title="Image sizes")
    sizes, counts = np.unique(image_sizes, axis=0, return_counts=True)
    for i in np.argsort(-counts, kind="stable")[:COMMON_SIZES]:
        table.add_row(f"{sizes[i][0]} x {sizes[i][1]}", *_part(int(counts[i]), len(image_sizes)))
    if len(sizes) > COMMON_SIZES:
        table.add_row(f"{len(sizes) - COMMON_SIZES:,} others", "", "")
    return table


def _right(name: str) -> Column:
    return Column(name, justify="right")


def _part(count: int, of: int) -> tuple[str, str]:
    return f"{count:,}", f"{count / of:.1%}"
