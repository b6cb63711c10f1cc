"""What answers without looking: the commonest answer that training gives to a question's words.

The score of a model says something about pictures only as far as it is above this one's, see Goyal
et al. 2017 (Making the V in VQA Matter), whose language-only model is the same idea.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning_llava.data.index import expand_shards
from lightning_llava.data.scan import Scan, scan_shard
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.fingerprints import fingerprint
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.text.template import SHORT_ANSWER
from lightning_llava.text.turns import IMAGE_PLACEHOLDER

Words = tuple[str, ...]


class QuestionOnly:
    """Answers with what training says most often after the same question.

    A question that training does not have goes by its longest beginning that it has: `Is there a
    red` where `Is there a red star?` was never asked.

    Args:
        pairs: questions and short answers of training.
        name: what reports call it.

    Raises:
        SettingError: there are no pairs.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], name: str = "question only") -> None:
        self.name = name
        self._answers: dict[Words, Counter[str]] = defaultdict(Counter)
        for question, answer in pairs:
            for beginning in _beginnings(question):
                self._answers[beginning][answer] += 1
        if not self._answers:
            raise SettingError(
                f"--model: {name} holds no question about a picture that asks for a short answer; "
                "give shards of short answers, such as vqa-*.tar"
            )
        counts = sorted((list(words), dict(found)) for words, found in self._answers.items())
        self.fingerprint = fingerprint(counts=counts)

    def prompt(self, question: Question) -> str:
        """Return the question alone."""
        return question.text

    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Answer without looking at the image."""
        return [self._commonest(question.text) for question in questions]

    def _commonest(self, question: str) -> str:
        known = next(words for words in _beginnings(question) if words in self._answers)
        # Of several the first in the alphabet, whatever the order of the shards.
        return min(self._answers[known].items(), key=lambda item: (-item[1], item[0]))[0]


def read_short_answers(shards: str) -> Iterator[tuple[str, str]]:
    """Read questions about pictures that ask for a short answer, and the answers.

    Args:
        shards: path, glob or brace range, as `data.sources` takes them.

    Raises:
        SettingError: there are none.
    """
    storage = ShardStorage()
    for shard in expand_shards("--model", shards, storage):
        with storage.whole(shard) as stream:
            size = stream.seek(0, 2)
            records = [found.record for found in scan_shard(stream, size, Scan())]
        for record in records:
            turns = record.turns if record.images else []
            for asked, answered in zip(turns[::2], turns[1::2], strict=False):
                if asked.text.endswith(tuple(SHORT_ANSWER.values())):
                    yield asked.text, answered.text


def _beginnings(question: str) -> Iterator[Words]:
    """Yield a question's words, then all but the last of them, down to none at all."""
    text = question.replace(IMAGE_PLACEHOLDER, "")
    for prompt in SHORT_ANSWER.values():
        text = text.removesuffix(prompt)
    words = tuple(text.split())
    for number in range(len(words), -1, -1):
        yield words[:number]
