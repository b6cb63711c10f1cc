"""What `paper_in_miniature.py` trains: each part is done once, and goes on where it stopped."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from random import Random

from paper_variants import (
    Variant,
    blank_world,
    checkpoint,
    pictures_folder,
    read_world,
    run_folder,
)
from PIL import Image
from rich.console import Console

from lightning_llava import cli
from lightning_llava.data.shards import write_shards
from lightning_llava.demo import records
from lightning_llava.demo.drawing import IMAGE_SIZE
from lightning_llava.demo.published import LANGUAGES
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.world import FINGERPRINT
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import write_atomically

NOTE = "part.json"
"""What a part was made with, and whether it is finished."""
GRAY = (128, 128, 128)


def once(
    folder: Path, made_with: dict[str, str], make: Callable[[], None], console: Console
) -> None:
    """Make a part, unless it is finished.

    Args:
        folder: its own.
        made_with: what it depends on; a part made with something else is refused.
        make: makes it, or goes on with it.
        console: is told.

    Raises:
        SettingError: the folder holds a part that was made with something else.
    """
    note = folder / NOTE
    known = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
    if known is not None and known["made_with"] != made_with:
        before, now = known["made_with"], made_with
        changed = next(key for key in [*before, *now] if before.get(key) != now.get(key))
        raise SettingError(
            f"{folder} was made with {changed} {before.get(changed)!r}, and is now asked for "
            f"with {now.get(changed)!r}; name another --output, or remove that folder"
        )
    if known is not None and known["finished"]:
        console.print(f"there already: {folder}", style="dim", markup=False, highlight=False)
        return

    def mark(finished: bool) -> None:
        content = {"made_with": made_with, "finished": finished}
        write_atomically(note, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

    mark(finished=False)
    make()
    mark(finished=True)


def world_hash() -> str:
    """Tell the world that was prepared from one of other settings or other code."""
    return _hash([Path(read_world().folder) / FINGERPRINT])


def _hash(files: Iterable[Path]) -> str:
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def train(
    stage: str, model: str, variant: Variant, output: Path, arguments: list[str], console: Console
) -> None:
    """Run a stage as `python -m lightning_llava fit` does, from its last checkpoint if it has one.

    Raises:
        SettingError: as `once`, or it ended without a checkpoint.
    """
    folder = run_folder(stage, model, variant, output)
    last = checkpoint(stage, model, variant, output)

    def fit() -> None:
        run = last.parent.parent
        if last.is_file():
            command = ["--config", str(run / "config.yaml"), "--ckpt_path", str(last)]
        else:
            # A run that was killed before its first checkpoint; the next would be version_1.
            shutil.rmtree(run, ignore_errors=True)
            command = [*arguments, "--trainer.default_root_dir", str(folder)]
        words = ["fit", *command]
        line = shlex.join(["python", "-m", "lightning_llava", *words])
        console.print(line, style="cyan", markup=False, highlight=False, soft_wrap=True)
        run_command(words)
        if not last.is_file():
            raise SettingError(f"{folder}: training ended without {last}; see what it printed")

    made_with = {
        "world": world_hash(),
        "fit": shlex.join(arguments),
        "configs": _hash(Path(file) for flag, file in pairwise(arguments) if flag == "-c"),
    }
    if stage != "align" and not variant.no_align:
        made_with["align"] = _hash([run_folder("align", model, variant, output) / NOTE])
    once(folder, made_with, fit, console)


def run_command(words: list[str]) -> None:
    """Run `python -m lightning_llava WORDS` in this process."""
    ours, sys.argv = sys.argv, ["python -m lightning_llava", *words]
    try:
        cli.main()
    finally:
        sys.argv = ours


def blank_records(output: Path, console: Console) -> None:
    """Write the world's training records anew, each picture a gray square."""
    world, folder = read_world(), blank_world(output)

    def write() -> None:
        scenes = [generate(world.seed, i, "train") for i in range(world.train_scenes)]
        pictures = [_blank()] * len(scenes)
        for kind in records.BUILDERS:
            for wording in LANGUAGES:
                made = records.samples(kind, wording, scenes, pictures, world.seed)
                write_shards(made, folder / "train", f"{kind}-{wording.CODE}")

    once(folder, {"world": world_hash()}, write, console)


def other_pictures(variant: Variant, output: Path, console: Console) -> None:
    """Write the pictures that are shown instead: blank ones, or those of other scenes."""
    folder = pictures_folder(variant, output)
    if folder is None:
        return
    own = sorted((Path(read_world().folder) / "images").iterdir())

    def write() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        others = [_blank() for _ in own] if variant.no_image else _moved_on(own)
        for path, picture in zip(own, others, strict=True):
            (folder / path.name).write_bytes(picture)

    once(folder, {"world": world_hash()}, write, console)


def _moved_on(own: Sequence[Path]) -> list[bytes]:
    """Give each picture's place to another: all move on by one in a drawn order."""
    order = Random(0).sample(range(len(own)), len(own))
    follower = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [own[follower[place]].read_bytes() for place in range(len(own))]


def _blank() -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), GRAY).save(buffer, format="PNG")
    return buffer.getvalue()
