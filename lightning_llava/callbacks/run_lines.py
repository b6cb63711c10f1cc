"""JSON lines in the run folder, one or more per micro-batch, that a resumed run goes on writing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning import Trainer

from lightning_llava.evaluation.json_lines import write_atomically


def append_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Append to a file of this rank's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json_lines(lines))


def json_lines(lines: Iterable[dict[str, Any]]) -> str:
    """Write a line per object, such that UTF-8 holds it whatever a broken name or record held."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # Half of a surrogate pair becomes the escape that JSON spells it with.
    return text.encode(errors="backslashreplace").decode()


def forget_lines(trainer: Trainer, folder: Path, name: str) -> None:
    """Take out what was trained after the checkpoint that a run continues from; none: everything.

    Of all ranks' files `{name}.rank{R}.jsonl`: there may have been more of them before.
    """
    consumed: int = trainer.datamodule.consumed  # pyright: ignore[reportAttributeAccessIssue]
    if trainer.is_global_zero:
        for path in folder.glob(f"{name}.rank*.jsonl"):
            _shorten(path, consumed, trainer.global_step)
    trainer.strategy.barrier(name)


def _shorten(path: Path, consumed: int, steps: int) -> None:
    whole = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last may be half written
    kept = [line for line in whole if _is_before(json.loads(line), consumed, steps)]
    write_atomically(path, "".join(f"{line}\n" for line in kept))


def _is_before(line: dict[str, Any], consumed: int, steps: int) -> bool:
    if line["micro_batch"] is not None:
        return line["micro_batch"] < consumed
    return line.get("step", -1) < steps  # streaming numbers nothing; faults have no step
