"""What became of everything that a reader gave.

A record is a conversation, perhaps of many published questions, or what the reader could not use.
Records are counted from 0, as they come; a sample's position is its key in the shards.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightning_llava.data.converters.draft import LeftOut
from lightning_llava.data.schema import Sample


@dataclass(frozen=True)
class Duplicate:
    """A record with the turns and images of an earlier one."""

    position: int
    id: str
    same_as: int
    """The earlier one's position."""


@dataclass
class Report:
    """Counts, and everything left out by name."""

    records: int = 0
    written: int = 0
    questions: int = 0
    """Answered questions in what was written."""
    images: int = 0
    image_bytes: int = 0
    text_only: int = 0
    other_extension: int = 0
    """Images found under another file name extension than the record's."""
    reencoded: int = 0
    """Images that are not stored byte for byte, because that was asked for."""
    languages: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    """Written records in which something was changed, by what."""
    left_out: dict[int, LeftOut] = field(default_factory=dict)
    """By position."""
    duplicates: list[Duplicate] = field(default_factory=list)
    duplicates_dropped: bool = False
    """Whether the duplicates were left out too; else they are among the written."""

    def count(self, sample: Sample) -> None:
        """Count a sample."""
        self.written += 1
        self.questions += len(sample.turns) // 2
        self.images += len(sample.images)
        self.image_bytes += sum(map(len, sample.images))
        self.text_only += not sample.images
        self.languages[sample.language] += 1

    def add(self, part: "Report") -> None:
        """Add what became of the records of one shard."""
        self.written += part.written
        self.questions += part.questions
        self.images += part.images
        self.image_bytes += part.image_bytes
        self.text_only += part.text_only
        self.other_extension += part.other_extension
        self.reencoded += part.reencoded
        self.languages.update(part.languages)
        self.notes.update(part.notes)
        self.left_out |= part.left_out

    def reasons(self) -> Counter[str]:
        """Count what was left out by reason."""
        return Counter(entry.reason for entry in self.left_out.values())

    def mostly_left_out(self) -> bool:
        """Tell whether more than half of the records were left out, duplicates aside."""
        return 2 * len(self.left_out) > self.records

    def to_json(self, shards: Mapping[str, int]) -> bytes:
        """Serialise, with the shards' names and sizes in bytes."""
        content = {
            **self.to_dict(),
            "left_out_by_reason": dict(sorted(self.reasons().items())),
            "shards": dict(shards),
        }
        return dump(content)

    def to_dict(self) -> dict[str, Any]:
        """Give what `from_dict` takes."""
        left_out = [{"position": at, **asdict(self.left_out[at])} for at in sorted(self.left_out)]
        languages = dict(sorted(self.languages.items()))
        notes = dict(sorted(self.notes.items()))
        return {**asdict(self), "languages": languages, "notes": notes, "left_out": left_out}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Report":
        """Read back; raises KeyError or TypeError on anything else."""
        return cls(
            **{
                **content,
                "languages": Counter(content["languages"]),
                "notes": Counter(content["notes"]),
                "left_out": {
                    entry["position"]: LeftOut(entry["id"], entry["reason"], entry["detail"])
                    for entry in content["left_out"]
                },
                "duplicates": [Duplicate(**entry) for entry in content["duplicates"]],
            }
        )


def dump(content: Any) -> bytes:
    """Write JSON for people."""
    # Half of a surrogate pair, which an id may hold, becomes the escape that JSON spells it with.
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return text.encode(errors="backslashreplace")
