"""The command line of `tools/export.py`."""

import os
import shutil
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers

from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.models.interop.card import write_card
from lightning_llava.models.interop.formats import FORMATS
from lightning_llava.models.trained import read_trained
from lightning_llava.text.conversation import ConversationEncoder

PROG = "python tools/export.py"
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def run(arguments: Sequence[str] | None = None) -> int:
    """Export what the command line names.

    Raises:
        SettingError: a wrong input, or what the format cannot express.
    """
    options = parser().parse_args(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    trained = read_trained(options.checkpoint, "--checkpoint")
    geometry = vision_geometry(load_vision_config(trained.vision), trained.vision)
    encoder = ConversationEncoder(trained.language, geometry.image_tokens)
    with whole_or_absent(options.output) as folder:
        FORMATS[options.format](trained, encoder, folder, TYPES[options.dtype])
        write_card(folder, trained, encoder, options.format, options.scores, options.license)
    print(f"written: {options.output}")  # noqa: T201
    return 0


@contextmanager
def whole_or_absent(output: Path) -> Iterator[Path]:
    """Give a folder that becomes `output` when all is in it, and is thrown away otherwise.

    Raises:
        SettingError: there is something already.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingError(
            f"--output: {str(output)!r} exists and is not empty; name a new folder, or take the "
            "old one away"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        if output.exists():
            output.rmdir()
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def parser() -> ArgumentParser:
    """Build the argument parser."""
    parser = ArgumentParser(
        prog=PROG,
        description="Write a checkpoint of fit as a folder that other programs load.",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="a .ckpt that fit wrote")
    add("--output", type=Path, required=True, metavar="FOLDER", help="new folder")
    add("--format", choices=list(FORMATS), default="hf", help="what to write")
    add(
        "--dtype",
        choices=list(TYPES),
        default="bfloat16",
        help="type of the weights; bfloat16 is what training computes in on a GPU",
    )
    add(
        "--scores",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="report.json of validate, test or tools/evaluate.py, or what tools/score.py --json "
        "printed, for the model card",
    )
    add(
        "--license", metavar="NAME", help="the card's licence, as the hub names it, e.g. apache-2.0"
    )
    return parser
