"""A split of a benchmark as its settings name it, and the questions of its ground truth."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.question import Question
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.specs import BenchmarkSpec


@dataclass(frozen=True)
class Source:
    """One split of a benchmark."""

    benchmark: str
    split: str
    spec: BenchmarkSpec

    @property
    def file(self) -> Path:
        """The question file."""
        return Path(self.spec.files[self.split])

    @property
    def setting(self) -> str:
        """What names it."""
        return self.setting_of("files")

    def setting_of(self, field: str) -> str:
        """Name the setting that holds another file of the split."""
        return f"data.benchmarks.{self.benchmark}.{field}.{self.split}"

    def image(self, name: str) -> Path:
        """Return where an image lies; in sets of one's own a `.png` may stand for the `.jpg`."""
        path = Path(self.spec.images) / name
        png = path.with_suffix(".png")
        return png if path.suffix == ".jpg" and not path.exists() and png.exists() else path

    def question(self, truth: Truth, text: str, image: str | None, context: str = "") -> Question:
        """Turn a row of ground truth into a question.

        Args:
            truth: id, answers and types.
            text: what is asked.
            image: name of its file.
            context: see `Question`.

        Raises:
            SettingError: the text is empty, or a translation where English is asked.
        """
        where = f"{self.file}, question {truth.id}"
        if not text.strip():
            raise SettingError(f"{where}: the question is empty, expected a text; mend the file")
        if truth.source is not None and self.spec.language == "en":
            raise SettingError(
                f"{where}: {text!r:.60} is the translation of {truth.source!r:.60}, but "
                f"data.benchmarks.{self.benchmark}.language is en; set it to ru"
            )
        commonest = next(iter(Counter(truth.answers).most_common(1)), None)
        return Question(
            self.benchmark,
            self.split,
            truth.id,
            text,
            None if image is None else self.image(image),
            commonest[0] if commonest else None,
            self.spec.language,
            self.spec.kind,
            truth.answers,
            tuple(truth.types.items()),
            source=truth.source,
            context=context,
        )

    def published(self, truths: Iterable[Truth]) -> list[tuple[Truth, str, str]]:
        """Return rows with the image and the question that they must have.

        Raises:
            SettingError: one lacks either.
        """
        rows = list(truths)
        for truth in rows:
            if truth.image is None or truth.question is None:
                lacks = "image" if truth.image is None else "question"
                raise SettingError(
                    f"{self.setting}: question {truth.id} of {self.file} has no {lacks}; give the "
                    "file as it was published"
                )
        return [(truth, truth.image or "", truth.question or "") for truth in rows]
