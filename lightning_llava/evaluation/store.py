"""Answers that survive a kill: one line per answer, only ever added to."""

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError


def answer_key(fingerprint: str, image_hash: str | None, prompt: str) -> str:
    """Name an answer by all that it depends on."""
    text = json.dumps([fingerprint, image_hash, prompt], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """The answers in a folder, those of other processes included.

    Each process adds to a file of its own, whose last line a kill may have torn: it is cut off, and
    its question asked again.

    Args:
        folder: made if need be.
        rank: of the process.
        world: number of processes.

    Raises:
        SettingError: another evaluation is writing there, or a line within a file is no answer.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / ("answers.jsonl" if world == 1 else f"answers.rank{rank}.jsonl")
        self.answers: dict[str, str] = {}
        self._handle = self.path.open("ab")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self.path, _whole_lines(self.path))
            self.read()
        except BlockingIOError as error:
            self.close()
            raise SettingError(
                f"--output: another evaluation is writing {self.path}; wait for it, or give "
                "another folder"
            ) from error
        except SettingError:
            self.close()
            raise

    def read(self) -> None:
        """Take in what all processes have kept so far."""
        for path in [*self.folder.glob("answers.jsonl"), *self.folder.glob("answers.rank*.jsonl")]:
            self.answers |= _read(path)

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep answers by their keys; they are safe from a kill when this returns."""
        assert not answers.keys() & self.answers.keys(), "never two answers for a key"
        lines = (
            json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
            for key, answer in answers.items()
        )
        self._handle.write("".join(lines).encode())
        self._handle.flush()
        self.answers |= answers

    def close(self) -> None:
        """Let others write there."""
        self._handle.close()


def _whole_lines(path: Path) -> int:
    """Count the bytes up to the end of the last whole line."""
    return path.read_bytes().rfind(b"\n") + 1


def _read(path: Path) -> dict[str, str]:
    answers: dict[str, str] = {}
    *lines, _ = path.read_bytes().split(b"\n")  # behind the last newline is nothing, or a torn line
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            raise SettingError(
                f"{path}, line {number}: {line[:80]!r} is no answer that was kept here; remove the "
                "line, and its question is asked again"
            )
        answers[record["key"]] = record["answer"]
    return answers


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.keys() != {"key", "answer"}:
        return None
    return record if all(isinstance(value, str) for value in record.values()) else None
