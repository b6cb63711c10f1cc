"""The embedded world: a data set, its pictures and mini models, made on the spot from a seed.

Small pictures show one to four coloured shapes on a 3 x 3 grid, half of them with a printed word in
Latin or Cyrillic letters. About each there is a caption, short questions (yes or no, colour, count,
place), the word to read, regions to name and to find, and a dialogue, in English and in Russian;
some records do without a picture. No validation picture shows what a training picture shows, and
some combinations of colour and shape, and some words, occur in validation only. The question files
of POPE, VQAv2, GQA and OCR are about the validation pictures. A mini CLIP and two mini language
models, trained on this world alone, stand in for the hub.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from errno import EEXIST, ENOTDIR, ENOTEMPTY
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import TypeVar

from rich import get_console
from rich.progress import track

from lightning_llava.data.preparation import Preparation
from lightning_llava.data.shards import write_shards
from lightning_llava.demo import exam, pope, published, records
from lightning_llava.demo.backbones import PRETRAINED, write_backbones
from lightning_llava.demo.drawing import encode
from lightning_llava.demo.published import LANGUAGES
from lightning_llava.demo.questions import Question
from lightning_llava.demo.scenes import Scene, Split, generate
from lightning_llava.demo.wording import Wording
from lightning_llava.errors import SettingError

T = TypeVar("T")
FINGERPRINT = "world.json"


@dataclass
class DemoWorld(Preparation):
    """The embedded world, written into a folder."""

    folder: str = "data/demo"
    """Where it goes. The folder is the world's own: after a change of settings it is replaced."""
    train_scenes: int = 2000
    """Training pictures; each gives a record of every kind in either language."""
    validation_scenes: int = 200
    """Validation pictures, which the benchmarks ask about too; OCR about as many that have a word,
    for which more are drawn."""
    seed: int = 0
    """What pictures and questions are drawn from. The mini models are those that ship."""

    def prepare(self) -> None:
        """Write the world, unless it stands there already, made with these settings by this code.

        It is built beside its place and moved there when it is whole.

        Raises:
            SettingError: fewer than one scene, or a folder that holds something else.
        """
        if min(self.train_scenes, self.validation_scenes) < 1:
            raise SettingError(
                f"data.preparation: {self.train_scenes} train_scenes and {self.validation_scenes} "
                "validation_scenes; expected at least one of each"
            )
        target, fingerprint = Path(self.folder).expanduser().resolve(), self._fingerprint()
        if _is_current(target, fingerprint):
            return
        _refuse_foreign(target, named=target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            built = Path(scratch) / "built"
            self._write(built)
            (built / FINGERPRINT).write_text(fingerprint, encoding="utf-8")
            _publish(built, target, fingerprint)

    def _fingerprint(self) -> str:
        settings = {key: value for key, value in asdict(self).items() if key != "folder"}
        return json.dumps({**settings, "code": _code_hash()}, indent=1) + "\n"

    def _write(self, folder: Path) -> None:
        train = [generate(self.seed, i, "train") for i in range(self.train_scenes)]
        validation = [generate(self.seed, i, "validation") for i in range(self.validation_scenes)]
        pictures = [encode(scene) for scene in _shown([*train, *validation], "pictures")]
        train_pictures, validation_pictures = pictures[: len(train)], pictures[len(train) :]
        self._write_records(folder, "train", train, train_pictures)
        self._write_records(folder, "validation", validation, validation_pictures)
        with_words = list(islice(self._scenes_with_words(), self.validation_scenes))
        (folder / "images").mkdir()
        for scene in dict.fromkeys([*validation, *with_words]):
            (folder / "images" / scene.image_name).write_bytes(encode(scene))
        self._write_questions(folder, train, validation, with_words)
        write_backbones(folder)

    def _scenes_with_words(self) -> Iterator[Scene]:
        drawn = (generate(self.seed, i, "validation") for i in count())
        return (scene for scene in drawn if scene.word is not None)

    def _write_questions(
        self, folder: Path, train: list[Scene], validation: list[Scene], with_words: list[Scene]
    ) -> None:
        """Write the benchmarks, and the table that the Russian protocol translates by."""
        put_in_words: list[Question] = []
        popularity = pope.frequencies(train)
        for split in pope.POPE_SPLITS:
            asked = pope.questions(split, validation, popularity, self.seed)
            put_in_words += [question for _, question in asked]
            for wording in LANGUAGES:
                pope.write(
                    folder / "pope" / wording.CODE / f"demo_pope_{split}.json", asked, wording
                )
        for split in exam.EXAM_SPLITS:
            for name, topics, write in (
                ("vqav2", published.VQA_TOPICS, published.write_vqav2),
                ("gqa", published.GQA_TOPICS, published.write_gqa),
            ):
                asked = exam.choose(validation, split, list(topics), name, self.seed)
                put_in_words += [question for _, question in asked]
                write(folder / name, split, asked)
            published.write_ocr(folder / "ocr", split, exam.words(with_words, split))
        published.write_table(folder / "russian.tsv", put_in_words)

    def _write_records(
        self, folder: Path, split: Split, scenes: list[Scene], pictures: list[bytes]
    ) -> None:
        """Write a split's shards, one set per kind and language."""
        jobs: list[tuple[records.RecordKind, Wording]] = [
            (kind, wording) for kind in records.BUILDERS for wording in LANGUAGES
        ]
        for kind, wording in _shown(jobs, f"{split} records"):
            made = records.samples(kind, wording, scenes, pictures, self.seed)
            write_shards(made, folder / split, f"{kind}-{wording.CODE}")


def _shown(work: Sequence[T], what: str) -> Iterable[T]:
    """Show progress on a terminal; elsewhere a bar would be noise."""
    hidden = not get_console().is_terminal
    return track(work, f"Demo world: {what}", transient=True, disable=hidden)


def _code_hash() -> str:
    """Hash the files that decide what the world looks like."""
    package = Path(__file__).parents[1]
    makers = ("data/schema.py", "data/shards.py", "lettering.py", "text/template.py")
    sources = [
        *(package / "demo").glob("*.py"),
        *(package / "demo" / "fonts").glob("*.ttf"),
        *PRETRAINED.rglob("*.json"),
        *PRETRAINED.rglob("*.safetensors"),
        *(package / "text" / "templates").glob("*.yaml"),
        *(package / part for part in makers),
    ]
    digest = sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()


def _is_current(target: Path, fingerprint: str) -> bool:
    note = target / FINGERPRINT
    return note.is_file() and note.read_text(encoding="utf-8") == fingerprint


def _refuse_foreign(folder: Path, named: Path) -> None:
    """Refuse to replace what is no demo world."""
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not empty and not (folder / FINGERPRINT).is_file():
        raise SettingError(
            f"data.preparation.folder: {named} holds something that is no demo world (it lacks "
            f"{FINGERPRINT}); expected a folder that is missing or empty, or an earlier demo world"
        )


def _publish(built: Path, target: Path, fingerprint: str) -> None:
    """Move a finished world to its place; another process may be doing the same."""
    while not _is_current(target, fingerprint):
        try:
            # Fails where something stands there, an empty folder excepted.
            built.rename(target)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST, ENOTDIR):
                raise
            _remove(target, built.with_name("stale"))


def _remove(target: Path, aside: Path) -> None:
    """Move a stale world out of the way, and delete it there if that is what it is."""
    try:
        target.rename(aside)
    except FileNotFoundError:  # somebody else has just done so
        return
    try:
        _refuse_foreign(aside, named=target)
    except SettingError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)
