"""What readers gave, in a form that is easily compared."""

import json
from pathlib import Path

from lightning_llava.data.converters.draft import Draft, LeftOut


def save(path: Path, content) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def divide(results) -> tuple[list[Draft], list[LeftOut]]:
    results = list(results)
    drafts = [each for each in results if isinstance(each, Draft)]
    left_out = [each for each in results if isinstance(each, LeftOut)]
    assert len(drafts) + len(left_out) == len(results)
    return drafts, left_out


def spoken(draft: Draft) -> list[str]:
    """The texts of the turns, which must alternate and begin with the only picture, if any."""
    roles = [turn.role for turn in draft.turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    texts = [turn.text for turn in draft.turns]
    assert sum(text.count("<image>") for text in texts) == len(draft.images)
    return texts


def reasons(left_out: list[LeftOut]) -> list[tuple[str, str]]:
    return [(entry.id, entry.reason) for entry in left_out]
