"""Drafts to shards, over processes; a run that was stopped goes on where it was."""

import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.deal import Dealer, Task
from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.folder_check import pictures_are_there
from lightning_llava.data.converters.report import Report
from lightning_llava.data.converters.task import Written, write_task
from lightning_llava.data.converters.unfinished import Unfinished
from lightning_llava.data.interrupts import signals_held
from lightning_llava.data.shards import NoRoomError
from lightning_llava.data.workers import follow_parent
from lightning_llava.errors import SettingError

GO_ON = "give the same command again to go on; finished shards are kept"
Progress = Callable[[int, int | None], None]
"""Called with the drafts done so far and how many there are, None until that is known."""


class Converted(NamedTuple):
    """A finished conversion."""

    report: Report
    shards: list[Path]
    report_path: Path


def convert(
    stream: Iterable[Draft | LeftOut],
    conversion: Conversion,
    processes: int = 1,
    progress: Progress = lambda done, total: None,
) -> Converted:
    """Write shards and a report; the same for any number of processes, stopped in between or not.

    The shards appear in the output folder when all of them are there; until then they grow in
    `PREFIX.unfinished` beside it. When that was left by a conversion that was stopped, its shards
    are kept where they were made of the same drafts, and the others are written anew.

    Args:
        stream: What a reader yields; read once, and no further ahead than the processes need.
        conversion: What to do.
        processes: Each writes one shard at a time, and holds one sample's images in memory.
        progress: Told after every shard.

    Raises:
        SettingError: a wrong setting, a finished conversion of this name, an unfinished one with
            other settings, a folder that lacks all of the first pictures, a full disk, a worker
            that was killed, or what the reader raises.
    """
    conversion.check()
    if processes < 1:
        raise SettingError(f"--processes is {processes}; it must be at least 1")
    unfinished = Unfinished(conversion.output, conversion.prefix)
    try:
        with unfinished.begun(conversion.settings()):
            if not unfinished.shards_are_complete:
                checked = pictures_are_there(stream, conversion)
                _write_shards(checked, conversion, processes, unfinished, progress)
            report, shards = unfinished.publish()
    except NoRoomError as error:
        raise NoRoomError(f"{error}; make room, then {GO_ON}") from error
    except BrokenProcessPool as error:
        raise SettingError(
            f"a worker process was killed, perhaps for want of memory; {GO_ON}, with fewer"
            " --processes if that was it"
        ) from error
    return Converted(report, shards, unfinished.report_path)


def _write_shards(
    stream: Iterable[Draft | LeftOut],
    conversion: Conversion,
    processes: int,
    unfinished: Unfinished,
    progress: Progress,
) -> None:
    report = Report(duplicates_dropped=conversion.drop_duplicates)
    dealer = Dealer(conversion.max_samples, conversion.drop_duplicates, report)
    parts: dict[int, Written] = {}
    done, total = 0, 0

    def finish(task: Task, written: Written) -> None:
        nonlocal done
        parts[task.number] = written
        done += len(task.drafts)
        progress(done, None)

    def tasks_to_do() -> Iterator[Task]:
        nonlocal total
        for task in dealer.deal(stream):
            total += len(task.drafts)
            if written := unfinished.kept(task.number, task.fingerprint):
                finish(task, written)
            else:
                yield task
        progress(done, total)

    with closing(_worked_on(tasks_to_do(), conversion, processes, unfinished)) as results:
        for task, written in results:
            unfinished.note(task.number, task.fingerprint, written)
            finish(task, written)
    for number in sorted(parts):
        report.add(parts[number].report)
    unfinished.complete([parts[number].size for number in sorted(parts)], report)


def _worked_on(
    tasks: Iterator[Task], conversion: Conversion, processes: int, unfinished: Unfinished
) -> Generator[tuple[Task, Written]]:
    """Write shards, and give them as they get ready."""
    first_two = list(islice(tasks, 2))
    tasks = chain(first_two, tasks)
    if processes == 1 or len(first_two) < 2:  # not worth the second that a process takes to start
        for task in tasks:
            yield task, write_task(task, conversion, unfinished.shard(task.number))
        return
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=follow_parent
    )
    try:
        running: dict[Future[Written], Task] = {}
        for task in chain(tasks, [None]):
            # One more than there are processes, so that none has to wait for its next task.
            while len(running) > (processes if task else 0):
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
            if task:
                path = unfinished.shard(task.number)
                with signals_held():
                    running[pool.submit(write_task, task, conversion, path)] = task
    finally:
        pool.shutdown(cancel_futures=True)
