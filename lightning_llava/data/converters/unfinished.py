"""Where a conversion grows until it is complete, so that one that was stopped can go on.

`OUTPUT/PREFIX.unfinished/` holds `settings.json`, and for each shard `000000.tar` and, written
after it, `000000.json` with a hash of its drafts, its size and its part of the report. When all
shards are there, `finished.json` lists their final names; they are moved to them, and the folder is
removed.
"""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_llava.data.converters.report import Report, dump
from lightning_llava.data.converters.task import Written
from lightning_llava.data.shards import existing_shards, shard_name, sync_folder, whole_file
from lightning_llava.errors import SettingError


class Unfinished:
    """The folder of one conversion.

    Args:
        output: The folder for the finished shards.
        prefix: Start of their names.
    """

    def __init__(self, output: Path, prefix: str) -> None:
        self.output = output
        self.prefix = prefix
        self.folder = output / f"{prefix}.unfinished"

    @property
    def report_path(self) -> Path:
        """Where the report of the finished conversion goes."""
        return self.output / f"{self.prefix}.report.json"

    @property
    def shards_are_complete(self) -> bool:
        """Whether all that is left to do is `publish`."""
        return self._finished.exists()

    @contextmanager
    def begun(self, settings: dict[str, Any]) -> Iterator[None]:
        """Begin, or go on where an earlier process stopped; no other can at the same time.

        Raises:
            SettingError: a finished conversion is there, another process is at work, other settings
                than those that the conversion was begun with, or a folder that cannot be written.
        """
        self._refuse_finished()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("wb")
        except OSError as error:
            raise SettingError(f"cannot write into {self.output}: {error}") from error
        with lock:
            self._lock(lock.fileno())
            self._compare(settings)
            try:
                for partial in self.folder.glob(".*.partial"):
                    partial.unlink()
                _write(self.folder / "settings.json", settings)
                yield
            finally:
                if not self._has_results():
                    self._remove()

    def shard(self, number: int) -> Path:
        """Name the file that a shard grows in."""
        return self.folder / f"{number:06d}.tar"

    def kept(self, number: int, fingerprint: str) -> Written | None:
        """Find what an earlier process made of these very drafts."""
        try:
            content = json.loads(self._note(number).read_text(encoding="utf-8"))
            written = Written(content["size"], Report.from_dict(content["report"]))
            if content["fingerprint"] != fingerprint or self._size(number) != written.size:
                return None
            return written
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, number: int, fingerprint: str, written: Written) -> None:
        """Remember a shard that is complete."""
        report = written.report.to_dict()
        content = {"fingerprint": fingerprint, "size": written.size, "report": report}
        _write(self._note(number), content)

    def complete(self, sizes: Sequence[int], report: Report) -> None:
        """Fix which shard gets which name, empty ones left out, and the report."""
        moves, shards = [], {}
        for number, size in enumerate(sizes):
            if size:
                name = shard_name(self.prefix, len(shards))
                moves.append([self.shard(number).name, name])
                shards[name] = size
        content = {"moves": moves, "shards": shards, "report": report.to_dict()}
        _write(self._finished, content)

    def publish(self) -> tuple[Report, list[Path]]:
        """Give the shards their names, write the report and remove the folder.

        Raises:
            SettingError: a shard was taken away or changed in between.
        """
        content = json.loads(self._finished.read_text(encoding="utf-8"))
        for grown, name in content["moves"]:
            source, target = self.folder / grown, self.output / name
            if source.exists():
                source.replace(target)
            if not target.exists() or target.stat().st_size != content["shards"][name]:
                raise SettingError(
                    f"{target} is not as the conversion left it; remove {self.folder} and the"
                    f" shards {self.prefix}-*.tar, and convert again"
                )
        sync_folder(self.output)
        report = Report.from_dict(content["report"])
        with whole_file(self.report_path) as file:
            file.write(report.to_json(content["shards"]))
        for path in self.folder.glob("[0-9]*"):
            path.unlink()
        self._finished.unlink()
        return report, [self.output / name for name in content["shards"]]

    @property
    def _finished(self) -> Path:
        return self.folder / "finished.json"

    def _note(self, number: int) -> Path:
        return self.folder / f"{number:06d}.json"

    def _size(self, number: int) -> int:
        path = self.shard(number)
        return path.stat().st_size if path.exists() else 0

    def _refuse_finished(self) -> None:
        found = existing_shards(self.output, self.prefix)
        if found and not self.shards_are_complete:
            raise SettingError(
                f"{self.output} already holds {len(found):,} shard{'s' * (len(found) != 1)} named"
                f" {self.prefix}-*.tar; remove {'them' if len(found) != 1 else 'it'} or choose"
                " another --prefix"
            )

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingError(
                f"another process is converting into {self.folder}; wait for it or choose another"
                " --prefix"
            ) from error
        except OSError:  # some network file systems have no locks
            return

    def _compare(self, settings: dict[str, Any]) -> None:
        if not self._has_results():
            return  # nothing would be lost
        try:
            before = json.loads((self.folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        other = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
        if other:
            differences = ", ".join(
                f"{name} {before.get(name)}, now {settings.get(name)}" for name in other
            )
            raise SettingError(
                f"{self.folder} holds an unfinished conversion with other arguments"
                f" ({differences}); give the same again to go on, or remove that folder to begin"
                " anew"
            )

    def _has_results(self) -> bool:
        return self.shards_are_complete or any(self.folder.glob("[0-9]*.json"))

    def _remove(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()


def _write(path: Path, content: Any) -> None:
    with whole_file(path) as file:
        file.write(dump(content))
