"""The command line of `tools/export.py`."""

import os
import re
import shutil
from argparse import (
    Action,
    ArgumentDefaultsHelpFormatter,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
)
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError

from lightning_llava.errors import SettingError
from lightning_llava.export.card import write_card
from lightning_llava.export.push import push
from lightning_llava.export.verify import verify
from lightning_llava.geometry import load_geometry
from lightning_llava.models.interop.formats import FORMATS
from lightning_llava.models.interop.hf import SHARD
from lightning_llava.models.trained import read_trained
from lightning_llava.text.conversation import ConversationEncoder

FULL = ("No space left on device", "Disk quota exceeded")
"""The system's words, which safetensors passes on in an error of its own."""
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
    geometry = load_geometry(trained.vision)
    encoder = ConversationEncoder(trained.language, geometry.image_tokens, tiling=geometry.tiling)
    dtype = TYPES[options.dtype]
    more = {"max_shard_size": options.max_shard_size} if options.format == "hf" else {}
    with whole_or_absent(options.output) as folder:
        _say(f"writing: {options.format}, in {options.dtype}")
        card = (options.scores, options.license, options.language)
        write_card(folder, trained, encoder, options.format, *card)
        FORMATS[options.format](trained, encoder, folder, dtype, **more)
        if options.format == "hf":
            what = "ids, pixels and logits" if options.verify else "ids and pixels"
            _say(f"checking: transformers' {what} against those of training")
            verify(trained, encoder, folder, dtype, logits=options.verify)
    _say(f"written: {options.output}; its README.md has the lines that load it")
    if options.push_to_hub:
        _say(f"pushed: {push(options.output, options.push_to_hub, options.private)}")
    return 0


@contextmanager
def whole_or_absent(output: Path) -> Iterator[Path]:
    """Give a folder that becomes `output` when all is in it, and is thrown away otherwise.

    Raises:
        SettingError: there is something already, nothing can be written, or the disk is full.
    """
    output = output.expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingError(
            f"--output: {str(output)!r} exists and is not empty; name a new folder, or take the "
            "old one away"
        )
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.unfinished")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
    except OSError as error:
        raise SettingError(
            f"--output: {str(output.parent)!r} cannot be written to ({error.strerror}); name a "
            "folder elsewhere"
        ) from error
    try:
        yield unfinished
        _let_read(unfinished)
        if output.exists():
            output.rmdir()
        unfinished.rename(output)
    except (OSError, SafetensorError) as error:
        if not any(words in str(error) for words in FULL):
            raise
        free = shutil.disk_usage(output.parent).free
        raise SettingError(
            f"--output: the disk is full ({free:,} bytes free, beside what was written so far); "
            "make room, or name a folder elsewhere"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _let_read(folder: Path) -> None:
    """Give files the rights of their folder: safetensors writes them for their owner alone."""
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(folder.stat().st_mode & 0o666)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def parser() -> ArgumentParser:
    """Build the argument parser."""
    parser = ArgumentParser(
        prog=PROG,
        description="Write a checkpoint of fit as a folder that other programs load. Nothing is "
        "left of a folder that could not be finished.",
        formatter_class=Defaults,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="a .ckpt (required)")
    add("--output", type=Path, required=True, metavar="FOLDER", help="a new folder (required)")
    add(
        "--format",
        choices=list(FORMATS),
        default="hf",
        help="hf: transformers' LlavaForConditionalGeneration, adapters merged; adapter: a PEFT "
        "folder and the projector; llava: a checkpoint of the original LLaVA code",
    )
    add(
        "--dtype",
        choices=list(TYPES),
        default="bfloat16",
        help="type of the weights; bfloat16 is what frozen ones have in training on a GPU",
    )
    size = "hf: most bytes of a weights file, such as 500MB"
    add("--max-shard-size", type=_size, default=SHARD, metavar="SIZE", help=size)
    add(
        "--verify",
        action=BooleanOptionalAction,
        default=True,
        help="hf: load the folder with transformers and compare its logits with the checkpoint's; "
        "ids and pixels are always compared",
    )
    _add_card(parser)
    add("--push-to-hub", metavar="REPO", help="upload the folder, as owner/name")
    add(
        "--private",
        action=BooleanOptionalAction,
        default=True,
        help="whether a repository that --push-to-hub creates is private",
    )
    return parser


def _add_card(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--scores",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="for the model card: report.json of validate, test or tools/evaluate.py, or what "
        "tools/score.py --json printed; may be given again",
    )
    add("--license", metavar="NAME", help="for the card, as the hub names it: apache-2.0")
    add(
        "--language",
        action="append",
        default=[],
        metavar="CODE",
        help="for the card: en, ru; may be given again",
    )


def _size(text: str) -> str:
    """Take a size as transformers reads it."""
    if not re.fullmatch(r"[1-9]\d*[KMG]B", text):
        raise ArgumentTypeError(f"found {text!r}, expected a size such as {SHARD}")
    return text


class Defaults(ArgumentDefaultsHelpFormatter):
    """Names a default only where there is one."""

    def _get_help_string(self, action: Action) -> str | None:
        is_plain = action.default in (None, []) or action.required
        return action.help if is_plain else super()._get_help_string(action)
