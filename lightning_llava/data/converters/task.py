"""Drafts to one shard: what a worker process does."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lightning_llava.data.converters.conversion import Conversion
from lightning_llava.data.converters.deal import Task
from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.language import spoken_language
from lightning_llava.data.converters.pictures import PictureReader, bombs_refused
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.converters.report import Report
from lightning_llava.data.schema import Sample
from lightning_llava.data.shards import NoRoomError, write_shard


@dataclass(frozen=True)
class Written:
    """What became of a task."""

    size: int
    """Bytes of the shard; 0 when no draft became a sample and there is no file."""
    report: Report


def write_task(task: Task, conversion: Conversion, path: Path) -> Written:
    """Read the drafts' images and write the shard, one sample in memory at a time.

    Raises:
        SettingError: the disk is full; no half shard is left.
    """
    report = Report()
    reader = conversion.pictures()
    with bombs_refused():
        samples = _samples(task, conversion, reader, report)
        first = next(samples, None)
        try:
            if first is None:
                path.unlink(missing_ok=True)
            else:
                write_shard(chain([first], samples), path)
        except NoRoomError as error:
            raise NoRoomError(
                f"{error}: the images of its {len(task.drafts)} records take"
                f" {_image_bytes(task, reader):,} bytes"
            ) from error
    return Written(path.stat().st_size if first else 0, report)


def _samples(
    task: Task, conversion: Conversion, reader: PictureReader, report: Report
) -> Iterator[tuple[int, Sample]]:
    for position, draft in task.drafts:
        try:
            sample = _sample(draft, conversion, reader, report)
        except Unusable as error:
            report.left_out[position] = LeftOut(draft.id, error.reason, str(error))
        else:
            report.count(sample)
            report.notes.update(draft.notes)
            yield position, sample


def _sample(draft: Draft, conversion: Conversion, reader: PictureReader, report: Report) -> Sample:
    pictures = [reader.read(image) for image in draft.images]
    language = conversion.language
    if language == "auto":
        language = draft.language or spoken_language(draft.turns)
    sample = Sample(
        draft.id,
        draft.turns,
        [picture.encoded for picture in pictures],
        conversion.source,
        language,
        draft.boxes,
        draft.ids,
    )
    if problem := sample.problem():
        raise Unusable("conversation", problem)
    report.other_extension += sum(picture.other_extension for picture in pictures)
    report.reencoded += sum(picture.reencoded for picture in pictures)
    return sample


def _image_bytes(task: Task, reader: PictureReader) -> int:
    size = task.embedded
    for _, draft in task.drafts:
        for image in draft.images:
            with contextlib.suppress(Unusable, OSError):
                size += reader.size(image) if isinstance(image, str) else 0
    return size
