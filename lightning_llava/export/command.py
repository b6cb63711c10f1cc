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

from lightning_llava.errors import SettingError
from lightning_llava.export.card import write_card
from lightning_llava.export.push import push
from lightning_llava.export.verify import verify
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.models.interop.formats import FORMATS
from lightning_llava.models.interop.hf import SHARD
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
    encoder = ConversationEncoder(trained.language, geometry.image_tokens, tiling=geometry.tiling)
    dtype = TYPES[options.dtype]
    more = {"max_shard_size": options.max_shard_size} if options.format == "hf" else {}
    with whole_or_absent(options.output) as folder:
        card = (options.scores, options.license, options.language)
        write_card(folder, trained, encoder, options.format, *card)
        FORMATS[options.format](trained, encoder, folder, dtype, **more)
        if options.format == "hf":
            verify(trained, encoder, folder, dtype, logits=options.verify)
    print(f"written: {options.output}")  # noqa: T201
    if options.push_to_hub:
        print(f"pushed: {push(options.output, options.push_to_hub, options.private)}")  # noqa: T201
    return 0


@contextmanager
def whole_or_absent(output: Path) -> Iterator[Path]:
    """Give a folder that becomes `output` when all is in it, and is thrown away otherwise.

    Raises:
        SettingError: there is something already.
    """
    output = output.expanduser().absolute()
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
    add(
        "--max-shard-size",
        type=_size,
        default=SHARD,
        metavar="SIZE",
        help="hf: of a weights file, in KB, MB or GB",
    )
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
