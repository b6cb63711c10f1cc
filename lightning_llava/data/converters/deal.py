"""Number a stream of drafts and deal it into shards; all that needs to know the whole stream."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, field, replace

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.report import Duplicate, Report

EMBEDDED_BYTES = 256 * 2**20
"""A shard takes no more drafts once the images that they hold themselves come to this; it bounds
what travels to a process at once."""


@dataclass
class Task:
    """The drafts of one shard."""

    number: int
    drafts: list[tuple[int, Draft]] = field(default_factory=list)
    """Each after its position in the stream, which becomes its key."""
    embedded: int = 0
    """Bytes of images that the drafts hold themselves."""
    fingerprint: str = ""
    """Hash of the drafts; images in a folder count by their names only."""

    def add(self, position: int, draft: Draft, content: str) -> None:
        """Append a draft, given the hash of its turns and images."""
        self.drafts.append((position, draft))
        self.embedded += sum(len(image) for image in draft.images if isinstance(image, bytes))
        boxes = [astuple(box) for box in draft.boxes]
        parts = [self.fingerprint, content, position, draft.id, boxes, draft.ids, draft.language]
        self.fingerprint = _hash([*parts, draft.notes])


class Dealer:
    """Gives each draft an id of its own, finds duplicates, and cuts the stream into shards.

    Args:
        max_samples: Drafts per shard.
        drop_duplicates: Leave a draft out that has the turns and images of an earlier one.
        report: Filled with what is known before any image is opened.
    """

    def __init__(self, max_samples: int, drop_duplicates: bool, report: Report) -> None:
        self.max_samples = max_samples
        self.drop_duplicates = drop_duplicates
        self.report = report
        self._ids: set[str] = set()
        self._first: dict[str, int] = {}

    def deal(self, stream: Iterable[Draft | LeftOut]) -> Iterator[Task]:
        """Read the stream, one shard at a time."""
        task = Task(0)
        for position, entry in enumerate(stream):
            self.report.records += 1
            if isinstance(entry, LeftOut):
                self.report.left_out[position] = entry
                continue
            content = _content(entry)
            if self._is_duplicate(position, entry.id, content) and self.drop_duplicates:
                continue
            task.add(position, replace(entry, id=self._own_id(position, entry.id)), content)
            if len(task.drafts) == self.max_samples or task.embedded >= EMBEDDED_BYTES:
                yield task
                task = Task(task.number + 1)
        if task.drafts:
            yield task

    def _is_duplicate(self, position: int, name: str, content: str) -> bool:
        first = self._first.setdefault(content, position)
        if first != position:
            self.report.duplicates.append(Duplicate(position, name, first))
        return first != position

    def _own_id(self, position: int, name: str) -> str:
        # Many records of LLaVA's own mixture share an id: it names the image there.
        while name in self._ids:
            name = f"{name}@{position}"
        self._ids.add(name)
        return name


def _content(draft: Draft) -> str:
    turns = [[turn.role, turn.text] for turn in draft.turns]
    images = [
        image if isinstance(image, str) else [hashlib.sha256(image).hexdigest()]
        for image in draft.images
    ]
    return _hash([turns, images])


def _hash(content: object) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()
